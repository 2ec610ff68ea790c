"""Verification: same or not, by score >= threshold. Exact for any number of pairs: no grid, no interpolation.

positives are the scores of pairs of one class, negatives those of pairs of two. FAR is the share of negatives accepted,
TAR the share of positives accepted, FRR = 1 - TAR. `None` stands for what the pairs at hand cannot say.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.metrics.scores import allowed, as_scores, check_fars, needed
from metric_learning.metrics.stream import ScoreStream
from metric_learning.metrics.windows import Top

FARS = (1e-1, 1e-2, 1e-3, 1e-4)
ROC_POINTS = 300


@dataclass(frozen=True)
class OperatingPoint:
    """What one threshold does: far, tar, frr in 0..1 as measured at it. needs: negatives it takes, if too few."""

    target_far: float
    threshold: float | None = None
    far: float | None = None
    tar: float | None = None
    frr: float | None = None
    needs: int | None = None


@dataclass(frozen=True)
class VerificationResult:
    """One group of pairs, each operating point at the group's own threshold.

    roc_far, roc_tar (at most ROC_POINTS): corners of the ROC staircase, FAR rising, each exact; TAR at a FAR between
    two of them is at least that of the left one.
    """

    positives: int
    negatives: int
    points: tuple[OperatingPoint, ...]
    eer: float | None
    auc: float | None
    roc_far: NDArray[np.float64]
    roc_tar: NDArray[np.float64]


def verification_metrics(
    positive_scores: ArrayLike, negative_scores: ArrayLike, fars: Sequence[float] = FARS
) -> VerificationResult:
    """positive_scores (P,), negative_scores (M,), higher = closer -> figures as defined in `stream_result`.

    Raises UserError for scores that are not finite and rates outside 0..1.
    """
    fars = check_fars(fars)
    positives, negatives = as_scores(positive_scores, "positive scores"), as_scores(negative_scores, "negative scores")
    stream = ScoreStream(positives, max(fars), negatives.size, negatives.dtype)
    stream.add(negatives)
    return stream_result(stream, fars)


def stream_result(stream: ScoreStream, fars: Sequence[float] = FARS) -> VerificationResult:
    """What a stream has seen so far -> figures.

    - Threshold for FAR f: the loosest whose FAR is <= f. With M negatives floor(f M) may be accepted, so it is the next
      float above the (floor(f M) + 1)-th highest negative; ties with that one would all be accepted, so none is.
      f below 1/M can't be told from 0: threshold, TAR and FRR are None, `needs` is the number of negatives it takes.
    - AUC: the share of (positive, negative) pairs in the right order, ties counted half.
    - EER: where FAR and FRR meet. As the threshold rises both are step functions; their jumps are joined by straight
      lines (a jump of one alone meets the other at its level; where both jump at a tie, they meet on the way).
    - AUC and EER are None, and the ROC is empty, where the stream was told to leave the curves out.
    """
    fars = check_fars(fars)
    far, tar = _roc(stream)
    top = stream.largest_negatives()
    return VerificationResult(
        positives=stream.positives,
        negatives=stream.negatives,
        points=tuple(point_at([stream], f, threshold_for(top, stream.negatives, f)) for f in fars),
        eer=_equal_error_rate(stream),
        auc=_area(stream),
        roc_far=far,
        roc_tar=tar,
    )


def threshold_for(top: Top, negatives: int, far: float) -> float | None:
    """The loosest threshold that accepts at most this share of so many negatives, of which top holds the highest."""
    accepted = allowed(far, negatives)
    if accepted == 0:
        return None
    number = top.dtype.type
    return float(np.nextafter(number(top.largest(accepted + 1)), number(np.inf)))


def point_at(streams: Sequence[ScoreStream], far: float, threshold: float | None) -> OperatingPoint:
    """What the threshold does to the pairs of these streams together."""
    if threshold is None:
        return OperatingPoint(far, needs=needed(far))
    positives = sum(stream.positives for stream in streams)
    negatives = sum(stream.negatives for stream in streams)
    accepted = sum(stream.true_accepts(threshold) for stream in streams)
    false_accepts = sum(stream.largest_negatives().at_least(threshold) for stream in streams)
    return OperatingPoint(
        target_far=far,
        threshold=threshold,
        far=ratio(false_accepts, negatives),
        tar=ratio(accepted, positives),
        frr=ratio(positives - accepted, positives),
    )


def ratio(part: float, whole: float) -> float | None:
    """part / whole, or None where whole is 0."""
    return part / whole if whole else None


def _has_curves(stream: ScoreStream) -> bool:
    """Pairs of both kinds, and asked for."""
    return stream.curves and stream.positives > 0 and stream.negatives > 0


def _area(stream: ScoreStream) -> float | None:
    if not _has_curves(stream):
        return None
    # Twice the pairs in the right order, in two halves of 32 bits: their number may pass 2^63.
    doubled = stream.negatives_below() + stream.negatives_not_above()
    counts = np.diff(stream.positives_below)
    wins = (int(counts @ (doubled >> 32)) << 32) + int(counts @ (doubled & 0xFFFFFFFF))
    return float(Fraction(wins, 2 * stream.positives * stream.negatives))


def _equal_error_rate(stream: ScoreStream) -> float | None:
    positives, negatives = stream.positives, stream.negatives
    if not _has_curves(stream):
        return None
    rejected, below, not_above = stream.positives_below, stream.negatives_below(), stream.negatives_not_above()

    def crossed(i: int) -> bool:
        """Is FRR >= FAR for a threshold just above the i-th distinct positive score? Python integers: no overflow."""
        return int(rejected[i + 1]) * negatives >= (negatives - int(not_above[i])) * positives

    i = bisect_left(range(stream.scores.size), True, key=crossed)
    frr, next_frr = Fraction(int(rejected[i]), positives), Fraction(int(rejected[i + 1]), positives)
    far, next_far = Fraction(negatives - int(below[i]), negatives), Fraction(negatives - int(not_above[i]), negatives)
    if frr >= far:
        return float(frr)
    return float((next_frr * far - frr * next_far) / (next_frr - frr + far - next_far))


def _roc(stream: ScoreStream) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of the staircase, at positive scores, thinned to geometric steps in the number of false accepts."""
    if not _has_curves(stream):
        return np.empty(0), np.empty(0)
    false_accepts = stream.negatives - stream.negatives_below()
    wanted = np.unique(np.geomspace(1, stream.negatives, ROC_POINTS - 1).astype(np.int64))
    wanted = np.concatenate([[0], wanted])
    # The loosest positive score with at most so many false accepts: scores rise, so false_accepts fall.
    at = stream.scores.size - np.searchsorted(false_accepts[::-1], wanted, side="right")
    at = np.unique(at[at < stream.scores.size])[::-1]
    tar = (stream.positives - stream.positives_below[at]) / stream.positives
    return false_accepts[at] / stream.negatives, tar
