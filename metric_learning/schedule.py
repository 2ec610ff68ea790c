"""The learning rate as a function of the step: nothing to save, nothing to restore."""

import math
from collections.abc import Callable

from metric_learning.checks import check_choice

Schedule = Callable[[int], float]


def schedule(
    strategy: str, lr: float, total: int, steps: tuple[int, ...] = (), warmup: int = 0, decay: float = 0.1
) -> Schedule:
    """step 0..total-1 -> learning rate.

    strategy: `piecewise_decay` (times `decay` at each of `steps`), `cosine_decay` and `linear_decay` (to 0 at `total`),
    `constant`. During the first `warmup` steps the rate rises linearly to `lr`, then the strategy begins.
    """
    shape = STRATEGIES[check_choice("--lr_strategy", strategy, STRATEGIES)]

    def rate(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / warmup
        if strategy == "piecewise_decay":  # its borders are typed as steps of the whole run
            return lr * decay ** sum(step >= border for border in steps)
        return lr * shape((step - warmup) / max(total - warmup, 1))

    return rate


STRATEGIES: dict[str, Callable[[float], float]] = {
    "piecewise_decay": lambda share: 1.0,
    "cosine_decay": lambda share: 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0))),
    "linear_decay": lambda share: max(1.0 - share, 0.0),
    "constant": lambda share: 1.0,
}
