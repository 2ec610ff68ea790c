"""Cosines of many embeddings in tiles: bounded memory, and the same bits however the work is cut.

A BLAS product is free to round one and the same pair differently in a 7-row and in a 256-row call, and even in two
columns of one call. Rankings with ties must not depend on that, so every product here has a shape and a place that
depend on the data alone, and equal rows are given equal cosines (see `copies_of_earlier_rows`).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError
from metric_learning.metrics.team import ALONE, Team, share

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

ROWS_AT_ONCE = 1024
TILE_ROWS = 256
TILE_BYTES = 256 * 2**20


def unit_rows(embeddings: ArrayLike, what: str = "embeddings", order: Indices | None = None) -> Floats:
    """embeddings (N, D), any real type and scale -> rows of length 1, float32 (N, D); a zero row stays zero.

    order (N,): row i of the result is row order[i] of the embeddings. Raises UserError for another shape or type, and
    for NaN or infinity, naming the first such row.
    """
    array = matrix_of(embeddings, what)
    units = np.empty(array.shape, np.float32)
    for start in range(0, len(array), ROWS_AT_ONCE):
        here = slice(start, start + ROWS_AT_ONCE)
        part = (array[here] if order is None else array[order[here]]).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # such rows are refused below
            np.divide(part, _lengths(part)[:, None], out=units[here], casting="same_kind")
        if not np.isfinite(units[here]).all():
            bad = next(i for i, row in enumerate(array) if not np.isfinite(row).all())
            raise UserError(f"{what} must be finite; row {bad} is not. Find what made it NaN or infinite.")
    # Adding zero turns -0 into 0, so that rows that are equal have equal bits.
    units += 0.0
    return units


def matrix_of(embeddings: ArrayLike, what: str = "embeddings") -> NDArray[Any]:
    """embeddings as an array (N, D) of real numbers; UserError if they are none."""
    array = np.asarray(embeddings)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise UserError(f"{what} must be a (pictures, size) array of real numbers; got {array.shape} of {array.dtype}.")
    return array


def _lengths(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lengths of rows (N, D), 1 for a zero row; very long and very short rows are scaled in place first."""
    squares = np.einsum("ij,ij->i", rows, rows)
    far = np.flatnonzero(~((squares > 1e-200) & (squares < 1e200)))
    if far.size:
        some = rows[far]
        some /= _or_one(np.abs(some).max(axis=1, initial=0.0))[:, None]
        rows[far], squares[far] = some, np.einsum("ij,ij->i", some, some)
    return _or_one(np.sqrt(squares))


def _or_one(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(lengths > 0.0, lengths, 1.0)


def copies_of_earlier_rows(units: Floats) -> tuple[Indices, Indices]:
    """units (N, D) -> (copies, firsts): row copies[i] equals row firsts[i], the first of its kind; both (copies,)."""
    hashes = np.empty(len(units), np.uint64)
    weights = np.random.default_rng(0).integers(1, 2**63, units.shape[1], dtype=np.uint64)
    for start in range(0, len(units), ROWS_AT_ONCE):
        bits = np.ascontiguousarray(units[start : start + ROWS_AT_ONCE]).view(np.uint32)
        hashes[start : start + ROWS_AT_ONCE] = (bits * weights).sum(axis=1, dtype=np.uint64)
    _, first_index, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    firsts = first_index[inverse.ravel()]
    copies = np.flatnonzero(firsts != np.arange(len(units)))
    # Two different rows with one hash are all but impossible, and are sorted out here.
    real = np.empty(len(copies), bool)
    for start in range(0, len(copies), ROWS_AT_ONCE):
        some = copies[start : start + ROWS_AT_ONCE]
        real[start : start + ROWS_AT_ONCE] = (units[some] == units[firsts[some]]).all(axis=1)
    return copies[real], firsts[copies[real]]


class Similarities:
    """Cosines between queries (Q, D) and a gallery (G, D), both from `unit_rows`, a slab of queries at a time.

    chunk: queries a slab, rounded up to whole tiles; a slab takes 4 * chunk * G bytes. The numbers are the same, to the
    bit, for every chunk. Columns whose gallery rows are equal are equal.
    """

    def __init__(self, queries: Floats, gallery: Floats, chunk: int | None = None) -> None:
        check_chunk(chunk)
        self.queries, self.gallery = queries, gallery
        self.tile = tile_rows(len(queries), len(gallery))
        self.chunk = -(-(chunk or 1) // self.tile) * self.tile
        self.copies, self.firsts = copies_of_earlier_rows(gallery)

    def slabs(self, team: Team = ALONE) -> Iterator[tuple[int, Floats]]:
        """Yield (index of the first query, cosines (at most chunk, G)); the array is written over by the next slab.

        A team deals the slabs out.
        """
        slab = np.empty((min(self.chunk, padded(len(self.queries), self.tile)), len(self.gallery)), np.float32)
        for start in share(range(0, len(self.queries), self.chunk), team):
            rows = min(self.chunk, len(self.queries) - start)
            for first in range(0, rows, self.tile):
                product(self.queries, start + first, self.tile, self.gallery, slab[first : first + self.tile])
            slab[:, self.copies] = slab[:, self.firsts]
            yield start, slab[:rows]


def check_chunk(chunk: int | None) -> None:
    if chunk is not None and chunk < 1:
        raise UserError(f"chunk must be at least 1; got {chunk}. Leave it out for a size that fits.")


def hide_self(slab: Floats, start: int) -> None:
    """Set slab[i, start + i] to -inf, in place: below every cosine, so that it counts nowhere."""
    rows = np.arange(len(slab))
    slab[rows, start + rows] = -np.inf


def product(queries: Floats, start: int, tile: int, gallery: Floats, out: Floats) -> None:
    """Write the cosines of queries[start : start + tile], zero rows past the end, with the gallery to out (tile, G)."""
    # The copy is also what keeps NumPy from taking another routine where both sides are the same memory.
    block = np.zeros((tile, queries.shape[1]), np.float32)
    block[: len(queries) - start] = queries[start : start + tile]
    np.matmul(block, gallery.T, out=out)


def tile_rows(queries: int, gallery: int) -> int:
    """Queries a product: a power of two, 16..256, that keeps a tile within TILE_BYTES; from the two sizes only."""
    rows = TILE_ROWS
    while rows > 16 and (rows // 2 >= queries or rows * gallery * 4 > TILE_BYTES):
        rows //= 2
    return rows


def padded(count: int, step: int) -> int:
    """count rounded up to a multiple of step."""
    return -(-count // step) * step


def labels_of(labels: ArrayLike, count: int, what: str = "labels") -> NDArray[Any]:
    """labels as an array (count,); UserError if there are not as many as embeddings."""
    array = np.asarray(labels)
    if array.shape != (count,):
        raise UserError(f"{what} must be one a row, shape ({count},); got {array.shape}.")
    return array
