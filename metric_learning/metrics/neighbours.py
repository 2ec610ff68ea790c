"""The nearest of a gallery, best first."""

import numpy as np
from numpy.typing import ArrayLike

from metric_learning.checks import UserError
from metric_learning.metrics.cosine import Floats, Indices, Similarities, hide_self, unit_rows


def nearest(
    embeddings: ArrayLike, gallery: ArrayLike, k: int, exclude_self: bool = False, *, chunk: int | None = None
) -> tuple[Floats, Indices]:
    """embeddings (N, D), gallery (G, D) -> (cosines (N, k), gallery indices (N, k)), best first, ties by index.

    Among equal cosines the lowest index comes first. exclude_self: gallery is embeddings, and row i may not find i.
    Places past the end of the gallery hold -inf and -1 (faiss has -1 too). Raises UserError for k below
    1, sizes that differ and embeddings that are not finite.
    """
    if k < 1:
        raise UserError(f"k must be at least 1; got {k}.")
    queries, targets = unit_rows(embeddings), unit_rows(gallery, "gallery")
    if queries.shape[1] != targets.shape[1]:
        raise UserError(
            f"embeddings are {queries.shape[1]} numbers long and gallery {targets.shape[1]}; use one model."
        )
    if exclude_self and len(queries) != len(targets):
        raise UserError(f"exclude_self needs gallery to be the {len(queries)} embeddings; it has {len(targets)} rows.")
    cosines = np.full((len(queries), k), -np.inf, np.float32)
    indices = np.full((len(queries), k), -1, np.int64)
    for start, slab in Similarities(queries, targets, chunk).slabs():
        if exclude_self:
            hide_self(slab, start)
        for i, row in enumerate(slab, start):
            best = _best(row, k)
            cosines[i, : best.size] = row[best]
            indices[i, : best.size] = best
    return cosines, indices


def _best(row: Floats, k: int) -> Indices:
    """Indices of the k largest entries above -inf, largest first, ties lowest index first."""
    if k < row.size:
        # The k-th largest value lets through all of its ties, so the stable sort can choose among them by index.
        candidates = np.flatnonzero(row >= np.partition(row, row.size - k)[row.size - k])
    else:
        candidates = np.arange(row.size)
    best = candidates[np.argsort(-row[candidates], kind="stable")][:k]
    return best[row[best] > -np.inf]
