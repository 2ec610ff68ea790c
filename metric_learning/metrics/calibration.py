"""Fitting a similarity in 0..1: a logistic of the cosine whose middle is the threshold for a chosen FAR."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError
from metric_learning.metrics.cosine import labels_of
from metric_learning.metrics.groups import GroupedResult, per_group
from metric_learning.metrics.pairs import all_pairs
from metric_learning.metrics.scores import Scores, allowed, as_scores
from metric_learning.metrics.similarity import MAX_SLOPE, ROUNDING, Calibration, StoredPoint, is_tame, logistic
from metric_learning.metrics.verification import OperatingPoint

FAR = 1e-3
BINS = 20_000
FEWEST = 10  # negatives without which a group has no operating point of its own


class Bins:
    """Cosines as counts and sums in BINS equal parts of -1..1: the memory is the same for any number of them.

    A bin stands for its scores by their mean, so a bin with one score is exact, and in any other no score lies further
    than 2 / BINS from where it is taken to be.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.sums = np.zeros(BINS)

    def add(self, scores: Scores) -> None:
        places = np.clip(((scores.astype(np.float64) + 1.0) * (BINS / 2)).astype(np.int64), 0, BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)
        self.sums += np.bincount(places, weights=scores, minlength=BINS)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def scores(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(mean scores (V,) of the bins that hold any, their share of all (V,))."""
        held = np.flatnonzero(self.counts)
        return self.sums[held] / self.counts[held], self.counts[held] / self.total


def fit_slope(positives: Bins, negatives: Bins, threshold: float) -> float:
    """The maximum-likelihood slope a > 0 of 1 / (1 + exp(-a (score - threshold))), at most MAX_SLOPE.

    Both kinds of pairs weigh alike, however many there are of each. Targets are 1 - e and e with e = 1 / (n + 2), n the
    number of the rarer kind: Platt's (1999, section 2.2) with one count for both kinds. They keep the slope finite
    where the scores are separable, and, being symmetric, a is above 0 exactly where the mean positive score is above
    the mean negative one. Raises UserError where it is not.
    """
    (same, same_share), (other, other_share) = positives.scores(), negatives.scores()
    if not same @ same_share > other @ other_share:
        raise UserError(
            f"Pairs of one class score no higher than pairs of two (mean cosine {same @ same_share:.4f} and "
            f"{other @ other_share:.4f}), so no rising similarity fits them. Are the answers of the pairs turned round?"
        )
    smoothing = 1.0 / (min(positives.total, negatives.total) + 2)

    def rises(slope: float) -> bool:
        """Does the likelihood, which is concave in the slope, still rise here?"""
        pull = same_share * (1.0 - smoothing - logistic(slope * (same - threshold))) @ (same - threshold)
        push = other_share * (smoothing - logistic(slope * (other - threshold))) @ (other - threshold)
        return bool(pull + push > 0.0)

    low, high = 0.0, MAX_SLOPE
    if rises(high):
        return high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if rises(middle) else (low, middle)
    return high


def calibrate(scores: Mapping[str, tuple[ArrayLike, ArrayLike]], far: float = FAR) -> Calibration:
    """group -> (cosines of positive pairs, of negative pairs) -> the calibration, 0.5 at the threshold for this FAR.

    The threshold is that of `per_group`, exact, over all groups together; where there are too few negatives for `far`,
    it is that of the strictest rate that they can measure, 1 / negatives. Each group with at least FEWEST negatives
    gets a point of its own in the same way. Raises UserError without positives, with fewer than 2 negatives, for scores
    that are no cosines, and where positives score no higher than negatives.
    """
    pairs = {name: (_cosines(same, name), _cosines(other, name)) for name, (same, other) in scores.items()}
    bins = Bins(), Bins()
    for both in pairs.values():
        for place, part in zip(bins, both, strict=True):
            place.add(part)
    fars = _fars(far, {name: other.size for name, (_, other) in pairs.items()})
    return _calibration(per_group(pairs, fars), bins, far)


def calibrate_all_pairs(
    embeddings: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None, far: float = FAR
) -> Calibration:
    """The same over all unordered pairs within each group; they stream past, as in `all_pairs`."""
    codes = labels_of(labels, len(np.asarray(embeddings)))
    names = np.full(len(codes), "all") if groups is None else labels_of(groups, len(codes), "groups")
    fars = _fars(far, {str(name): _negatives(codes[names == name]) for name in np.unique(names)})
    bins = Bins(), Bins()

    def watch(name: str, same: Scores, other: Scores) -> None:
        bins[0].add(same)
        bins[1].add(other)

    return _calibration(all_pairs(embeddings, codes, groups, fars, watch=watch), bins, far)


def _cosines(scores: ArrayLike, name: str) -> Scores:
    found = as_scores(scores, f"scores of {name}")
    if found.size and np.abs(found).max() > 1 + ROUNDING:
        raise UserError(f"scores of {name} must be cosines, in -1..1; got {found[np.abs(found).argmax()]}.")
    return found


def _negatives(labels: NDArray[Any]) -> int:
    sizes = np.unique(labels, return_counts=True)[1].tolist()
    return int(sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2


def strictest(far: float, negatives: int) -> float:
    """far, or the lowest rate that so many negatives (2 or more) can measure."""
    if allowed(far, negatives):
        return far
    lowest = 1.0 / negatives
    return lowest if allowed(lowest, negatives) else float(np.nextafter(lowest, 1.0))


def _fars(far: float, negatives: Mapping[str, int]) -> tuple[float, ...]:
    """The rates to ask for: that of all groups together, and those of the groups where they are others."""
    if not 0.0 < far < 1.0:
        raise UserError(f"The false-accept rate to calibrate for must lie between 0 and 1; got {far}.")
    pool = sum(negatives.values())
    if pool < 2:
        raise UserError(f"Too few pairs to calibrate: {pool} negative (of two classes), and it takes 2 at least.")
    counts = [pool, *(count for count in negatives.values() if count >= FEWEST)]
    return tuple(sorted({strictest(far, count) for count in counts}))


def _calibration(found: GroupedResult, bins: tuple[Bins, Bins], far: float) -> Calibration:
    positives, negatives = (part.total for part in bins)
    if not positives:
        raise UserError("Too few pairs to calibrate: none is positive (of one class).")
    rate = strictest(far, negatives)
    threshold = _threshold(found.pooled, rate)
    groups = {}
    for name, result in found.groups.items():
        if result.negatives >= FEWEST and list(found.groups) != ["all"] and is_tame(name):
            own = strictest(far, result.negatives)
            groups[name] = StoredPoint(_threshold(result.points, own), own, result.positives, result.negatives)
    return Calibration(fit_slope(*bins, threshold), StoredPoint(threshold, rate, positives, negatives), groups)


def _threshold(points: Sequence[OperatingPoint], far: float) -> float:
    """That of the point for this rate, which is one that can be measured."""
    return next(point.threshold for point in points if point.target_far == far and point.threshold is not None)
