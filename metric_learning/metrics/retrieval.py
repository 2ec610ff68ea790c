"""Retrieval: how well the nearest neighbours of a picture are pictures of its class. NumPy in, numbers out.

Every figure follows from the ranks of a query's positives in the gallery, and a rank is a count: the number of gallery
pictures with a higher cosine, plus those with the same cosine and a lower index, plus one. So nothing is sorted, no
N x N matrix is held, and ties have one meaning everywhere: the lowest index first.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError
from metric_learning.metrics.cosine import Floats, Indices, Similarities, labels_of, unit_rows

RetrievalMetrics = dict[str, float | None]

# Above so many positives one sort of the row is cheaper than a count for each.
COUNTED_POSITIVES = 32


def retrieval_metrics(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    gallery: ArrayLike | None = None,
    gallery_labels: ArrayLike | None = None,
    ks: Sequence[int] = (1, 10),
    map_at_r: bool = True,
    chunk: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> RetrievalMetrics:
    """embeddings (N, D), labels (N,) -> named figures in 0..1 and counts; None where a figure has nothing to stand on.

    gallery (G, D), gallery_labels (G,): what is searched. Without them every picture queries all the others, itself
    left out by its index. R is the number of a query's positives in the gallery; a query with R > 0 is valid.

    - `queries`, `valid`, `without_positive`: counts, the last two adding up to the first
    - `recall@k`: share of valid queries with a positive among the k nearest
    - `recall_all@k`: the same hits over all queries: one without a positive is a miss (PaddleCV's figure)
    - `precision@k`: mean over valid queries of (positives among the k nearest) / k, whatever the size of the gallery
    - `r_precision`: mean of (positives among the R nearest) / R
    - `map@r`: mean of 1/R sum_{i<=R} P@i rel(i) (Musgrave et al., arXiv 2003.08505)
    - `map`: mean of 1/R sum over all positives of P@(its rank)

    map_at_r=False gives the counts and recalls only, at the price of one count a query. chunk: queries at a time; any
    chunk gives the same result to the bit, and `None` picks one that fits (see Similarities). progress is called with
    the number of queries done since the last call (`tqdm.update` fits).
    Raises UserError for shapes that do not match, k below 1, and embeddings that are not finite.
    """
    if any(k < 1 for k in ks):
        raise UserError(f"ks must be 1 or more; got {list(ks)}.")
    if (gallery is None) != (gallery_labels is None):
        raise UserError("gallery and gallery_labels go together; give both or neither.")
    queries = unit_rows(embeddings)
    targets = queries if gallery is None else unit_rows(gallery, "gallery")
    if queries.shape[1] != targets.shape[1]:
        raise UserError(
            f"embeddings are {queries.shape[1]} numbers long and gallery {targets.shape[1]}; use one model."
        )
    labels = labels_of(labels, len(queries))
    others = labels if gallery_labels is None else labels_of(gallery_labels, len(targets), "gallery_labels")
    positives = Positives(labels, others, exclude_self=gallery is None)
    found = []
    for start, slab in Similarities(queries, targets, chunk).slabs():
        if gallery is None:
            hide_self(slab, start)
        found += [_ranks(row, positives.of(start + i), all_of_them=map_at_r) for i, row in enumerate(slab)]
        if progress:
            progress(len(slab))
    return _figures(found, ks, map_at_r)


class Positives:
    """Which gallery indices carry the label of query i; labels (Q,) and gallery labels (G,) of one kind."""

    def __init__(self, labels: NDArray[np.generic], gallery_labels: NDArray[np.generic], exclude_self: bool) -> None:
        classes, codes = np.unique(gallery_labels, return_inverse=True)
        self._by_class = np.argsort(codes.ravel(), kind="stable").astype(np.int64)
        self._ends = np.cumsum(np.bincount(codes.ravel(), minlength=len(classes)))
        self._code = {label: code for code, label in enumerate(classes.tolist())}
        self._labels: list[object] = labels.tolist()
        self._exclude_self = exclude_self

    def of(self, query: int) -> Indices:
        """Ascending gallery indices (R,) of the positives of this query, itself left out if it is in the gallery."""
        code = self._code.get(self._labels[query])
        if code is None:
            return self._by_class[:0]
        same = self._by_class[self._ends[code - 1] if code else 0 : self._ends[code]]
        return same[same != query] if self._exclude_self else same


def hide_self(slab: Floats, start: int) -> None:
    """Set slab[i, start + i] to -inf, in place: below every cosine, so that it counts nowhere."""
    rows = np.arange(len(slab))
    slab[rows, start + rows] = -np.inf


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


def _figures(found: list[Indices], ks: Sequence[int], map_at_r: bool) -> RetrievalMetrics:
    ranks = [r for r in found if r.size]
    queries, valid = len(found), len(ranks)
    figures: RetrievalMetrics = {"queries": queries, "valid": valid, "without_positive": queries - valid}
    for k in ks:
        hits = sum(int(r[0]) <= k for r in ranks)
        figures[f"recall@{k}"] = hits / valid if valid else None
        figures[f"recall_all@{k}"] = hits / queries if queries else None
    if map_at_r:
        for k in ks:
            figures[f"precision@{k}"] = _mean([np.count_nonzero(r <= k) / k for r in ranks])
        figures["r_precision"] = _mean([np.count_nonzero(r <= r.size) / r.size for r in ranks])
        figures["map@r"] = _mean([_precision_sum(r[r <= r.size]) / r.size for r in ranks])
        figures["map"] = _mean([_precision_sum(r) / r.size for r in ranks])
    return figures


def _precision_sum(ranks: Indices) -> float:
    """Sum of the precision at these ascending ranks: the j-th positive stands at ranks[j - 1]."""
    return float((np.arange(1, ranks.size + 1) / ranks).sum())


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


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
