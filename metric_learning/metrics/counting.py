"""Ranks of positives by counting what lies before them, a tile of cosines at a time, in any order of the tiles."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metric_learning.metrics.cosine import Floats, Indices

ROWS = 128  # of a tile at once: they stay in the processor's cache, and a count of them fits in a byte
RARE = 32  # hits are looked at one by one where they are fewer than one in so many cosines


class Wanted:
    """The positives of some queries, and how many gallery pictures lie before each so far.

    values (Q, R): cosines of a query with its positives, rising, +inf past the last. ids (Q, R): which pictures those
    are. before (Q, R): pictures seen with a higher cosine, or with the same and a lower id.
    """

    def __init__(self, values: Floats, ids: Indices) -> None:
        order = np.argsort(values, axis=1, kind="stable")
        self.values = np.take_along_axis(values, order, 1)
        self.ids = np.take_along_axis(ids, order, 1)
        self.before = np.zeros(values.shape, np.int64)

    def only_the_best(self) -> "Wanted":
        """Of each query the one with the highest cosine and, among equals, the lowest id; R is then 1."""
        best = np.where(np.isfinite(self.values), self.values, -np.inf).max(axis=1, keepdims=True)
        ids = np.where(self.values == best, self.ids, np.iinfo(np.int64).max).min(axis=1, keepdims=True)
        return Wanted(np.where(np.isfinite(best), best, np.inf).astype(np.float32), ids)

    def uncounted(self) -> "Wanted":
        """The same, nothing being counted yet."""
        return Wanted(self.values, self.ids)

    def count(self, scores: Floats, queries: slice, others: Indices, axis: int) -> None:
        """Count a tile: axis 0 says that its rows are `queries` and its columns `others` (ids), axis 1 the reverse."""
        values, ids, before = self.values[queries], self.ids[queries], self.before[queries]
        reached = scores >= _along(values[:, 0], axis)
        hits = np.count_nonzero(reached)
        if not hits:
            return
        if hits * RARE < reached.size:
            at = np.divmod(np.flatnonzero(reached), scores.shape[1])
            _count_hits(values, ids, before, scores[at], at[axis], others[at[1 - axis]])
            return
        for k in range(values.shape[1]):
            before[:, k] += _sums(scores > _along(values[:, k], axis), axis)
            same = scores == _along(values[:, k], axis)
            if same.any():
                same &= _along(others, 1 - axis) < _along(ids[:, k], axis)
                before[:, k] += _sums(same, axis)


def _count_hits(
    values: Floats, ids: Indices, before: Indices, scores: Floats, queries: Indices, others: Indices
) -> None:
    """Count scores (H,), each of queries[i] with the picture others[i]."""
    limits, scores = values[queries], scores[:, None]
    ahead = (scores > limits) | ((scores == limits) & (others[:, None] < ids[queries]))
    cells = (queries[:, None] * values.shape[1] + np.arange(values.shape[1]))[ahead]
    before += np.bincount(cells, minlength=before.size).reshape(before.shape)


def _along(line: NDArray[Any], axis: int) -> NDArray[Any]:
    return line[:, None] if axis == 0 else line[None, :]


def _sums(found: NDArray[np.bool_], axis: int) -> Indices:
    """How many of each row (axis 0) or of each column (axis 1) of found (at most ROWS, N), much faster than NumPy's."""
    if axis == 1:
        return np.asarray(np.add.reduce(found.view(np.uint8), axis=0, dtype=np.uint8), np.int64)
    bits = np.bitwise_count(np.packbits(found, axis=1))
    return np.asarray(np.add.reduce(bits, axis=1, dtype=np.int64))


def count_tile(
    scores: Floats, rows: Wanted | None, row_ids: Indices, columns: Wanted | None, column_ids: Indices
) -> None:
    """scores (M, N) between pictures row_ids (M,) and column_ids (N,): count it for either side, or for both."""
    for start in range(0, len(scores), ROWS):
        here = slice(start, start + ROWS)
        if rows is not None:
            rows.count(scores[here], here, column_ids, axis=0)
        if columns is not None:
            columns.count(scores[here], slice(None), row_ids[here], axis=1)
