"""Re-ranking by k-reciprocal neighbours: pictures are alike if the same ones are near to both, and both to them.

Zhong, Zheng, Cao, Li: Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017 (arXiv 1701.08398).
No labels are looked at. What is ranked is a set: queries and gallery together, as in the paper's own code, so a
picture's place may depend on the other queries.

d(i, j) is 1 - cosine, half the squared distance of rows of length 1 (the paper's code divides squared distances by the
largest of each picture, so that they depend on the worst picture of the set). N(i, k) is i and its k nearest others,
ties lowest index first (Eq. 2). Codes are divided by their sum, as in the paper's code, not in the paper: a picture
with few neighbours then counts as much as one with many, which was the better of the two on products and on faces.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError, check_range
from metric_learning.metrics.cosine import Floats, Indices, Similarities, matrix_of
from metric_learning.metrics.neighbours import Index
from metric_learning.metrics.team import ALONE, Team

LIMIT = 200_000  # pictures: time grows with their square
BLOCK = 256  # pictures encoded at once, where that many take no more than
COMPARED = 2**25  # comparisons, one byte each
PAIRS = 4096  # cosines computed at once in float64
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Rerank:
    """k1: neighbours that encode a picture; k2: pictures whose codes are averaged, itself included (1: only itself);
    weight: lambda, the share of the original distance (1: the original order). The defaults are the paper's."""

    k1: int = 20
    k2: int = 6
    weight: float = 0.3

    def __post_init__(self) -> None:
        check_range("k1 of the re-ranking", self.k1, 1, 200)
        check_range("k2 of the re-ranking", self.k2, 1, self.k1)
        check_range("lambda of the re-ranking", self.weight, 0, 1)

    def __str__(self) -> str:
        return f"k1={self.k1}, k2={self.k2}, lambda={self.weight:g}"


class Reranked(Similarities):
    """Scores of queries (Q, D) and a gallery (G, D), or of the queries among themselves, in slabs as `Similarities`.

    A score is lambda cos + (1 - lambda) J, J being the Jaccard similarity of two codes: 1 minus the paper's distance
    d* = (1 - lambda)(1 - J) + lambda d (Eq. 12), so that higher is nearer. In -lambda..1.

    Memory, beside the rows and a slab: 8 (k1 + 1) bytes a picture for its neighbours, and 16 for each number of its
    code that is not 0. Time: two products of all with all, and for each picture the sum over the codes that share a
    picture with its own. Raises UserError for more than LIMIT pictures.
    """

    def __init__(self, queries: ArrayLike, gallery: ArrayLike | None, how: Rerank, chunk: int | None = None) -> None:
        rows = matrix_of(queries)
        first = 0 if gallery is None else len(rows)
        everything = rows if gallery is None else np.concatenate([rows, matrix_of(gallery, "gallery")])
        if len(everything) > LIMIT:
            raise UserError(
                f"Re-ranking compares all with all, so it takes {LIMIT:,} pictures at most; got {len(everything):,}. "
                "Leave it out, or measure fewer pictures."
            )
        index = Index(everything, what="embeddings")
        super().__init__(index.units[: len(rows)], index.units[first:], chunk)
        self._weight = how.weight
        self._codes = _NOTHING
        if how.weight < 1 and len(everything):
            near = neighbours(index, everything, how.k1)
            self._codes = averaged(encoded(index.units, near, how.k1), near[:, : how.k2])
        self._holders = self._codes.turned(first)

    def slabs(self, team: Team = ALONE) -> Iterator[tuple[int, Floats]]:
        """Yield (index of the first query, scores (at most chunk, G)); the array is written over by the next slab."""
        for start, slab in super().slabs(team):
            slab *= np.float32(self._weight)
            for i, row in enumerate(slab, start):
                found, shared = self._jaccard(i)
                row[found] += np.float32(1 - self._weight) * shared.astype(np.float32)
            yield start, slab

    def _jaccard(self, query: int) -> tuple[Indices, NDArray[np.float64]]:
        """(gallery rows whose codes share something with the query's, their Jaccard similarity): Eq. 10."""
        if not len(self._codes.columns):
            return np.empty(0, np.int64), np.empty(0)
        here = slice(self._codes.starts[query], self._codes.starts[query + 1])
        columns, values = self._codes.columns[here], self._codes.values[here]
        holders, lengths = self._holders.entries(columns)
        least = np.minimum(self._holders.values[holders], np.repeat(values, lengths))
        common = np.bincount(self._holders.columns[holders], least, len(self.gallery))
        found = np.flatnonzero(common)
        least = common[found]
        return found, least / (2 - least)  # the larger ones sum to both codes less the smaller ones, and a code to 1


def reranked_hits(query: ArrayLike, hits: ArrayLike, how: Rerank) -> Floats:
    """query (D,), hits (M, D), what a search found -> scores (M,), higher being nearer: one query, and only its hits.

    Neighbours are looked for among the query and its hits alone, so the cost does not grow with the gallery.
    """
    found: tuple[int, Floats] = next(Reranked(np.asarray(query)[None], hits, how).slabs())
    scores: Floats = found[1][0]
    return scores


# ---- the steps of the paper


class Codes(NamedTuple):
    """Sparse rows: those of row i are columns and values from starts[i] to starts[i + 1]."""

    starts: Indices
    columns: NDArray[np.int32]
    values: Floats

    def entries(self, rows: NDArray[np.integer]) -> tuple[Indices, Indices]:
        """(places of all entries of these rows, one row after the other; how many each has)."""
        starts, lengths = self.starts[rows], self.starts[rows + 1] - self.starts[rows]
        ends = np.cumsum(lengths)
        return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths), lengths

    def turned(self, first: int) -> "Codes":
        """Columns as rows, of the rows from `first` on, which are counted from 0 then."""
        rows = np.repeat(np.arange(len(self.starts) - 1, dtype=np.int32), np.diff(self.starts))
        here = slice(int(self.starts[first]) if len(self.starts) > first else 0, None)
        order = np.argsort(self.columns[here], kind="stable")
        counts = np.bincount(self.columns[here], minlength=len(self.starts) - 1)
        return Codes(_starts(counts), rows[here][order] - np.int32(first), self.values[here][order])


_NOTHING = Codes(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))


def neighbours(index: Index, embeddings: ArrayLike, k: int) -> NDArray[np.int32]:
    """N(i, k) of each of N pictures (N, min(k, N - 1) + 1): i itself, then the others, nearest first (Eq. 2)."""
    count = len(index.units)
    _, others = index.search(embeddings, max(1, min(k, count - 1)), exclude_self=True)
    mine = np.arange(count, dtype=np.int32)[:, None]
    return np.concatenate([mine, others[:, : min(k, count - 1)].astype(np.int32)], axis=1)


def reciprocal(near: NDArray[np.int32]) -> Bools:
    """near (N, K) -> (N, K): which neighbours of i have i among their own, too: the set R(i, k) (Eq. 3)."""
    found = np.empty(near.shape, bool)
    for start in range(0, len(near), BLOCK):
        here = slice(start, start + BLOCK)
        found[here] = (near[near[here]] == near[here, :1, None]).any(axis=2)
    return found


def encoded(units: Floats, near: NDArray[np.int32], k1: int) -> Codes:
    """The code of each picture: exp(-d(i, j)) for j in R*(i, k1), else 0 (Eq. 7), divided by its sum.

    R*(i, k1) is R(i, k1) and every R(q, k1 / 2), q in R(i, k1), of which at least two thirds lie in R(i, k1) (Eq. 4);
    half of an odd k1 is rounded up.
    """
    half = near[:, : (k1 + 1) // 2 + 1]
    mutual, half_mutual = reciprocal(near), reciprocal(half)
    counts, columns, values = [], [], []
    block = max(1, min(BLOCK, COMPARED // (near.shape[1] ** 2 * half.shape[1])))
    for start in range(0, len(near), block):
        here = slice(start, start + block)
        first, held = near[here], mutual[here]
        second, there = half[first], half_mutual[first] & held[:, :, None]  # (B, K, H): R(q, k1 / 2) of each q
        inside = ((second[..., None] == first[:, None, None, :]) & held[:, None, None, :]).any(axis=3) & there
        taken = there & (3 * inside.sum(axis=2) >= 2 * there.sum(axis=2))[:, :, None]
        row = np.arange(len(first), dtype=np.int64)
        keys = [np.repeat(row, held.sum(axis=1)) * len(near) + first[held]]
        keys.append(np.repeat(row, taken.sum(axis=(1, 2))) * len(near) + second[taken])
        rows, found = np.divmod(np.unique(np.concatenate(keys)), len(near))
        counts.append(np.bincount(rows, minlength=len(first)))
        columns.append(found.astype(np.int32))
        weights = np.exp(_cosines(units, rows + start, found) - 1)
        values.append((weights / np.bincount(rows, weights)[rows]).astype(np.float32))
    return Codes(_starts(np.concatenate(counts)), np.concatenate(columns), np.concatenate(values))


def averaged(codes: Codes, near: NDArray[np.int32]) -> Codes:
    """The mean of the codes of each picture's neighbours near (N, k2), itself among them (Eq. 11)."""
    if near.shape[1] == 1:
        return codes
    counts, columns, values = [], [], []
    for start in range(0, len(near), BLOCK):
        some = near[start : start + BLOCK]
        places, lengths = codes.entries(some.ravel())
        row = np.repeat(np.arange(len(some), dtype=np.int64).repeat(some.shape[1]), lengths)
        keys, inverse = np.unique(row * len(near) + codes.columns[places], return_inverse=True)
        sums = np.bincount(inverse.ravel(), codes.values[places])
        rows, found = np.divmod(keys, len(near))
        counts.append(np.bincount(rows, minlength=len(some)))
        columns.append(found.astype(np.int32))
        values.append((sums / some.shape[1]).astype(np.float32))
    return Codes(_starts(np.concatenate(counts)), np.concatenate(columns), np.concatenate(values))


def _starts(counts: NDArray[np.integer]) -> Indices:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _cosines(units: Floats, a: Indices, b: Indices) -> NDArray[np.float64]:
    """The cosines (P,) of pairs of rows."""
    found = np.empty(len(a))
    for start in range(0, len(a), PAIRS):
        here = slice(start, start + PAIRS)
        one, other = units[a[here]].astype(np.float64), units[b[here]].astype(np.float64)
        found[here] = np.einsum("pd,pd->p", one, other, optimize=False)
    return found
