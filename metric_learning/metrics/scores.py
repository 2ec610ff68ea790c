"""Exact counts over more scores than fit in memory: distinct scores, and the highest of them."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError

Scores = NDArray[Any]
Counts = NDArray[np.int64]

BUFFERED = 2**20
MOST_IN_FOUR_BYTES = 2**32 - 1


def as_scores(scores: ArrayLike, what: str) -> Scores:
    """scores (N,) -> float32 where they come as float32 or float16, else float64; UserError unless (N,) and finite."""
    array = np.asarray(scores)
    if array.ndim != 1 or array.dtype.kind not in "fiub":
        raise UserError(f"{what} must be a list of numbers; got shape {array.shape} of {array.dtype}.")
    array = array.astype(np.float32 if array.dtype in (np.float16, np.float32) else np.float64, copy=False)
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise UserError(f"{what} must be finite; number {bad[0]} is {array[bad[0]]}. Find what made it so.")
    return array


class Tally:
    """Distinct scores with how often each was seen, of which the largest `keep` (ties counted) are sure to be there.

    Memory: the distinct scores among those; float32 cosines above 0.1 have fewer than 30 million values, however many
    pairs are seen. keep=None keeps all.
    """

    def __init__(self, keep: int | None, dtype: Any = np.float64) -> None:
        self.keep = keep
        self.values = np.empty(0, dtype)
        # Four bytes a count until one needs eight: there may be tens of millions.
        self.counts: NDArray[Any] = np.empty(0, np.uint32)
        self._floor = self.values.dtype.type(-np.inf)
        self._waiting: list[Scores] = []

    def add(self, ascending: Scores) -> None:
        """Count scores (M,), ascending; they are copied."""
        kept = ascending[np.searchsorted(ascending, self._floor) :].copy()
        self._waiting.append(kept)
        # The more there are already, the more new ones wait, so that the copying stays in proportion.
        if sum(batch.size for batch in self._waiting) > max(BUFFERED, self.values.size // 4):
            self._merge()

    def _merge(self) -> None:
        if self._waiting:
            values, counts = np.unique(np.concatenate(self._waiting), return_counts=True)
            self._waiting = []
            self.insert(values, counts)

    def insert(self, values: Scores, counts: NDArray[Any]) -> None:
        """Count each of the distinct, ascending values (M,) so many times (M,)."""
        if int(self.counts.max(initial=0)) + int(counts.max(initial=0)) > MOST_IN_FOUR_BYTES:
            self.counts = self.counts.astype(np.int64)
        places = np.searchsorted(self.values, values)
        known = places < self.values.size
        known[known] = self.values[places[known]] == values[known]
        self.counts[places[known]] += counts[known].astype(self.counts.dtype)
        self.values = np.insert(self.values, places[~known], values[~known])
        self.counts = np.insert(self.counts, places[~known], counts[~known])
        self._drop_the_low()

    def _drop_the_low(self) -> None:
        if self.keep is None:
            return
        kept = int(np.searchsorted(_running(self.counts[::-1]), self.keep)) + 1
        if kept < self.values.size:
            self.values, self.counts = self.values[-kept:].copy(), self.counts[-kept:].copy()
            self._floor = self.values[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.values.dtype
        return dtype

    @property
    def floor(self) -> float:
        """Scores below it need not be given any more."""
        return float(self._floor)

    def merge(self, values: Scores, counts: NDArray[Any]) -> None:
        """Add what another tally has `seen`, one that keeps as many."""
        self._merge()
        self.insert(values, counts)

    def seen(self) -> tuple[Scores, NDArray[Any]]:
        """The distinct scores (V,), ascending, and how often each was seen (V,)."""
        self._merge()
        return self.values, self.counts

    def largest(self, rank: int) -> float:
        """The rank-th highest score (from 1, each of a tie counts); rank is at most `keep` and the number seen."""
        values, counts = self.seen()
        return float(values[::-1][np.searchsorted(_running(counts[::-1]), rank)])

    def at_least(self, score: float) -> int:
        """How many scores seen are >= score; exact where that is at most `keep`."""
        values, counts = self.seen()
        return int(counts[np.searchsorted(values, score) :].sum(dtype=np.int64))


def _running(counts: NDArray[Any]) -> Counts:
    return np.cumsum(counts, dtype=np.int64)


def joined(tallies: Iterable[Tally]) -> Tally:
    """One tally of all that the given ones hold, dropping nothing; each of them must have kept enough."""
    tallies = list(tallies)
    whole = Tally(None, np.result_type(*(t.values.dtype for t in tallies)) if tallies else np.float64)
    for tally in tallies:
        whole.insert(*tally.seen())
    return whole


def allowed(far: float, negatives: int) -> int:
    """How many negatives may be accepted at this rate: floor(far * negatives), far read as the decimal it prints as.

    0.29 * 100 is 28.999999999999996 in floating point, and 29 of 100 is a rate of 0.29.
    """
    return int(Fraction(repr(float(far))) * negatives)


def needed(far: float) -> int:
    """The fewest negatives with which this rate can be measured: the smallest n with far * n >= 1."""
    return -int(-1 // Fraction(repr(float(far))))


def check_fars(fars: Sequence[float]) -> tuple[float, ...]:
    """fars as a tuple; UserError unless each lies between 0 and 1, and there is one."""
    if not fars or not all(0.0 < far < 1.0 for far in fars):
        raise UserError(f"false-accept rates must lie between 0 and 1, both excluded; got {list(fars)}.")
    return tuple(float(far) for far in fars)
