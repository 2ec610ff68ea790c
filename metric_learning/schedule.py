"""The learning rate as a function of the step and of the scores so far: no state of its own to save or restore."""

import math
from collections.abc import Callable, Sequence

from metric_learning.checks import check_choice

Schedule = Callable[[int, Sequence[float]], float]


def schedule(
    strategy: str,
    lr: float,
    total: int,
    steps: tuple[int, ...] = (),
    warmup: int = 0,
    decay: float = 0.1,
    patience: int = 3,
) -> Schedule:
    """(step 0..total-1, the scores of all evaluations so far, higher is better) -> learning rate.

    strategy: `piecewise_decay` (times `decay` at each of `steps`), `plateau` (times `decay` after each `patience`
    evaluations without a better score than ever before, counted anew from there), `cosine_decay` and `linear_decay` (to
    0 at `total`), `constant`. During the first `warmup` steps the rate rises linearly to `lr`, then the strategy
    begins.
    """
    shape = STRATEGIES[check_choice("--lr_strategy", strategy, STRATEGIES)]

    def rate(step: int, scores: Sequence[float] = ()) -> float:
        if step < warmup:
            return lr * (step + 1) / warmup
        if strategy == "plateau":
            return lr * decay ** plateaus(scores, patience)
        if strategy == "piecewise_decay":  # its borders are typed as steps of the whole run
            return lr * decay ** sum(step >= border for border in steps)
        return lr * shape((step - warmup) / max(total - warmup, 1))

    return rate


STRATEGIES: dict[str, Callable[[float], float]] = {
    "piecewise_decay": lambda share: 1.0,
    "cosine_decay": lambda share: 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0))),
    "linear_decay": lambda share: max(1.0 - share, 0.0),
    "constant": lambda share: 1.0,
    "plateau": lambda share: 1.0,
}


def plateaus(scores: Sequence[float], patience: int) -> int:
    """How many times `patience` scores in a row were no better than the best before them."""
    found, best, waited = 0, -math.inf, 0
    for score in scores:
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited == patience:
            found, waited = found + 1, 0
    return found


def stale(scores: Sequence[float]) -> int:
    """How many scores there are behind the first of the best ones."""
    return len(scores) - 1 - max(range(len(scores)), key=lambda i: (scores[i], -i)) if scores else 0
