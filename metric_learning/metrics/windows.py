"""Exact order statistics of far more scores than fit in memory, where it is known about where to look."""

from collections.abc import Iterable, Sequence

import numpy as np

from metric_learning.metrics.scores import Counts, Scores, Tally

FEWEST = 1000  # in a sample that says anything


class MissedError(Exception):
    """What was asked for lies outside the windows: the scores have to be seen again, by a Tally."""


class Windows:
    """Counts scores, and keeps those inside some windows: an order statistic or a count inside of one is exact.

    edges (W, 2): windows [low, high), rising and apart. What is asked about other scores is a MissedError. Memory: the
    scores in the windows, four bytes each.
    """

    def __init__(self, edges: Scores) -> None:
        self.edges = edges
        self.counts: Counts = np.zeros(2 * len(edges) + 1, np.int64)  # below, in the first, between, in the second...
        self.kept: list[list[Scores]] = [[] for _ in edges]

    @property
    def floor(self) -> float:
        """Scores below it need not be given."""
        return float(self.edges[0, 0]) if len(self.edges) else np.inf

    def add(self, ascending: Scores) -> None:
        """Count scores (M,), ascending; those that are kept are copied."""
        cuts = np.searchsorted(ascending, self.edges.ravel())
        self.counts += np.diff(np.concatenate([[0], cuts, [ascending.size]]))
        for kept, low, high in zip(self.kept, cuts[::2].tolist(), cuts[1::2].tolist(), strict=True):
            if high > low:
                kept.append(ascending[low:high].copy())

    def seen(self) -> tuple[Counts, list[Scores]]:
        """(counts (2 W + 1,), the scores in each window)."""
        for i, kept in enumerate(self.kept):
            if len(kept) != 1:  # one alone is sorted
                self.kept[i] = [np.sort(np.concatenate([*kept, self.edges[:0].ravel()]))]
        return self.counts, [kept[0] for kept in self.kept]

    def merge(self, counts: Counts, kept: Sequence[Scores]) -> None:
        """Add what other Windows of the same edges have `seen`."""
        self.counts = self.counts + counts
        for mine, other in zip(self.kept, kept, strict=True):
            mine.append(other)

    def largest(self, rank: int) -> float:
        """The rank-th highest score (from 1, each of a tie counts)."""
        above = np.cumsum(self.counts[::-1])[::-1]  # at least the low end of each cell
        cell = int(np.flatnonzero(above >= rank)[-1])
        if cell % 2 == 0:
            raise MissedError
        values = self.seen()[1][cell // 2]
        return float(values[int(above[cell]) - rank])

    def at_least(self, score: float) -> int:
        """How many scores are >= score."""
        cell = int(np.searchsorted(self.edges.ravel(), score, side="right"))
        if cell % 2 == 0:
            if cell == 0 or score != self.edges[cell // 2 - 1, 1]:
                raise MissedError
            return int(self.counts[cell:].sum())
        values = self.seen()[1][cell // 2]
        return int(self.counts[cell:].sum() - np.searchsorted(values, score))

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.edges.dtype


def joined_windows(parts: Iterable[Windows]) -> Windows:
    """The Windows of all that the given ones, of one kind, have seen."""
    parts = list(parts)
    whole = Windows(parts[0].edges)
    for part in parts:
        whole.merge(*part.seen())
    return whole


def windows_around(samples: Iterable[Scores], fars: Sequence[float]) -> Scores:
    """Samples of negative scores -> edges (W, 2) of windows in which the thresholds for these rates all but surely lie.

    Each sample (of FEWEST at least) gets windows of its own; those that overlap are joined. They reach eight standard
    deviations of the rank to either side, and 5 % of it, for a row is in many pairs of a sample.
    """
    found = []
    for sample in samples:
        if sample.size < FEWEST:
            continue
        ordered = np.sort(sample)[::-1]
        for far in fars:
            rank = far * ordered.size
            slack = 8 * rank**0.5 + 0.05 * rank + 20
            last, first = int(rank + slack), int(rank - slack)
            low = float(ordered[last]) if last < ordered.size else -np.inf
            found.append((low, float(ordered[first]) if first > 0 else np.inf))
    edges: list[list[float]] = []
    for low, high in sorted(found):
        if edges and low <= edges[-1][1]:
            edges[-1][1] = max(edges[-1][1], high)
        else:
            edges.append([low, high])
    return np.array(edges, np.float32).reshape(-1, 2)


Top = Tally | Windows
