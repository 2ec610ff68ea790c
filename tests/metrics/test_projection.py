"""The map of an embedding: its gradient by differences, its neighbours, and which pictures are on it."""

import numpy as np
import pytest

from metric_learning.metrics.projection import (
    affinities,
    divergence,
    gradient,
    map_sample,
    neighbour_map,
    principal_axes,
)


def clusters(each: int = 15, count: int = 8, noise: float = 0.15, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), each)
    return np.eye(32)[labels] + noise * rng.normal(size=(len(labels), 32)), labels


def test_axes_are_those_of_the_covariance():
    rows, _ = clusters()
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.cov(units.T))
    points, shares = principal_axes(rows)
    np.testing.assert_allclose(shares, values[::-1][:2] / values.sum(), rtol=1e-4)
    expected = (units - units.mean(axis=0)) @ vectors[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-4)
    assert (points[np.abs(points).argmax(axis=0), [0, 1]] > 0).all()


def test_affinities_have_the_perplexity_that_is_asked_for():
    rows, _ = clusters()
    wanted = affinities(rows, 10.0)
    np.testing.assert_allclose(wanted, wanted.T)
    assert wanted.sum() == pytest.approx(1.0) and (np.diag(wanted) == 0).all()
    # By a loop, for one row of the table that is averaged with its transpose.
    distances = np.array([((rows[0] - row) ** 2).sum() for row in rows])[1:]
    widths = np.geomspace(0.01, 1000, 20000)
    p = np.exp(-(distances - distances.min()) * widths[:, None])
    p /= p.sum(axis=1, keepdims=True)
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
    own = p[np.abs(entropy - np.log(10.0)).argmin()]
    assert (2 * len(rows) * wanted[0, 1:] >= own - 1e-3).all()


def test_the_gradient_is_that_of_the_divergence():
    rng = np.random.default_rng(1)
    wanted, points = affinities(rng.normal(size=(12, 5)), 3.0), rng.normal(size=(12, 2))
    slope = gradient(wanted, points)
    numeric, step = np.empty_like(points), 1e-6
    for i, j in np.ndindex(*points.shape):
        shift = np.zeros_like(points)
        shift[i, j] = step
        numeric[i, j] = (divergence(wanted, points + shift) - divergence(wanted, points - shift)) / (2 * step)
    np.testing.assert_allclose(slope, numeric, atol=1e-6)
    assert np.abs(slope).max() > 1e-3


def test_classes_stay_together_on_the_map():
    rows, labels = clusters()
    points = neighbour_map(rows)
    distances = ((points[:, None] - points) ** 2).sum(axis=2) + np.diag(np.full(len(points), np.inf))
    assert (labels[distances.argmin(axis=1)] == labels).mean() > 0.97
    assert np.isfinite(points).all()
    np.testing.assert_array_equal(points, neighbour_map(rows))


@pytest.mark.parametrize("count", range(6))
def test_few_rows_equal_rows_and_zeros(count):
    for rows in (np.ones((count, 3)), np.zeros((count, 3)), np.eye(6)[:count], np.ones((count, 1))):
        points = neighbour_map(rows)
        assert points.shape == (count, 2) and np.isfinite(points).all()


def test_the_sample_takes_whole_classes_and_all_groups_alike():
    labels = np.repeat(np.arange(100), 6)
    groups = np.where(labels < 90, "many", "few")
    chosen = map_sample(labels, groups, 120)
    assert len(chosen) == 120 and (np.diff(chosen) > 0).all()
    assert (groups[chosen] == "few").sum() == 60
    counts = np.bincount(labels[chosen])
    assert ((counts == 0) | (counts == 6)).all()
    assert map_sample(labels, None, 10_000).tolist() == list(range(600))
    assert np.bincount(labels[map_sample(labels, None, 10_000, of_class=4)]).tolist() == [4] * 100
    lonely = np.concatenate([np.arange(50), np.full(10, 77)])
    assert set(range(50, 60)) <= set(map_sample(lonely, None, 12).tolist())
    assert map_sample([], None, 5).tolist() == []
