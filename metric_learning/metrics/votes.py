"""Several models, one answer: votes over their probabilities. (A head over their embeddings: `fusion`.)"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError, check_choice
from metric_learning.metrics.classification import FLOOR, as_labels, as_probabilities
from metric_learning.metrics.fusion import FusionHead, fit_fusion

Floats = NDArray[np.float64]
WEIGHT_STEPS = 20_000
WEIGHT_GAP = 1e-9

__all__ = ["VOTES", "FusionHead", "as_weights", "fit_fusion", "fit_weights", "vote"]


def vote(probabilities: ArrayLike, kind: str, weights: ArrayLike | None = None) -> Floats:
    """probabilities (M, N, C) of M models, kind a key of VOTES -> (N, C), rows summing to 1; argmax is the decision.

    - hard: the share of the models whose most probable class (of equal ones the first) it is. Where classes tie for the
      most votes, their votes are shared out anew among them, in proportion to their mean probability over the models,
      so the soft vote decides between them, and the other classes' shares stay.
    - soft: the mean probability.
    - weighted: the mean probability by weights (M,) >= 0, which are divided by their sum.

    Raises UserError for probabilities that are none, weights that are missing, negative, not finite, all 0 or of
    another count, and weights with another kind.
    """
    check_choice("vote", kind, VOTES)
    rows = as_probabilities(probabilities, "MNC")
    if not len(rows):
        raise UserError("A vote takes at least one model; there is none.")
    if (weights is not None) != (kind == "weighted"):
        rule = "has no weights; leave them out" if kind != "weighted" else "takes a weight for each model"
        raise UserError(f"vote={kind} {rule}.")
    return VOTES[kind](rows, as_weights(weights, len(rows)) if weights is not None else None)


def as_weights(weights: ArrayLike, models: int) -> Floats:
    """weights (models,) >= 0, not all 0 -> float64, summing to 1; UserError for anything else."""
    array = np.asarray(weights)
    if array.shape != (models,) or array.dtype.kind not in "fiu":
        raise UserError(f"weights must be {models} numbers, one a model; got {array.shape} of {array.dtype}.")
    found = array.astype(np.float64)
    if not (np.isfinite(found).all() and (found >= 0.0).all() and found.any()):
        raise UserError(f"weights must be finite, 0 or more and not all 0; got {', '.join(f'{w:g}' for w in found)}.")
    found /= found.max()  # so that the sum of huge or tiny ones is a number
    found /= found.sum()
    return found


def _hard(rows: Floats, _: Floats | None) -> Floats:
    models, count, classes = rows.shape
    votes = np.zeros((count, classes))
    for choice in rows.argmax(axis=2):
        votes[np.arange(count), choice] += 1.0
    tied = votes == votes.max(axis=1, keepdims=True)
    means = np.where(tied, rows.mean(axis=0), 0.0)
    pot = np.where(tied, votes, 0.0).sum(axis=1, keepdims=True)
    again = np.where(tied, pot * means / means.sum(axis=1, keepdims=True), votes)
    shares: Floats = np.where(tied.sum(axis=1, keepdims=True) > 1, again, votes) / models
    return shares


def _mean(rows: Floats, weights: Floats | None) -> Floats:
    """The soft vote without weights, the weighted one with them."""
    found: Floats = rows.mean(axis=0) if weights is None else np.tensordot(weights, rows, axes=1)
    return found


VOTES: dict[str, Callable[[Floats, Floats | None], Floats]] = {"hard": _hard, "soft": _mean, "weighted": _mean}


def fit_weights(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """probabilities (M, N, C), labels (N,) of validation pictures -> weights (M,) >= 0 that sum to 1.

    They give the weighted vote its lowest log loss on these pictures (probabilities held at FLOOR or more). That is the
    likelihood of a mixture whose parts are known, so it is convex, and EM for the proportions lowers it at every step:
    w_m <- w_m g_m, g_m = mean of p_m / sum_k w_k p_k (Dempster, Laird, Rubin 1977, section 4.3). As the loss is convex,
    it lies no more than max g_m - 1 above the lowest; EM ends at WEIGHT_GAP, or after WEIGHT_STEPS. It starts at equal
    weights, so models that are alike share alike. Raises UserError as `vote`, and without pictures.
    """
    rows = as_probabilities(probabilities, "MNC")
    models, count, classes = rows.shape
    truth = as_labels(labels, count, classes)
    if not count or not models:
        raise UserError(f"Weights take models and validation pictures to be fitted on; got {models} and {count:,}.")
    of_truth = np.ascontiguousarray(np.maximum(rows[:, np.arange(count), truth], FLOOR))
    weights = np.full(models, 1.0 / models)
    for _ in range(WEIGHT_STEPS):
        gains = of_truth @ (1.0 / (weights @ of_truth)) / count
        weights *= gains
        weights /= weights.sum()  # it is 1 already, but for rounding
        if gains.max() - 1.0 <= WEIGHT_GAP:
            break
    return weights
