"""The mean embedding of each group: what it is, and what taking it off does to cosines."""

import json

import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.metrics.group_means import GroupMeans, group_means

NAMES = ("African", "Asian")


def drawn(count: int = 12, size: int = 5, seed: int = 0):
    """Embeddings of any length, labels, groups; people have 1 to 3 pictures."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(6, size=count)
    groups = np.array(NAMES)[labels % 2]
    return rng.normal(size=(count, size)).astype(np.float32) * rng.uniform(0.1, 9, (count, 1)), labels, groups


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_naive_mean_of_means(seed):
    x, labels, groups = drawn(seed=seed)
    found = group_means(x, labels, groups)
    assert list(found.names) == sorted(set(groups))
    for name, mean in zip(found.names, found.means, strict=True):
        people = []
        for person in sorted({k for k, g in zip(labels, groups, strict=True) if g == name}):
            rows = [x[i] / np.linalg.norm(x[i]) for i in range(len(x)) if labels[i] == person and groups[i] == name]
            people.append(np.mean(rows, axis=0))
        np.testing.assert_allclose(mean, np.mean(people, axis=0), atol=1e-6)


def test_a_person_with_many_pictures_counts_once():
    x = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    np.testing.assert_allclose(group_means(x, np.array([0, 0, 0, 1]), ["A"] * 4).means, [[0.5, 0.5]])


def test_takes_off_the_mean_of_each_ones_group_and_the_common_one_elsewhere():
    means = GroupMeans(NAMES, np.array([[0.5, 0.0], [0.0, 0.25]], np.float32))
    x = np.array([[2, 0], [0, 3], [0, 3], [0, 0]], np.float32)
    found = means.taken_off(x, ["African", "Asian", "elsewhere", "African"])
    np.testing.assert_allclose(found, [[0.5, 0], [0, 0.75], [-0.25, 0.875], [0, 0]])
    np.testing.assert_allclose(means.taken_off(x, None)[:2], [[0.75, -0.125], [-0.25, 0.875]])


def test_strangers_of_one_group_come_apart():
    """What a group shares raises the cosine of any two of its people; without it they are about orthogonal."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 32)) + 8 * np.eye(32)[0]
    labels, groups = np.arange(200), ["A"] * 200
    cosine = lambda e: np.triu((u := e / np.linalg.norm(e, axis=1, keepdims=True)) @ u.T, 1).sum() / (200 * 199 / 2)  # noqa: E731
    assert cosine(x) > 0.5 and abs(cosine(group_means(x, labels, groups).taken_off(x, groups))) < 0.05


def test_json_and_back_gives_the_same_bits():
    means = group_means(*drawn())
    again = GroupMeans.from_dict(json.loads(json.dumps(means.to_dict())))
    assert again.names == means.names and again.means.tobytes() == means.means.tobytes()


@pytest.mark.parametrize(
    "saved",
    [{}, {"A": []}, {"A": [1, 2], "B": [1]}, {"A": "x"}, {"A": [float("nan")]}, {"A": [[1]]}, {"A": None}, 3, []],
)
def test_what_is_no_group_mean_is_refused(saved):
    with pytest.raises((ValueError, UserError), match="group mean"):
        GroupMeans.from_dict(saved).taken_off(np.ones((1, 1), np.float32), None)


def test_another_size_is_refused():
    with pytest.raises(UserError, match="of 2 numbers, for embeddings of 3"):
        GroupMeans(("A",), np.zeros((1, 2), np.float32)).taken_off(np.ones((1, 3), np.float32), None)


def test_no_pictures_no_means():
    with pytest.raises(ValueError, match="0 group means"):
        group_means(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), [])
