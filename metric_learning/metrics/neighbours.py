"""The nearest of a gallery, best first: proposed by a product that may round as it likes, decided by exact cosines."""

import importlib
import logging
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from metric_learning.checks import UserError, check_choice
from metric_learning.metrics.cosine import Floats, Indices, Similarities, check_chunk, hide_self, unit_rows

SEARCHES = ("numpy", "faiss")
QUERIES = 1024  # asked of faiss at once
FEW = 8  # queries that are multiplied one by one: to look for equal rows, or to give the rows to faiss, takes longer
SPARE = 16  # more than k that faiss is asked for


def nearest(
    embeddings: ArrayLike,
    gallery: ArrayLike,
    k: int,
    exclude_self: bool = False,
    *,
    chunk: int | None = None,
    search: str = "numpy",
) -> tuple[Floats, Indices]:
    """embeddings (N, D), gallery (G, D) -> (cosines (N, k), gallery indices (N, k)), best first, ties by index.

    Among equal cosines the lowest index comes first. exclude_self: gallery is embeddings, and row i may not find i.
    Places past the end of the gallery hold -inf and -1 (faiss has -1 too). search: numpy, or faiss (its flat index,
    where it is installed). Either only proposes: every picture whose cosine could be among the k highest, the rounding
    of its float32 product being bounded, is compared by its dot product in float64. So both give the same numbers, on
    any machine, for any chunk. Raises UserError for k below 1, sizes that differ, embeddings that are not finite, and
    faiss where it is missing.
    """
    if k < 1:
        raise UserError(f"k must be at least 1; got {k}.")
    check_chunk(chunk)
    if search == "faiss":
        _faiss()
    return Index(gallery, search).search(embeddings, k, exclude_self, chunk)


class Index:
    """A gallery (G, D) made ready once, to be searched again and again as `nearest` does.

    With faiss, which is imported when it is first needed, only more than FEW queries at once are its business.
    """

    def __init__(self, gallery: ArrayLike, search: str = "numpy", what: str = "gallery") -> None:
        check_choice("search", search, SEARCHES)
        self.units, self.by = unit_rows(gallery, what), search

    @cached_property
    def _flat(self) -> Any:
        flat = _faiss().IndexFlatIP(self.units.shape[1])
        flat.add(self.units)
        return flat

    def search(
        self, embeddings: ArrayLike, k: int, exclude_self: bool = False, chunk: int | None = None
    ) -> tuple[Floats, Indices]:
        """embeddings (N, D) -> (cosines (N, k), gallery indices (N, k)), as `nearest` gives them."""
        queries, targets = unit_rows(embeddings), self.units
        if queries.shape[1] != targets.shape[1]:
            raise UserError(
                f"embeddings are {queries.shape[1]} numbers long and gallery {targets.shape[1]}; use one model."
            )
        if exclude_self and len(queries) != len(targets):
            raise UserError(
                f"exclude_self needs gallery to be the {len(queries)} embeddings; it has {len(targets)} rows."
            )
        cosines = np.full((len(queries), k), -np.inf, np.float32)
        indices = np.full((len(queries), k), -1, np.int64)
        wanted = min(k, len(targets) - exclude_self)
        if wanted < 1:
            return cosines, indices
        for i, candidates in self._proposed(queries, wanted, exclude_self, chunk):
            exact = _cosines(queries[i], targets[candidates])
            best = np.lexsort((candidates, -exact))[:k]
            cosines[i, : best.size], indices[i, : best.size] = exact[best], candidates[best]
        return cosines, indices

    def _proposed(
        self, queries: Floats, k: int, exclude_self: bool, chunk: int | None
    ) -> Iterator[tuple[int, Indices]]:
        """Yield (query, the gallery rows that may be among its k nearest)."""
        if len(queries) <= FEW:
            alone = (_candidates(query, self.units, k, i if exclude_self else None) for i, query in enumerate(queries))
            return enumerate(alone)
        if self.by == "faiss":
            return _of_faiss(self._flat, queries, self.units, k, exclude_self)
        return _of_numpy(queries, self.units, k, exclude_self, chunk)


def rounding(size: int) -> float:
    """How far a float32 product of two unit rows of so many numbers may be from the cosine: summed in any order."""
    return (size + 4) * 2.0**-24


def _cosines(query: Floats, rows: Floats) -> Floats:
    """query (D,), rows (M, D) -> cosines (M,): that of a pair is the same whatever rows come with it."""
    exact = np.einsum("md,d->m", rows.astype(np.float64), query.astype(np.float64), optimize=False)
    return np.asarray(exact, np.float32)


def _of_numpy(
    queries: Floats, targets: Floats, k: int, exclude_self: bool, chunk: int | None
) -> Iterator[tuple[int, Indices]]:
    """Yield (query, the gallery rows that may be among its k nearest)."""
    similarities = Similarities(queries, targets, chunk)
    for start, slab in similarities.slabs():
        if exclude_self:
            hide_self(slab, start)
        for i, row in enumerate(slab, start):
            limit = np.partition(row, row.size - k)[row.size - k]
            yield i, np.flatnonzero(row >= limit - 2 * rounding(queries.shape[1]))


def _of_faiss(
    index: Any, queries: Floats, targets: Floats, k: int, exclude_self: bool
) -> Iterator[tuple[int, Indices]]:
    """The same; a query whose list is too short to be sure of goes to NumPy."""
    asked = min(k + SPARE + exclude_self, len(targets))
    slack = 2 * rounding(queries.shape[1])
    for start in range(0, len(queries), QUERIES):
        scores, found = index.search(queries[start : start + QUERIES], asked)
        for i, (row, ids) in enumerate(zip(scores, found, strict=True), start):
            others = ids != i if exclude_self else ids >= 0
            limit = row[others][k - 1]
            if asked < len(targets) and row[-1] >= limit - slack:
                yield i, _candidates(queries[i], targets, k, i if exclude_self else None)
            else:
                yield i, np.sort(ids[others & (row >= limit - slack)])


def _candidates(query: Floats, targets: Floats, k: int, without: int | None) -> Indices:
    scores = targets @ query
    if without is not None:
        scores[without] = -np.inf
    limit = np.partition(scores, scores.size - k)[scores.size - k]
    return np.flatnonzero(scores >= limit - 2 * rounding(targets.shape[1]))


def _faiss() -> Any:
    """The module; UserError where it is missing."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells which of its kernels it found
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise UserError("search=faiss needs faiss: pip install faiss-cpu, or leave search out.") from error
