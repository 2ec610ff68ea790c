"""Retrieval: how well the nearest neighbours of a picture are pictures of its class. NumPy in, numbers out.

Every figure follows from the ranks of a query's positives in the gallery, and a rank is a count: the number of gallery
pictures with a higher cosine, plus those with the same cosine and a lower index, plus one. So little is sorted, no
N x N matrix is held, and ties have one meaning everywhere: the lowest index first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError
from metric_learning.metrics import ranks, sorting
from metric_learning.metrics.arrangement import arranged
from metric_learning.metrics.cosine import Indices, Similarities, check_chunk, labels_of, matrix_of, unit_rows
from metric_learning.metrics.neighbours import nearest
from metric_learning.metrics.reranking import Rerank, Reranked
from metric_learning.metrics.team import ALONE, Team

__all__ = ["RetrievalMetrics", "first_ranks", "nearest", "retrieval_metrics"]

RetrievalMetrics = dict[str, float | None]


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
    team: Team = ALONE,
    rerank: Rerank | None = None,
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

    map_at_r=False gives the counts and recalls only, at the price of one count a query. progress is called with the
    number of queries done since the last call (`tqdm.update` fits). team: processes that share the work; each gets the
    figures of one process, to the bit. rerank: ranks by `reranking.Reranked` instead of by cosines.

    Where no class is large (33 pictures at most; 2,048 for map_at_r=False) tiles of 2048 x 2048 cosines are counted and
    forgotten; each serves both its sides where the pictures query one another. Otherwise a slab of whole rows is held,
    `chunk` queries at a time (None: what takes at most 256 MB); every chunk gives the same result to the bit. In memory
    besides: a float32 copy of the embeddings, and about 20 bytes for each (query, positive).
    Raises UserError for shapes that do not match, k or chunk below 1, and embeddings that are not finite.
    """
    if any(k < 1 for k in ks):
        raise UserError(f"ks must be 1 or more; got {list(ks)}.")
    if (gallery is None) != (gallery_labels is None):
        raise UserError("gallery and gallery_labels go together; give both or neither.")
    size = matrix_of(embeddings).shape[1]
    other_size = size if gallery is None else matrix_of(gallery, "gallery").shape[1]
    if size != other_size:
        raise UserError(f"embeddings are {size} numbers long and gallery {other_size}; use one model.")
    check_chunk(chunk)
    labels = labels_of(labels, len(np.asarray(embeddings)))
    others = labels
    if gallery is not None and gallery_labels is not None:
        others = labels_of(gallery_labels, len(np.asarray(gallery)), "gallery_labels")
    return _figures(_ranks(embeddings, labels, gallery, others, map_at_r, rerank, chunk, progress, team), ks, map_at_r)


def first_ranks(embeddings: ArrayLike, labels: ArrayLike) -> Indices:
    """embeddings (N, D), labels (N,) -> the rank (N,) of each picture's nearest positive among all others, 0 without.

    recall@k is the share of those above 0 that are at most k; ties and errors are those of `retrieval_metrics`.
    """
    labels = labels_of(labels, len(matrix_of(embeddings)))
    found = _ranks(embeddings, labels, None, labels, False, None, None, None, ALONE)
    first = np.zeros(len(labels), np.int64)
    valid = found.sizes > 0
    first[valid] = found.ranks[found.starts[valid]]
    return first


def _ranks(
    embeddings: ArrayLike,
    labels: NDArray[Any],
    gallery: ArrayLike | None,
    others: NDArray[Any],
    all_of_them: bool,
    rerank: Rerank | None,
    chunk: int | None,
    progress: Callable[[int], object] | None,
    team: Team,
) -> ranks.Ranks:
    found = None if rerank else _counted(embeddings, labels, gallery, others, all_of_them, progress, team)
    if found is None:
        similarities = Reranked(embeddings, gallery, rerank, chunk) if rerank else _plain(embeddings, gallery, chunk)
        positives = sorting.Positives(labels, others, exclude_self=gallery is None)
        found = sorting.ranks_by_rows(similarities, positives, all_of_them, team, progress)
    return found


def _plain(embeddings: ArrayLike, gallery: ArrayLike | None, chunk: int | None) -> Similarities:
    queries = unit_rows(embeddings)
    return Similarities(queries, queries if gallery is None else unit_rows(gallery, "gallery"), chunk)


def _counted(
    embeddings: ArrayLike,
    labels: NDArray[Any],
    gallery: ArrayLike | None,
    others: NDArray[Any],
    all_of_them: bool,
    progress: Callable[[int], object] | None,
    team: Team,
) -> ranks.Ranks | None:
    """The ranks by counting; None where a class, or a block of classes that share equal rows, is too large for it."""
    largest = int(np.unique(others, return_counts=True)[1].max(initial=0))
    if largest > (min(ranks.STRIP, sorting.COUNTED_POSITIVES + 1) if all_of_them else ranks.STRIP):
        return None
    found = arranged(embeddings, labels, gallery, others)
    strips = ranks.strips_of(found)
    return None if strips is None else ranks.Counting(found, strips, all_of_them, team).ranks(progress)


def _figures(found: ranks.Ranks, ks: Sequence[int], map_at_r: bool) -> RetrievalMetrics:
    sizes, places = found.sizes, found.ranks
    queries, valid = len(sizes), int(np.count_nonzero(sizes))
    figures: RetrievalMetrics = {"queries": queries, "valid": valid, "without_positive": queries - valid}
    starts = found.starts[sizes > 0]
    sizes = sizes[sizes > 0]
    for k in ks:
        hits = int(np.count_nonzero(places[starts] <= k))
        figures[f"recall@{k}"] = hits / valid if valid else None
        figures[f"recall_all@{k}"] = hits / queries if queries else None
    if map_at_r:
        # The j-th positive of a query stands at its j-th rank.
        precision = (np.arange(1, len(places) + 1) - np.repeat(starts, sizes)) / places
        within = places <= np.repeat(sizes, sizes)
        for k in ks:
            figures[f"precision@{k}"] = _mean(_sums(places <= k, starts) / k)
        figures["r_precision"] = _mean(_sums(within, starts) / sizes)
        figures["map@r"] = _mean(_sums(np.where(within, precision, 0.0), starts) / sizes)
        figures["map"] = _mean(_sums(precision, starts) / sizes)
    return figures


def _sums(values: NDArray[Any], starts: Indices) -> NDArray[np.float64]:
    """The sum over each query's positives; each of them begins at one of starts."""
    return np.add.reduceat(values, starts, dtype=np.float64) if len(starts) else np.empty(0)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(np.mean(values)) if values.size else None
