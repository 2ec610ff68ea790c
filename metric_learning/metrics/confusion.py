"""Which classes are taken for one another: by how often the nearest picture is of the other one."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.metrics.cosine import labels_of


class ConfusedPair(NamedTuple):
    """Two labels; `wrong` of the `pictures` of both that are not alone have their nearest neighbour in the other class.

    examples: up to two of them, by their indices, one of each class if both have one.
    """

    first: int
    second: int
    wrong: int
    pictures: int
    examples: tuple[int, ...]


def most_confused(labels: ArrayLike, neighbours: ArrayLike, most: int = 10) -> list[ConfusedPair]:
    """labels (N,) whole numbers, neighbours (N,) index of each picture's nearest other, -1 without -> pairs of classes.

    By the number of pictures that are taken for the other class, the highest first; then by their share; then by label.
    A picture alone in its class does not count: there is nothing right that it could have found.
    """
    codes = np.asarray(labels, np.int64)
    nearest = labels_of(neighbours, len(codes), "neighbours").astype(np.int64)
    classes, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
    judged = counts[place.ravel()] > 1
    wrong = np.flatnonzero(judged & (nearest >= 0) & (codes[nearest] != codes))
    sizes = dict(zip(classes.tolist(), np.where(counts > 1, counts, 0).tolist(), strict=True))
    pairs = np.sort(np.stack([codes[wrong], codes[nearest[wrong]]], axis=1), axis=1)
    names, place, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    totals = [sizes[a] + sizes[b] for a, b in names.tolist()]
    order = sorted(range(len(names)), key=lambda i: (-counts[i], -counts[i] / totals[i], *names[i].tolist()))[:most]
    found = []
    for i in order:
        first, second = names[i].tolist()
        examples = _examples(wrong[place.ravel() == i], codes)
        found.append(ConfusedPair(first, second, int(counts[i]), totals[i], examples))
    return found


def _examples(indices: NDArray[np.int64], codes: NDArray[np.int64]) -> tuple[int, ...]:
    """The first picture of either class."""
    firsts = np.unique(codes[indices], return_index=True)[1]
    return tuple(sorted(int(indices[i]) for i in firsts))
