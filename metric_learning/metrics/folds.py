"""Accuracy over a list of pairs: the threshold chosen on other folds, or on the list itself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError
from metric_learning.metrics.cosine import labels_of
from metric_learning.metrics.scores import as_scores

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class FoldAccuracy:
    """Accuracy 0..1 and threshold of each fold, mean and population std of the accuracies; None without pairs."""

    mean: float | None
    std: float | None
    accuracies: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()


@dataclass(frozen=True)
class BestAccuracy:
    """The highest accuracy 0..1 that any threshold reaches, and the lowest such threshold; None without pairs."""

    accuracy: float | None
    threshold: float | None


def ten_fold_accuracy(scores: ArrayLike, same: ArrayLike, folds: int | ArrayLike = 10) -> FoldAccuracy:
    """scores (P,), same (P,) of 0/1, in file order -> accuracy over the folds, the LFW and RFW protocol.

    folds: how many, contiguous in order (the first P % folds hold a pair more), or the fold of each pair (P,).
    A fold's threshold is the one with the best accuracy on the other folds: candidates are their scores in rising order
    and one above them all, and the first best wins (Huang et al., LFW, UMass 07-49, section on View 2; RFW, arXiv
    1812.00194; their programs step through a grid, this does not). With fewer pairs than folds, or pairs in one fold
    only, mean and std are None. One sort, then O(P) a fold. Raises UserError for scores that are not finite and fewer
    than 2 folds.
    """
    values = as_scores(scores, "scores")
    truth = _truth(same, values.size)
    members = _members(folds, values.size)
    if len(members) < 2:
        return FoldAccuracy(None, None)
    tally = _Tally(values, truth)
    accuracies, thresholds = [], []
    for fold in members:
        _, threshold = tally.best(without=fold)
        thresholds.append(threshold)
        accuracies.append(float(np.mean((values[fold] >= threshold) == truth[fold])))
    return FoldAccuracy(float(np.mean(accuracies)), float(np.std(accuracies)), tuple(accuracies), tuple(thresholds))


def best_accuracy(scores: ArrayLike, same: ArrayLike) -> BestAccuracy:
    """scores (P,), same (P,) of 0/1 -> the best accuracy of any threshold on these very pairs.

    Optimistic: it is chosen on what it is measured on. Candidates, ties and errors as in `ten_fold_accuracy`.
    """
    values = as_scores(scores, "scores")
    truth = _truth(same, values.size)
    if not values.size:
        return BestAccuracy(None, None)
    right, threshold = _Tally(values, truth).best(without=np.empty(0, np.int64))
    return BestAccuracy(right / values.size, threshold)


def _truth(same: ArrayLike, count: int) -> NDArray[np.bool_]:
    truth = labels_of(same, count, "same")
    if not np.isin(truth, (0, 1)).all():
        raise UserError(f"same must be 0 or 1 for each pair; got {truth[~np.isin(truth, (0, 1))][0]!r}.")
    return truth.astype(bool)


def _members(folds: int | ArrayLike, count: int) -> list[Counts]:
    """The pairs of each fold; [] where there are fewer pairs than folds."""
    if isinstance(folds, int | np.integer):
        if folds < 2:
            raise UserError(f"folds must be at least 2; got {folds}.")
        return np.array_split(np.arange(count), int(folds)) if count >= folds else []
    numbers = labels_of(folds, count, "folds")
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if count else []


class _Tally:
    """How many positive and negative pairs have each distinct score: sorted once, for any number of folds."""

    def __init__(self, scores: NDArray[np.floating], same: NDArray[np.bool_]) -> None:
        self.distinct, self.place = np.unique(scores, return_inverse=True)
        self.place = self.place.ravel()
        self.same = same
        everything = np.arange(scores.size)
        self.positives, self.negatives = self._counts(everything)

    def _counts(self, pairs: Counts) -> tuple[Counts, Counts]:
        """Of these pairs, the positive and the negative ones at each distinct score, both (U,)."""
        place, same, size = self.place[pairs], self.same[pairs], self.distinct.size
        return np.bincount(place[same], minlength=size), np.bincount(place[~same], minlength=size)

    def best(self, without: Counts) -> tuple[int, float]:
        """(pairs judged right, threshold) at the first best candidate, where some pairs are left out."""
        held = self._counts(without)
        positives, negatives = self.positives - held[0], self.negatives - held[1]
        seen = np.flatnonzero(positives + negatives)
        positives, negatives, scores = positives[seen], negatives[seen], self.distinct[seen]
        above = np.nextafter(scores[-1], np.inf, dtype=scores.dtype)
        # Right at a candidate: the negative pairs below it and the positive ones from it upwards.
        below = np.concatenate([[0], np.cumsum(negatives)])
        upwards = positives.sum() - np.concatenate([[0], np.cumsum(positives)])
        first = int(np.argmax(below + upwards))
        return int((below + upwards)[first]), float(np.append(scores, above)[first])
