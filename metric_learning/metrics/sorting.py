"""Ranks of the positives, a whole row of cosines at a time: for classes so large that sorting beats counting."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from metric_learning.metrics.cosine import Floats, Indices, Similarities, hide_self
from metric_learning.metrics.ranks import Ranks
from metric_learning.metrics.team import Team

# Above so many positives one sort of the row is cheaper than a count for each.
COUNTED_POSITIVES = 32


def ranks_by_rows(
    similarities: Similarities,
    positives: "Positives",
    all_of_them: bool,
    team: Team,
    progress: Callable[[int], object] | None,
) -> Ranks:
    """The ranks of the positives of every query, a slab of queries at a time; the slabs are dealt out to the team."""
    mine = {}
    for start, slab in similarities.slabs(team):
        if positives.exclude_self:
            hide_self(slab, start)
        mine[start] = [_ranks(row, positives.of(start + i), all_of_them) for i, row in enumerate(slab)]
        if progress:
            progress(len(slab))
    slabs: dict[int, list[Indices]] = {}
    for part in team.gather(mine):
        slabs |= part
    found = [ranks for start in sorted(slabs) for ranks in slabs[start]]
    return Ranks(np.array([r.size for r in found], np.int64), np.concatenate([np.empty(0, np.int64), *found]))


class Positives:
    """Which gallery indices carry the label of query i; labels (Q,) and gallery labels (G,) of one kind."""

    def __init__(self, labels: NDArray[np.generic], gallery_labels: NDArray[np.generic], exclude_self: bool) -> None:
        classes, codes = np.unique(gallery_labels, return_inverse=True)
        self._by_class = np.argsort(codes.ravel(), kind="stable").astype(np.int64)
        self._ends = np.cumsum(np.bincount(codes.ravel(), minlength=len(classes)))
        self._code = {label: code for code, label in enumerate(classes.tolist())}
        self._labels: list[object] = labels.tolist()
        self.exclude_self = exclude_self

    def of(self, query: int) -> Indices:
        """Ascending gallery indices (R,) of the positives of this query, itself left out if it is in the gallery."""
        code = self._code.get(self._labels[query])
        if code is None:
            return self._by_class[:0]
        same = self._by_class[self._ends[code - 1] if code else 0 : self._ends[code]]
        return same[same != query] if self.exclude_self else same


def _ranks(row: Floats, positives: Indices, all_of_them: bool) -> Indices:
    """row (G,) cosines, positives (R,) ascending -> ranks from 1, ascending (R,); only the best unless all_of_them."""
    if positives.size == 0:
        return positives
    values = row[positives]
    if not all_of_them:
        best = values.argmax()
        positives, values = positives[best : best + 1], values[best : best + 1]
    if positives.size > COUNTED_POSITIVES:
        return _ranks_by_sorting(row, positives)
    counted = [
        np.count_nonzero(row > value) + np.count_nonzero(row[:index] == value) + 1
        for index, value in zip(positives.tolist(), values, strict=True)
    ]
    return np.sort(np.array(counted, np.int64))


def _ranks_by_sorting(row: Floats, positives: Indices) -> Indices:
    ordered = np.sort(row)
    not_above = np.searchsorted(ordered, row[positives], side="right")
    if (not_above - np.searchsorted(ordered, row[positives], side="left")).max() == 1:
        return np.sort(len(row) - not_above + 1)
    rank = np.empty(len(row), np.int64)
    rank[np.argsort(-row, kind="stable")] = np.arange(1, len(row) + 1)
    return np.sort(rank[positives])
