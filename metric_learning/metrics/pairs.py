"""Scores of pairs: all pairs within each group as a stream, and a given list."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError
from metric_learning.metrics.cosine import Floats, Indices, labels_of, product, tile_rows, unit_rows
from metric_learning.metrics.groups import GroupedResult, grouped_result
from metric_learning.metrics.scores import ScoreStream, check_fars
from metric_learning.metrics.verification import FARS

COLUMNS = 8192
PAIRS_AT_ONCE = 8192


def all_pairs(
    embeddings: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    fars: Sequence[float] = FARS,
    *,
    progress: Callable[[int], object] | None = None,
    watch: Callable[[str, Floats, Floats], object] | None = None,
) -> GroupedResult:
    """embeddings (N, D), labels (N,), groups (N,) -> figures over all UNORDERED pairs within each group.

    Without groups there is one group, "all". No pair joins two groups, none a picture to itself. Distinct positive
    scores are held in memory (about 28 bytes each), negatives stream past (see `Tally`) in tiles of 256 x 8192.
    progress is called with the number of pictures done since the last call, watch with (group, positive scores,
    negative scores) of every tile. Raises UserError for shapes that do not match and rows that are not finite.
    """
    fars = check_fars(fars)
    units = unit_rows(embeddings)
    labels = labels_of(labels, len(units))
    names = np.full(len(units), "all") if groups is None else labels_of(groups, len(units), "groups")
    members = {str(name): _by_label(np.flatnonzero(names == name), labels) for name in np.unique(names)}
    negatives = {name: _negatives(codes) for name, (_, codes) in members.items()}
    streams = {}
    for name, (rows, codes) in members.items():
        one = units[rows]
        streams[name] = ScoreStream(_positives(one, codes), max(fars), sum(negatives.values()))
        for same, scores in _tiles(one, codes, progress):
            others = scores[~same] if same is not None else scores.ravel()
            streams[name].add(others)
            if watch:
                watch(name, scores[same] if same is not None else others[:0], others)
    return grouped_result(streams, fars)


def _by_label(rows: Indices, labels: NDArray[np.generic]) -> tuple[Indices, Indices]:
    """Rows of one group in order of their label, so that pairs of one class lie near the diagonal; and their codes."""
    codes = np.unique(labels[rows], return_inverse=True)[1].ravel()
    order = np.argsort(codes, kind="stable")
    return rows[order], codes[order]


def _negatives(codes: Indices) -> int:
    sizes = np.bincount(codes).tolist()
    return int(sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2


def _positives(units: Floats, codes: Indices) -> Floats:
    found = [scores[same] for same, scores in _tiles(units, codes, None, only_same=True) if same is not None]
    return np.concatenate([np.empty(0, np.float32), *found])


def _tiles(
    units: Floats, codes: Indices, progress: Callable[[int], object] | None, only_same: bool = False
) -> Iterator[tuple[NDArray[np.bool_] | None, Floats]]:
    """units (N, D) in order of their codes (N,) -> tiles of the pairs i < j as (same class?, cosines).

    Both are (pairs,) where the tile touches the diagonal or may hold pairs of one class; elsewhere the tile comes
    whole, with None, for all of it are negatives. Either pass over the tiles gives a pair the same score, to the bit.
    """
    rows = tile_rows(len(units), COLUMNS)
    for start in range(0, len(units), rows):
        stop = min(start + rows, len(units))
        for left in range(start, len(units), COLUMNS):
            mixed = left < stop or codes[left] <= codes[stop - 1]
            if only_same and not mixed:
                break
            right = min(left + COLUMNS, len(units))
            tile = np.empty((rows, right - left), np.float32)
            product(units, start, rows, units[left:right], tile)
            scores = tile[: stop - start]
            if not mixed:
                yield None, scores
                continue
            pairs = np.arange(start, stop)[:, None] < np.arange(left, right)
            yield (codes[start:stop, None] == codes[left:right])[pairs], scores[pairs]
        if progress:
            progress(stop - start)


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
