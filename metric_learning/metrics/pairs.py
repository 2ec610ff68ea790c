"""Scores of pairs: all pairs within each group as a stream, and a given list."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError
from metric_learning.metrics.cosine import Floats, Indices, labels_of, unit_rows
from metric_learning.metrics.groups import GroupedResult, grouped_result
from metric_learning.metrics.scores import check_fars
from metric_learning.metrics.stream import ScoreStream
from metric_learning.metrics.team import ALONE, Team
from metric_learning.metrics.verification import FARS
from metric_learning.metrics.windows import MissedError, windows_around

ROWS, COLUMNS = 1024, 4096  # a tile: 16 MB
AT_ONCE = 64  # rows of a tile that are looked at together: 1 MB, which stays in the processor's cache
MANY = 2**24  # negatives from which a sample says where the thresholds lie
SAMPLED = 2048  # rows by rows of a group
PAIRS_AT_ONCE = 8192

Watch = Callable[[str, Floats, Floats], object]


def all_pairs(
    embeddings: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    fars: Sequence[float] = FARS,
    *,
    progress: Callable[[int], object] | None = None,
    watch: Watch | None = None,
    curves: bool = True,
    team: Team = ALONE,
) -> GroupedResult:
    """embeddings (N, D), labels (N,), groups (N,) -> figures over all UNORDERED pairs within each group.

    Without groups there is one group, "all". No pair joins two groups, none a picture to itself. progress is called
    with the number of pictures done since the last call, watch with (group, positive scores, negative scores) of parts
    of every tile. curves=False leaves out EER, AUC and ROC, for which the negatives above the lowest positive must be
    sorted; without them most are dropped after one comparison. team: processes that share the tiles (watch sees those
    of its own process); each gets the figures of one process, to the bit.

    Memory: a float32 copy of the embeddings; the positive scores (some 28 bytes each); 64 MB of negatives at a time;
    and the negatives near a threshold. Of up to 16 million negatives these are the highest floor(f M) + 1 of the
    largest rate f; of more, a sample first says where each threshold lies, and those within about a tenth of its rank
    around it are held (4 bytes each: 40 MB for f = 0.1 of 10^9). The thresholds are exact all the same: where the
    counts show that one lies elsewhere, the tiles are gone through again.
    Raises UserError for shapes that do not match and rows that are not finite.
    """
    fars = check_fars(fars)
    units = unit_rows(embeddings)
    labels = labels_of(labels, len(units))
    names = np.full(len(units), "all") if groups is None else labels_of(groups, len(units), "groups")
    members = {str(name): _by_label(np.flatnonzero(names == name), labels) for name in np.unique(names)}
    pairs = _AllPairs(units, members, fars, curves, team)
    if sum(pairs.negatives.values()) <= MANY:
        return grouped_result(pairs.streams(None, progress, watch), fars)
    # One process draws the sample for all: windows of different processes could not be added up.
    edges = team.gather(pairs.edges() if team.rank == 0 else None)[0]
    try:
        return grouped_result(pairs.streams(edges, progress, watch), fars)
    except MissedError:
        return grouped_result(pairs.streams(None, None, None), fars)


class _AllPairs:
    """One call of `all_pairs`: members holds, by group, its rows of units (N, D) in order of their codes, and those."""

    def __init__(
        self,
        units: Floats,
        members: Mapping[str, tuple[Indices, Indices]],
        fars: tuple[float, ...],
        curves: bool,
        team: Team,
    ) -> None:
        self.units, self.members, self.fars, self.curves, self.team = units, members, fars, curves, team
        self.negatives = {name: _negatives(codes) for name, (_, codes) in members.items()}

    def streams(
        self, edges: Floats | None, progress: Callable[[int], object] | None, watch: Watch | None
    ) -> dict[str, ScoreStream]:
        """One pass over all tiles: the stream of each group, of what the whole team has seen."""
        found = {}
        for name, (rows, codes) in self.members.items():
            scores, tiles = _Scores(self.units[rows], codes), Tiles(codes, self.team)
            mine = [same for tile in tiles if tile.mixed for same, _ in scores.of(tile)]
            positives = np.concatenate(self.team.gather(np.concatenate([np.empty(0, np.float32), *mine])))
            total = sum(self.negatives.values())
            stream = ScoreStream(positives, max(self.fars), total, edges=edges, curves=self.curves)
            for tile in tiles:
                for same, others in scores.of(tile):
                    stream.take(others)
                    if watch:
                        watch(name, same, others.ravel())
                if progress:
                    progress(tile.done)
            stream.gather(self.team)
            found[name] = stream
        return found

    def edges(self) -> Floats:
        """Where the thresholds of each group and of all together lie, from pairs of rows drawn of each group."""
        generator, samples, pool = np.random.default_rng(0), [], []
        total = sum(self.negatives.values())
        for name, (rows, codes) in self.members.items():
            a, b = (generator.permutation(generator.integers(0, len(rows), SAMPLED)) for _ in range(2))
            scores = (self.units[rows[a]] @ self.units[rows[b]].T)[codes[a, None] != codes[b]]
            samples.append(scores)
            part = round(SAMPLED**2 * self.negatives[name] / total)
            pool.append(scores[:: max(1, scores.size // part)] if part else scores[:0])
        return windows_around([*samples, np.concatenate(pool)], self.fars)


def _by_label(rows: Indices, labels: NDArray[np.generic]) -> tuple[Indices, Indices]:
    """Rows of one group in order of their label, so that pairs of one class lie near the diagonal; and their codes."""
    codes = np.unique(labels[rows], return_inverse=True)[1].ravel()
    order = np.argsort(codes, kind="stable")
    return rows[order], codes[order]


def _negatives(codes: Indices) -> int:
    sizes = np.bincount(codes).tolist()
    return int(sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2


class Tile(NamedTuple):
    """Pairs of rows start..stop with rows left..right. mixed: some are of one class, or i < j does not hold for all.

    done: rows with which this process is through after it.
    """

    start: int
    stop: int
    left: int
    right: int
    mixed: bool
    done: int


class Tiles:
    """The pairs i < j of rows in order of their codes (N,), cut into tiles by the data alone; a team deals them out.

    Pairs of one class lie near the diagonal, in tiles of their own, which come first in each run of rows.
    """

    def __init__(self, codes: Indices, team: Team) -> None:
        self.codes, self.team = codes, team

    def __iter__(self) -> Iterator[Tile]:
        count, dealt = len(self.codes), 0
        for start in range(0, count, ROWS):
            stop = min(start + ROWS, count)
            edge = max(stop, int(np.searchsorted(self.codes, self.codes[stop - 1], side="right")))
            cuts = [*range(start, edge, COLUMNS), *range(edge, count, COLUMNS), count]
            for left, right in pairwise(cuts):
                done = stop - start if left == start else 0
                if dealt % self.team.size == self.team.rank:
                    yield Tile(start, stop, left, right, left < edge, done)
                dealt += 1


class _Scores:
    """The scores of the pairs of rows (N, D) in order of their codes (N,)."""

    def __init__(self, units: Floats, codes: Indices) -> None:
        self.units, self.codes = units, codes
        self.room = np.empty(min(ROWS, len(units)) * min(COLUMNS, len(units)), np.float32)

    def of(self, tile: Tile) -> Iterator[tuple[Floats, Floats]]:
        """Yield (positive scores (P,), negative scores of any shape, written over by the next tile).

        Every pass over the tiles gives a pair the same score, to the bit.
        """
        start, stop, left, right, mixed, _ = tile
        scores = self.room[: (stop - start) * (right - left)].reshape(stop - start, right - left)
        np.matmul(self.units[start:stop], self.units[left:right].T, out=scores)
        for first in range(0, len(scores), AT_ONCE):
            part = scores[first : first + AT_ONCE]
            if not mixed:
                yield part[:0, 0], part
                continue
            rows = np.arange(start + first, start + first + len(part))
            pairs = rows[:, None] < np.arange(left, right)
            same = self.codes[rows, None] == self.codes[left:right]
            yield part[pairs & same], part[pairs & ~same]


def scores_of_pairs(embeddings: ArrayLike, a: ArrayLike, b: ArrayLike) -> Floats:
    """embeddings (N, D), a (P,) and b (P,) row indices -> cosines (P,), float32. UserError for an index outside."""
    units = unit_rows(embeddings)
    first, second = np.asarray(a, np.int64), np.asarray(b, np.int64)
    if first.ndim != 1 or first.shape != second.shape:
        raise UserError(f"a and b must be two lists of one length; got {first.shape} and {second.shape}.")
    for index in (first, second):
        outside = np.flatnonzero((index < 0) | (index >= len(units)))
        if outside.size:
            raise UserError(
                f"pair {outside[0]} names row {index[outside[0]]}; the embeddings have rows 0..{len(units) - 1}."
            )
    scores = np.empty(first.size, np.float32)
    for start in range(0, first.size, PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        scores[part] = (units[first[part]] * units[second[part]]).sum(axis=1, dtype=np.float64)
    return scores
