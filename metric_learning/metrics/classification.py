"""Classification: probabilities against labels, over all pictures and group by group. `None` is what can't be said.

The predicted class is the one with the highest probability, of equal ones the first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError
from metric_learning.metrics.cosine import labels_of

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

SUM_ROUNDING = 1e-3  # how far a row of float16 may be from summing to 1
FLOOR = 1e-12  # the least probability that a log loss sees: one sure and wrong picture costs 27.6, not infinity
BINS = 15
ROC_POINTS = 300
Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution
MOST_BYTES = 2**31  # of all confusion matrices together


@dataclass(frozen=True)
class ClassFigures:
    """What N pictures (count) say of C classes; shares in 0..1.

    - interval: Wilson's 95 % interval of the accuracy (1927), (low, high).
    - balanced_accuracy: the mean recall over the classes that occur.
    - log_loss: the mean of -ln p of the true class, p held within FLOOR..1.
    - roc_auc: the share of (positive, negative) pairs in the right order, ties counted half. Two classes: class 1 is
      positive. More: each class against the rest, the mean over the classes that occur (and have a rest).
    - calibration_error: expected calibration error of the highest probability, 15 bins of equal width, a bin being
      (low, high] (Guo et al., arXiv 1706.04599, eq. 3).
    - confusion (C, C): rows the true class, columns the predicted one.
    - roc_fpr, roc_tpr (at most ROC_POINTS): for two classes, exact points of the ROC, to be joined by straight lines,
      from (0, 0) to (1, 1); empty where there is no such curve.
    """

    count: int
    accuracy: float | None
    interval: tuple[float, float] | None
    balanced_accuracy: float | None
    log_loss: float | None
    roc_auc: float | None
    calibration_error: float | None
    confusion: Labels
    roc_fpr: Floats
    roc_tpr: Floats


@dataclass(frozen=True)
class Classification:
    """classes: the names, in the order of the probabilities. groups: name -> figures, by name; {} without groups."""

    classes: list[str]
    pooled: ClassFigures
    groups: dict[str, ClassFigures]

    @property
    def worst(self) -> str | None:
        """The group with the lowest accuracy, of equal ones the first; None with fewer than two groups."""
        found = self._accuracies()
        return min(found, key=lambda name: found[name]) if len(found) > 1 else None

    @property
    def gap(self) -> float | None:
        """The highest accuracy of a group less the lowest, 0..1; None with fewer than two groups."""
        found = self._accuracies().values()
        return max(found) - min(found) if len(found) > 1 else None

    def _accuracies(self) -> dict[str, float]:
        return {name: found.accuracy for name, found in self.groups.items() if found.accuracy is not None}


def classification(
    probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str], groups: Sequence[str] | None = None
) -> Classification:
    """probabilities (N, C), labels (N,) in 0..C-1, C >= 2 names, groups (N,) -> figures as in `ClassFigures`.

    With N = 0 they are None. Raises UserError for NaN, negative probabilities, rows that do not sum to 1 within
    SUM_ROUNDING, labels out of range, and so many classes that no confusion matrix can be held.
    """
    rows = as_probabilities(probabilities)
    _check_names(classes, rows.shape[1])
    truth = as_labels(labels, len(rows), rows.shape[1])
    names = None if groups is None else np.asarray(labels_of(groups, len(rows), "groups"), np.str_)
    distinct, members = ([], None) if names is None else _distinct(names)
    if (1 + len(distinct)) * 8 * rows.shape[1] ** 2 > MOST_BYTES:
        raise UserError(
            f"Confusion matrices of {rows.shape[1]:,} classes and {len(distinct):,} groups do not fit into memory. "
            "So many classes are better measured by retrieval or verification."
        )
    by_group = {name: _figures(rows[members == i], truth[members == i]) for i, name in enumerate(distinct)}
    return Classification(list(classes), _figures(rows, truth), by_group)


def _distinct(names: NDArray[np.str_]) -> tuple[list[str], NDArray[Any]]:
    distinct, members = np.unique(names, return_inverse=True)
    return distinct.tolist(), members.ravel()


def _check_names(classes: Sequence[str], count: int) -> None:
    if len(classes) != count:
        raise UserError(f"classes must name the {count} columns of the probabilities; got {len(classes)} names.")
    twice = [name for i, name in enumerate(classes) if name in set(classes[:i])] if len(set(classes)) < count else []
    if twice:
        raise UserError(f"classes must have names of their own; {twice[0]!r} is there twice.")


def as_probabilities(probabilities: ArrayLike, axes: str = "NC") -> Floats:
    """probabilities of the shape that `axes` spells, the classes last -> float64.

    Raises UserError for another shape, fewer than 2 classes, and rows that are no distribution, naming the first.
    """
    array = np.asarray(probabilities)
    if array.ndim != len(axes) or array.dtype.kind not in "fiub" or array.shape[-1] < 2:
        rule = f"an array ({', '.join(axes)}) of real numbers with C >= 2 classes"
        raise UserError(f"probabilities must be {rule}; got {array.shape} of {array.dtype}.")
    rows = array.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinities of both signs are refused below
        good = (rows >= 0.0).all(axis=-1) & (np.abs(rows.sum(axis=-1) - 1.0) <= SUM_ROUNDING)
    if not good.all():
        where = tuple(np.argwhere(~good)[0].tolist())
        at = where[0] if len(where) == 1 else where
        said = ", ".join(f"{p:.4g}" for p in rows[where][:4]) + (", ..." if rows.shape[-1] > 4 else "")
        raise UserError(
            f"probabilities must be 0 or more and sum to 1 in each row; row {at} is [{said}], "
            f"which sums to {math.fsum(rows[where]) if np.isfinite(rows[where]).all() else math.nan:.4g}. "
            "Are they logits? Take their softmax."
        )
    return rows


def as_labels(labels: ArrayLike, count: int, classes: int) -> Labels:
    """labels (count,) as int64; UserError unless they are whole numbers in 0..classes-1."""
    array = labels_of(labels, count)
    if array.size and array.dtype.kind not in "iu":
        raise UserError(f"labels must be whole numbers, the places of the classes; got {array.dtype}.")
    bad = np.flatnonzero((array < 0) | (array >= classes))
    if bad.size:
        raise UserError(f"labels must lie in 0..{classes - 1}; number {bad[0]} is {array[bad[0]]}.")
    return array.astype(np.int64)


# ---- one set of pictures


def _figures(rows: Floats, truth: Labels) -> ClassFigures:
    """rows (N, C), truth (N,), both checked."""
    count, classes = rows.shape
    predicted = rows.argmax(axis=1)
    confusion = np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)
    right = int(np.trace(confusion))
    fpr, tpr = _roc(rows[:, 1], truth == 1) if classes == 2 else (np.empty(0), np.empty(0))
    return ClassFigures(
        count=count,
        accuracy=right / count if count else None,
        interval=wilson(right, count),
        balanced_accuracy=_balanced(confusion),
        log_loss=log_loss(rows, truth),
        roc_auc=_roc_auc(rows, truth),
        calibration_error=_calibration_error(rows.max(axis=1), predicted == truth) if count else None,
        confusion=confusion.astype(np.int64),
        roc_fpr=fpr,
        roc_tpr=tpr,
    )


def wilson(right: int, count: int) -> tuple[float, float] | None:
    """The 95 % interval of a share, right of count (Wilson 1927, JASA 22, p. 209); None for 0 of 0."""
    if not count:
        return None
    share, square = right / count, Z95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = Z95 / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    # The bound is exactly 0 or 1 at the ends, which rounding would miss.
    return (0.0 if right == 0 else middle - half, 1.0 if right == count else middle + half)


def _balanced(confusion: Labels) -> float | None:
    totals = confusion.sum(axis=1)
    held = totals > 0
    return float(np.mean(np.diagonal(confusion)[held] / totals[held])) if held.any() else None


def log_loss(rows: Floats, truth: Labels) -> float | None:
    """The mean of -ln p of the true class (rows (N, C), truth (N,)), p held within FLOOR..1; None for N = 0."""
    if not truth.size:
        return None
    return 0.0 - float(np.mean(np.log(np.clip(rows[np.arange(truth.size), truth], FLOOR, 1.0))))


def _roc_auc(rows: Floats, truth: Labels) -> float | None:
    wanted = (1,) if rows.shape[1] == 2 else np.unique(truth)
    areas = [_area(rows[:, c], truth == c) for c in wanted]
    found = [area for area in areas if area is not None]
    return float(np.mean(found)) if found else None


def _area(scores: Floats, positive: NDArray[np.bool_]) -> float | None:
    """The share of (positive, negative) pairs in the right order, ties half (Mann and Whitney's U), by whole numbers.

    A positive's rank among all less its rank among the positives is the number of negatives below it.
    """
    everything, positives = np.sort(scores), np.sort(scores[positive])
    pairs = positives.size * (everything.size - positives.size)
    if not pairs:
        return None
    doubled = 0
    for side in ("left", "right"):
        ranks = np.searchsorted(everything, positives, side) - np.searchsorted(positives, positives, side)
        doubled += int(ranks.sum())
    return doubled / (2 * pairs)


def _roc(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """False- and true-positive rate at each distinct score, falling, thinned to even steps along the curve."""
    positives = int(positive.sum())
    if not 0 < positives < scores.size:
        return np.empty(0), np.empty(0)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)  # ties pass the threshold together
    true = np.concatenate([[0], np.cumsum(positive[order])[last]])
    false = np.concatenate([[0], last + 1]) - true
    fpr, tpr = false / (scores.size - positives), true / positives
    if fpr.size > ROC_POINTS:
        steps = np.searchsorted(fpr + tpr, np.linspace(0.0, 2.0, ROC_POINTS))
        kept = np.unique(np.minimum(steps, fpr.size - 1))
        fpr, tpr = fpr[kept], tpr[kept]
    return fpr, tpr


def _calibration_error(top: Floats, right: NDArray[np.bool_]) -> float:
    """top (N,): the highest probability of each picture; right (N,): is that class the true one?"""
    bins = np.digitize(top, np.arange(1, BINS) / BINS, right=True)
    confidence = np.bincount(bins, weights=top, minlength=BINS)
    return float(np.abs(np.bincount(bins, weights=right, minlength=BINS) - confidence).sum() / top.size)
