"""Confident learning: which labels are probably wrong, by a classifier that has not seen them.

Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", arXiv 1911.00068.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.metrics.classification import as_labels, as_probabilities

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]

# A mean of equal numbers may be a last bit above them: without this an example would miss its own class's threshold.
ROUNDING = 1e-9
ROWS_AT_ONCE = 65536


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """The M of N labels that are probably wrong, most suspicious first.

    indices (M,): which examples; given, suggested (M,): their label and the one that they look like; margins (M,) in
    -1..1: probability of the label less the highest of the others, lowest first, ties by index. thresholds (C,): t_j,
    infinite for a class that nobody is labelled. joint (C, C): examples by label (row) and by the class that they
    confidently belong to (column). noise_rate: the estimated share of wrong labels in all N, None where N is 0.
    """

    indices: Indices
    given: Indices
    suggested: Indices
    margins: Numbers
    thresholds: Numbers
    joint: Indices
    noise_rate: float | None


def probable_label_errors(probabilities: ArrayLike, labels: ArrayLike) -> LabelErrors:
    """probabilities (N, C), C >= 2, rows that sum to 1; labels (N,) whole numbers in 0..C-1 -> LabelErrors.

    The probabilities must be OUT OF FOLD: of each example by a classifier that was trained without it, else it has
    learnt the wrong labels too. t_j is the mean of p_j over the examples labelled j (equation 2 of the paper); an
    example is counted in the joint at (its label, the likeliest of the classes j with p_j >= t_j), and nowhere where
    there is none (equation 1). Among classes of equal probability its own label comes first, then the lowest. What is
    counted off the diagonal is probably wrong (the paper's method "confident joint"); as there, that may be an example
    whose label is the likeliest class but below its threshold: margins >= 0, at the end of the list. noise_rate is
    what lies off the diagonal of the joint after its rows are scaled to the classes' sizes (equation 3).
    Raises UserError for what `classification` refuses: rows that are no probabilities, labels that are not 0..C-1.
    """
    table = as_probabilities(probabilities)
    count, classes = table.shape
    given = as_labels(labels, count, classes)
    sizes = np.bincount(given, minlength=classes)
    sums = np.bincount(given, weights=table[np.arange(count), given], minlength=classes)
    thresholds = np.where(sizes > 0, sums / np.maximum(sizes, 1), np.inf)
    belongs, margins = _belongs(table, given, thresholds)
    confident = belongs >= 0
    cells = given[confident] * classes + belongs[confident]
    joint = np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)
    wrong = np.flatnonzero(confident & (belongs != given))
    wrong = wrong[np.argsort(margins[wrong], kind="stable")]
    return LabelErrors(
        wrong, given[wrong], belongs[wrong], margins[wrong], thresholds, joint, _noise_rate(joint, sizes)
    )


def _belongs(table: Numbers, given: Indices, thresholds: Numbers) -> tuple[Indices, Numbers]:
    """(the class that each example confidently belongs to or -1, its margin), both (N,)."""
    belongs, margins = np.empty(len(table), np.int64), np.empty(len(table))
    for start in range(0, len(table), ROWS_AT_ONCE):
        part = table[start : start + ROWS_AT_ONCE].copy()
        rows, label = np.arange(len(part)), given[start : start + ROWS_AT_ONCE]
        above = np.where(part >= thresholds - ROUNDING, part, -1.0)
        best = above.argmax(axis=1)
        highest, own = above[rows, best], part[rows, label]
        best = np.where(above[rows, label] == highest, label, best)
        belongs[start : start + len(part)] = np.where(highest < 0, -1, best)
        part[rows, label] = -np.inf
        margins[start : start + len(part)] = own - part.max(axis=1)
    return belongs, margins


def _noise_rate(joint: Indices, sizes: Indices) -> float | None:
    """Every class that has examples has one at or above its own mean, so that its row is not empty."""
    total = int(sizes.sum())
    right = np.diag(joint) / np.maximum(joint.sum(axis=1), 1)
    return float(((1.0 - right) * sizes).sum() / total) if total else None
