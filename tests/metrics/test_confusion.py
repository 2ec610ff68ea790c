"""Who is taken for whom, and how far down the first right one stands, against plain loops."""

from collections import Counter

import naive_metrics as naive
import numpy as np
import pytest

from metric_learning.metrics.confusion import most_confused
from metric_learning.metrics.retrieval import first_ranks, nearest, retrieval_metrics


def drawn(pictures: int = 60, classes: int = 9, noise: float = 0.6, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, pictures)
    return (np.eye(16)[labels] + noise * rng.normal(size=(pictures, 16))).astype(np.float32), labels


def naive_first(rows, labels):
    found = []
    for i, row in enumerate(rows):
        hits = [labels[j] == labels[i] for j in naive.ranking(row, rows, without=i)]
        found.append(hits.index(True) + 1 if True in hits else 0)
    return found


def test_first_ranks_are_those_of_the_loop():
    rows, labels = drawn()
    labels[3] = 99  # alone
    found = first_ranks(rows, labels)
    assert found.tolist() == naive_first(rows, labels) and found[3] == 0 and found.max() > 2
    figures = retrieval_metrics(rows, labels, ks=(1, 5))
    assert figures["recall@5"] == (found[found > 0] <= 5).mean()


def test_first_ranks_of_ties_and_of_nothing():
    assert first_ranks(np.ones((4, 2)), [0, 1, 0, 1]).tolist() == [2, 3, 1, 2]
    assert first_ranks(np.ones((0, 2)), []).tolist() == []
    assert first_ranks(np.eye(3), [0, 1, 2]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_confused_pairs_are_those_of_the_loop(seed):
    rows, labels = drawn(seed=seed)
    labels[[4, 5]] = 77, 78  # alone
    neighbours = nearest(rows, rows, 1, exclude_self=True)[1][:, 0]
    counts = Counter()
    for i, j in enumerate(neighbours.tolist()):
        if labels[i] != labels[j] and (labels == labels[i]).sum() > 1:
            counts[tuple(sorted((int(labels[i]), int(labels[j]))))] += 1
    found = most_confused(labels, neighbours, most=1000)
    assert {(pair.first, pair.second): pair.wrong for pair in found} == counts and counts
    assert [pair.wrong for pair in found] == sorted(counts.values(), reverse=True)
    for pair in found:
        assert pair.pictures == sum(n for n in (sum(labels == pair.first), sum(labels == pair.second)) if n > 1)
        assert 1 <= len(pair.examples) <= 2 and len({labels[i] for i in pair.examples}) == len(pair.examples)
        assert all({labels[i], labels[neighbours[i]]} == {pair.first, pair.second} for i in pair.examples)
    assert most_confused(labels, neighbours, most=2) == found[:2]


def test_no_neighbour_is_no_confusion():
    assert most_confused([0, 1], [-1, -1]) == [] == most_confused([], [])
    assert most_confused([5, 5, 7], [1, 0, 1]) == []
    assert most_confused([5, 5, 7, 7], [1, 0, 1, 2]) == [(5, 7, 1, 4, (2,))]
