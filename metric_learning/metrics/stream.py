"""All positive scores, and negative ones as they stream past: counts from which every figure follows."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from metric_learning.checks import UserError
from metric_learning.metrics import scores as tallies
from metric_learning.metrics.scores import Counts, Scores, Tally, allowed, as_scores, joined
from metric_learning.metrics.team import Team
from metric_learning.metrics.windows import Top, Windows, joined_windows

# Negatives that are sorted together, at most: the more there are of them, the fewer searches for each positive.
MOST_BUFFERED = 2**24
FEW = 4  # scores are picked out where fewer than one in so many are of interest


class ScoreStream:
    """All positive scores (P,), and negative scores as they come; what is asked of it is exact, in integers.

    negatives: how many will come, or more; it bounds the memory, and without it every distinct negative is kept.
    far: the highest false-accept rate that will be asked for. dtype: that of the negatives, where it is the finer one.
    How the negatives are cut into calls changes nothing. edges: where the thresholds will lie (see Windows).
    curves=False: EER, AUC and ROC are not asked for, and negatives below all thresholds are passed over.
    """

    def __init__(
        self,
        positives: ArrayLike,
        far: float,
        negatives: int | None = None,
        dtype: Any = None,
        *,
        edges: Scores | None = None,
        curves: bool = True,
    ) -> None:
        held = as_scores(positives, "positive scores")
        self.dtype = np.result_type(held.dtype, dtype or held.dtype)
        self.scores, counts = np.unique(held.astype(self.dtype), return_counts=True)
        # Positives below each distinct score, and all of them at the end: (U + 1,).
        self.positives_below = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.positives, self.negatives = held.size, 0
        self.promised, self.curves = negatives, curves
        keep = None if negatives is None else allowed(far, negatives) + 1
        self.top: Top = Tally(keep, self.dtype) if edges is None else Windows(edges)
        asked = self.scores.size if curves else 0
        self._lowest = self.scores[0] if asked else np.inf
        self._passed = 0  # negatives below the lowest positive and all thresholds
        self._below = np.zeros(asked, np.int64)
        self._not_above = np.zeros(asked, np.int64)
        most = MOST_BUFFERED if negatives is None else min(MOST_BUFFERED, negatives)
        self._room = max(tallies.BUFFERED, asked, min(most, 64 * asked))
        self._buffer = np.empty(0, self.dtype)
        self._filled = 0

    def add(self, negatives: ArrayLike) -> None:
        """Take negative scores (M,); they are copied. UserError if not finite, or finer than the stream's dtype."""
        scores = as_scores(negatives, "negative scores")
        if not np.can_cast(scores.dtype, self.dtype):
            raise UserError(
                f"negative scores are {scores.dtype} and positive ones {self.dtype}; give both as {scores.dtype}."
            )
        self.take(scores)

    def take(self, scores: Scores) -> None:
        """Take scores of any shape that are known to be finite and of the stream's dtype."""
        self.negatives += scores.size
        if self.promised is not None and self.negatives > self.promised:
            raise UserError(
                f"{self.promised} negatives were announced and at least {self.negatives} came; announce enough."
            )
        scores = self._of_interest(scores)
        if scores.size and not self._buffer.size:
            self._buffer = np.empty(self._room, self.dtype)
        while scores.size:
            part = scores[: self._buffer.size - self._filled]
            self._buffer[self._filled : self._filled + part.size] = part
            self._filled += part.size
            scores = scores[part.size :]
            if self._filled == self._buffer.size:
                self._flush()

    def _of_interest(self, scores: Scores) -> Scores:
        """Without those below the floor, where that saves work: sorting a score takes as long as picking out some."""
        floor = min(self._lowest, self.top.floor)
        if floor == -np.inf:
            return scores.ravel()
        high = scores >= self.dtype.type(floor)
        count = int(np.count_nonzero(high))
        if count * FEW > scores.size:
            return scores.ravel()
        self._passed += scores.size - count
        return scores.ravel()[np.flatnonzero(high)] if count else scores.ravel()[:0]

    def _flush(self) -> None:
        if self._filled:
            batch = self._buffer[: self._filled]
            batch.sort()
            if self._below.size:
                below = np.searchsorted(batch, self.scores, side="left")
                self._below += below
                tied = np.flatnonzero(batch[np.minimum(below, batch.size - 1)] == self.scores)
                below[tied] = np.searchsorted(batch, self.scores[tied], side="right")
                self._not_above += below
            self.top.add(batch)
            self._filled = 0

    def gather(self, team: Team) -> None:
        """Add up what the processes of a team have seen; each of them then holds it all, and no buffer."""
        self._flush()
        self._buffer = np.empty(0, self.dtype)
        mine = (self.negatives, self._passed, self._below, self._not_above, self.top.seen())
        self.negatives = self._passed = 0
        self._below, self._not_above = np.zeros_like(self._below), np.zeros_like(self._not_above)
        self.top = Tally(self.top.keep, self.dtype) if isinstance(self.top, Tally) else Windows(self.top.edges)
        for negatives, passed, below, not_above, top in team.gather(mine):
            self.negatives += negatives
            self._passed += passed
            self._below += below
            self._not_above += not_above
            self.top.merge(*top)

    def negatives_below(self) -> Counts:
        """Negatives < each distinct positive score (U,)."""
        self._flush()
        return self._below + self._passed

    def negatives_not_above(self) -> Counts:
        """Negatives <= each distinct positive score (U,)."""
        self._flush()
        return self._not_above + self._passed

    def largest_negatives(self) -> Top:
        """Those of the negatives that can be false accepts at `far`."""
        self._flush()
        return self.top

    def true_accepts(self, threshold: float) -> int:
        """How many positives are >= threshold."""
        return self.positives - int(self.positives_below[np.searchsorted(self.scores, threshold)])


def pooled(streams: Iterable[ScoreStream]) -> Top:
    """The highest negatives of several streams of one kind together."""
    tops = [stream.largest_negatives() for stream in streams]
    windows = [top for top in tops if isinstance(top, Windows)]
    return joined_windows(windows) if windows else joined(top for top in tops if isinstance(top, Tally))
