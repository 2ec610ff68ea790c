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

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

ROWS_AT_ONCE = 1024
TILE_ROWS = 256
TILE_BYTES = 256 * 2**20


def unit_rows(embeddings: ArrayLike, what: str = "embeddings") -> Floats:
    """embeddings (N, D), any real type and scale -> rows of length 1, float32 (N, D); a zero row stays zero.

    Raises UserError for another shape or type, and for NaN or infinity, naming the first such row.
    """
    array = np.asarray(embeddings)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise UserError(f"{what} must be a (pictures, size) array of real numbers; got {array.shape} of {array.dtype}.")
    units = np.empty(array.shape, np.float32)
    for start in range(0, len(array), ROWS_AT_ONCE):
        part = array[start : start + ROWS_AT_ONCE].astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
        if bad.size:
            raise UserError(f"{what} must be finite; row {start + bad[0]} is not. Find what made it NaN or infinite.")
        # Dividing by the largest entry first keeps the squares of very long and very short rows in range.
        part /= _or_one(np.abs(part).max(axis=1, initial=0.0))[:, None]
        part /= _or_one(np.sqrt((part * part).sum(axis=1)))[:, None]
        units[start : start + ROWS_AT_ONCE] = part
    # Adding zero turns -0 into 0, so that rows that are equal have equal bits.
    units += 0.0
    return units


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
    real = np.array([np.array_equal(units[copy], units[firsts[copy]]) for copy in copies], bool)
    return copies[real], firsts[copies[real]]


class Similarities:
    """Cosines between queries (Q, D) and a gallery (G, D), both from `unit_rows`, a slab of queries at a time.

    chunk: queries a slab, rounded up to whole tiles; a slab takes 4 * chunk * G bytes. The numbers are the same, to the
    bit, for every chunk. Columns whose gallery rows are equal are equal.
    """

    def __init__(self, queries: Floats, gallery: Floats, chunk: int | None = None) -> None:
        if chunk is not None and chunk < 1:
            raise UserError(f"chunk must be at least 1; got {chunk}. Leave it out for a size that fits.")
        self.queries, self.gallery = queries, gallery
        self.tile = tile_rows(len(queries), len(gallery))
        self.chunk = -(-(chunk or 1) // self.tile) * self.tile
        self.copies, self.firsts = copies_of_earlier_rows(gallery)

    def slabs(self) -> Iterator[tuple[int, Floats]]:
        """Yield (index of the first query, cosines (at most chunk, G)); the array is written over by the next slab."""
        slab = np.empty((min(self.chunk, padded(len(self.queries), self.tile)), len(self.gallery)), np.float32)
        for start in range(0, len(self.queries), self.chunk):
            rows = min(self.chunk, len(self.queries) - start)
            for first in range(0, rows, self.tile):
                product(self.queries, start + first, self.tile, self.gallery, slab[first : first + self.tile])
            slab[:, self.copies] = slab[:, self.firsts]
            yield start, slab[:rows]


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
