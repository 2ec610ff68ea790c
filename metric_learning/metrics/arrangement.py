"""The order in which retrieval walks queries and gallery: classes together, and equal rows with them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.metrics.cosine import Floats, Indices, copies_of_earlier_rows, unit_rows


@dataclass(frozen=True)
class Side:
    """Rows of length 1 (N, D) in order of their class; ids (N,): the place of each in what was given; codes (N,): its
    class, rising, that of a query without a positive being past all others."""

    rows: Floats
    ids: Indices
    codes: Indices


@dataclass(frozen=True)
class Arrangement:
    """Queries and gallery, one and the same object where each picture queries the others.

    The members of a block (a class, or several where rows of one equal rows of another) are contiguous in the gallery,
    and each block begins at one of `starts` (B,). Row copies[i] of the gallery equals row firsts[i], of the same block.
    """

    queries: Side
    gallery: Side
    starts: Indices
    copies: Indices
    firsts: Indices


def arranged(
    embeddings: ArrayLike, labels: NDArray[Any], gallery: ArrayLike | None, gallery_labels: NDArray[Any]
) -> Arrangement:
    """embeddings (Q, D), labels (Q,), gallery (G, D) or None for the embeddings, its labels (G,), in walking order."""
    names, codes = np.unique(gallery_labels, return_inverse=True)
    codes = codes.ravel().astype(np.int64)
    asked = codes if gallery is None else _codes(labels, names)
    # Classes that are asked for come first: the positives of any run of queries are then a short run of the gallery.
    wanted = np.zeros(len(names) + 1, bool)
    wanted[asked] = True
    blocks = np.arange(len(names))
    place = _places(blocks, wanted)
    order = np.argsort(place[codes], kind="stable")
    what = "embeddings" if gallery is None else "gallery"
    rows = unit_rows(embeddings if gallery is None else gallery, what, order)
    copies, firsts = copies_of_earlier_rows(rows)
    pairs = codes[order][copies], codes[order][firsts]
    if (pairs[0] != pairs[1]).any():
        blocks = _merged(blocks, *pairs)
        place = _places(blocks, wanted)
        again = np.argsort(place[codes[order]], kind="stable")
        moved = np.empty_like(again)
        moved[again] = np.arange(len(again))
        rows, order, copies, firsts = rows[again], order[again], moved[copies], moved[firsts]
    inside = blocks[codes[order]]
    starts = np.flatnonzero(np.concatenate([[True], inside[1:] != inside[:-1]])[: len(inside)])
    found = Side(rows, order, place[codes[order]])
    if gallery is None:
        return Arrangement(found, found, starts, copies, firsts)
    # A query whose class is not in the gallery has the code len(names), past all others.
    asked = np.append(place, len(names))[asked]
    turns = np.argsort(asked, kind="stable")
    return Arrangement(Side(unit_rows(embeddings, order=turns), turns, asked[turns]), found, starts, copies, firsts)


def _codes(labels: NDArray[Any], names: NDArray[Any]) -> Indices:
    """The place of each label among the names, or their number where it is none of them."""
    known = {name: code for code, name in enumerate(names.tolist())}
    return np.array([known.get(label, len(names)) for label in labels.tolist()], np.int64)


def _places(blocks: Indices, wanted: NDArray[np.bool_]) -> Indices:
    """blocks (C,) of the classes -> the turn of each class (C,): blocks with a class that is wanted come first."""
    first = np.zeros(len(blocks), bool)
    first[blocks[wanted[:-1]]] = True
    place = np.empty(len(blocks), np.int64)
    place[np.lexsort((np.arange(len(blocks)), blocks, ~first[blocks]))] = np.arange(len(blocks))
    return place


def _merged(blocks: Indices, a: Indices, b: Indices) -> Indices:
    """Join the blocks of the classes a[i] and b[i], for all i; each is called by the lowest class in it."""
    parents: list[int] = blocks.tolist()

    def root(code: int) -> int:
        while parents[code] != code:
            parents[code] = parents[parents[code]]
            code = parents[code]
        return code

    for one, other in zip(a.tolist(), b.tolist(), strict=True):
        low, high = sorted((root(one), root(other)))
        parents[high] = low
    return np.array([root(code) for code in parents], np.int64)
