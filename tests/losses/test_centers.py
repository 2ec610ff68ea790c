"""Where class centres start: at random, or at the mean direction of their pictures."""

import numpy as np
import paddle
import pytest

from metric_learning.losses.centers import AllCenters
from metric_learning.metrics.group_means import class_sums


def drawn(count: int = 20, classes: int = 5):
    rng = np.random.default_rng(3)
    return rng.normal(size=(count, 7)).astype(np.float32) * rng.uniform(0.1, 50, (count, 1)), rng.integers(
        classes, size=count
    )


def test_directions_are_sums_of_unit_embeddings():
    x, labels = drawn()
    found = class_sums(x, labels, 6)
    for label in range(6):
        rows = [x[i] / np.sqrt((x[i].astype(np.float64) ** 2).sum()) for i in np.flatnonzero(labels == label)]
        np.testing.assert_allclose(found[label], np.sum(rows, axis=0) if rows else np.zeros(7), atol=1e-5)


def test_an_embedding_of_zero_says_nothing():
    assert not class_sums(np.zeros((2, 3), np.float32), np.array([0, 1]), 2).any()


def test_centres_turn_and_keep_their_length():
    paddle.seed(0)
    centers = AllCenters(6, 7)
    before = centers.weight.numpy().copy()
    x, labels = drawn()
    directions = class_sums(x, labels, 5)
    directions[3] = 0
    centers.point_at(directions)
    after = centers.weight.numpy()
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), np.linalg.norm(before, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(after[[3, 5]], before[[3, 5]])  # no pictures, and a class that was never counted
    for row in (0, 1, 2, 4):
        cosine = after[row] @ directions[row] / np.linalg.norm(after[row]) / np.linalg.norm(directions[row])
        assert cosine == pytest.approx(1, abs=1e-6)
