"""Ranks of the positives from tiles of the similarity matrix; within one set of pictures half of the tiles do."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from metric_learning.metrics.arrangement import Arrangement
from metric_learning.metrics.cosine import Floats, Indices
from metric_learning.metrics.counting import Wanted, count_tile
from metric_learning.metrics.team import Team, share

STRIP = 2048  # gallery rows a tile, at most: a tile of 2048 x 2048 takes 16 MB
QUERIES = 1024  # query rows a tile, where the gallery is another set
NEAR_BYTES = 256 * 2**20  # and at most so much for the tiles that hold their positives


class Ranks(NamedTuple):
    """sizes (Q,): positives ranked of each query; ranks: those of the first query, rising from 1, the second..."""

    sizes: Indices
    ranks: Indices

    @property
    def starts(self) -> Indices:
        """Where the ranks of each query begin (Q,)."""
        return np.cumsum(self.sizes) - self.sizes


def strips_of(found: Arrangement) -> list[tuple[int, int]] | None:
    """Cuts of the gallery between blocks into strips of at most STRIP rows; None if a block is larger."""
    count = len(found.gallery.rows)
    if not count:
        return []
    ends = np.append(found.starts[1:], count)
    if (ends - found.starts).max() > STRIP:
        return None
    strips, first = [], 0
    for start, end in zip(found.starts.tolist(), ends.tolist(), strict=True):
        if end - first > STRIP:
            strips.append((first, start))
            first = start
    return [*strips, (first, count)]


def multiply(rows: Floats, columns: Floats, out: Floats) -> None:
    """Write the cosines of rows (M, D) and columns (N, D) to out (M, N), each rounded as the BLAS library likes."""
    np.matmul(rows, columns.T, out=out)


class Counting:
    """All queries against all the gallery, each product once.

    First the tiles with the positives, which say what is to be counted, then all others. Memory, beside the rows: the
    positives (20 bytes each), and one tile; where the gallery is another set, NEAR_BYTES of tiles with positives.
    """

    def __init__(self, found: Arrangement, strips: list[tuple[int, int]], all_of_them: bool, team: Team) -> None:
        self.found, self.strips, self.all_of_them, self.team = found, strips, all_of_them, team
        self.alone = found.queries is found.gallery
        codes = found.gallery.codes
        # The positives of a query lie between these two rows of the gallery.
        self.low = np.searchsorted(codes, found.queries.codes, side="left")
        self.high = np.searchsorted(codes, found.queries.codes, side="right")
        self.runs = strips if self.alone else list(self._runs())
        sides = [max((last - first for first, last in cuts), default=0) for cuts in (self.runs, strips)]
        self.room = np.empty(sides[0] * sides[1], np.float32)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Cuts of the queries: as many rows as QUERIES and NEAR_BYTES allow."""
        start, count = 0, len(self.found.queries.rows)
        while start < count:
            rows = min(QUERIES, count - start)
            while rows > 1 and 4 * rows * (self.high[start + rows - 1] - self.low[start] + 2 * STRIP) > NEAR_BYTES:
                rows = (rows + 1) // 2
            yield start, start + rows
            start += rows

    def ranks(self, progress: Callable[[int], object] | None) -> Ranks:
        wanted: dict[int, Wanted] = {}
        mine = {run: self._positives(run) for run in share(range(len(self.runs)), self.team)}
        for part in self.team.gather(mine):
            wanted |= part
        for run in wanted.keys() - mine.keys():  # counted by another process, and added at the end
            wanted[run] = wanted[run].uncounted()
        for run, tiles in self._others():
            for strip in tiles:
                self._count(wanted, run, strip)
            if progress:
                progress(self.runs[run][1] - self.runs[run][0])
        counts = self.team.gather([wanted[run].before for run in range(len(self.runs))])
        return self._gathered(wanted, [sum(parts[1:], parts[0]) for parts in zip(*counts, strict=True)])

    def _near(self, run: int) -> tuple[int, int]:
        """The strips, from and up to, that hold the positives of these queries."""
        if self.alone:
            return run, run + 1
        start, stop = self.runs[run]
        low, high = int(self.low[start]), int(self.high[start:stop].max(initial=0))
        inside = [i for i, (first, last) in enumerate(self.strips) if first < high and last > low]
        return (inside[0], inside[-1] + 1) if inside else (0, 0)

    def _others(self) -> Iterator[tuple[int, Iterator[int]]]:
        """(run, strips) still to be multiplied; the tiles are dealt out to the team one by one."""
        dealt = 0
        for run in range(len(self.runs)):
            first, last = self._near(run)
            tiles = [*range(0 if not self.alone else last, first), *range(last, len(self.strips))]
            skip = (self.team.rank - dealt) % self.team.size
            yield run, iter(tiles[skip :: self.team.size])
            dealt += len(tiles)

    def _product(self, run: int, strip: int) -> Floats:
        """Cosines of the queries of a run with the gallery rows of a strip, equal rows having equal ones.

        The next product writes over them.
        """
        (start, stop), (first, last) = self.runs[run], self.strips[strip]
        scores = self.room[: (stop - start) * (last - first)].reshape(stop - start, last - first)
        multiply(self.found.queries.rows[start:stop], self.found.gallery.rows[first:last], scores)
        copies, firsts = self._copies(first, last)
        scores[:, copies] = scores[:, firsts]
        if self.alone:
            copies, firsts = self._copies(start, stop)
            scores[copies] = scores[firsts]
        return scores

    def _copies(self, first: int, last: int) -> tuple[Indices, Indices]:
        inside = (self.found.copies >= first) & (self.found.copies < last)
        return self.found.copies[inside] - first, self.found.firsts[inside] - first

    def _positives(self, run: int) -> Wanted:
        """What is wanted of these queries, and the tiles with it already counted."""
        start, stop = self.runs[run]
        near = range(*self._near(run))
        if not near:
            return Wanted(np.full((stop - start, 1), np.inf, np.float32), np.zeros((stop - start, 1), np.int64))
        offset = self.strips[near.start][0]
        tiles = (self._product(run, strip) for strip in near)
        scores = next(tiles) if len(near) == 1 else np.concatenate([tile.copy() for tile in tiles], axis=1)
        places = self.low[start:stop, None] + np.arange(max(1, (self.high - self.low)[start:stop].max(initial=0)))
        there = places < self.high[start:stop, None]
        if self.alone:
            np.fill_diagonal(scores, -np.inf)
            there &= places != np.arange(start, stop)[:, None]
        places = np.where(there, places, offset)
        values = np.where(there, np.take_along_axis(scores, places - offset, 1), np.float32(np.inf))
        wanted = Wanted(values, self.found.gallery.ids[places])
        if not self.all_of_them:
            wanted = wanted.only_the_best()
        ids = self.found.gallery.ids[offset : offset + scores.shape[1]]
        count_tile(scores, wanted, self.found.queries.ids[start:stop], None, ids)
        return wanted

    def _count(self, wanted: dict[int, Wanted], run: int, strip: int) -> None:
        (start, stop), (first, last) = self.runs[run], self.strips[strip]
        columns = wanted[strip] if self.alone else None
        rows, ids = self.found.queries.ids[start:stop], self.found.gallery.ids[first:last]
        count_tile(self._product(run, strip), wanted[run], rows, columns, ids)

    def _gathered(self, wanted: dict[int, Wanted], before: list[Indices]) -> Ranks:
        """The ranks in the order in which the queries were given."""
        sizes = np.zeros(len(self.found.queries.rows), np.int64)
        held = [np.isfinite(wanted[run].values) for run in range(len(self.runs))]
        ids = [self.found.queries.ids[start:stop] for start, stop in self.runs]
        for these, there in zip(ids, held, strict=True):
            sizes[these] = there.sum(axis=1)
        found = Ranks(sizes, np.empty(int(sizes.sum()), np.int64))
        starts = found.starts
        for these, there, counts in zip(ids, held, before, strict=True):
            ranks = np.sort(np.where(there, counts + 1, np.iinfo(np.int64).max), axis=1)
            there = np.sort(there, axis=1)[:, ::-1]
            found.ranks[(starts[these][:, None] + np.arange(there.shape[1]))[there]] = ranks[there]
        return found
