"""Batches with equal shares of the groups."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.data.group_samplers import (
    GroupClassSampler,
    GroupShuffleSampler,
    group_codes,
    groups_of_classes,
)

SIZES = [(1, 1), (1, 5, 2), (3, 40, 7, 11), (2, 2, 2, 2, 2), (1, 100)]
BATCHES = [1, 2, 3, 4, 7, 16, 33]


def codes_of(*sizes: int) -> NDArray[np.int64]:
    """Group g has sizes[g] pictures; the order is mixed."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int64)


# ---- pictures


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_shares_are_equal_and_no_picture_comes_twice_in_a_pass(sizes: tuple[int, ...], batch: int) -> None:
    codes = codes_of(*sizes)
    sampler = GroupShuffleSampler(codes, batch, seed=3)
    batches = [sampler.batch(step) for step in range(60)]
    total: Counter[int] = Counter(dict.fromkeys(range(len(sizes)), 0))
    for indices in batches:
        assert indices.dtype == np.int64 and len(indices) == batch
        shares = Counter(codes[indices].tolist())
        assert all(batch // len(sizes) <= shares[g] <= -(-batch // len(sizes)) for g in range(len(sizes)))
        total += shares
    assert max(total.values()) - min(total[g] for g in range(len(sizes))) <= 1  # the odd places go round
    stream = np.concatenate(batches)
    for group, size in enumerate(sizes):
        drawn = stream[codes[stream] == group]
        for start in range(0, len(drawn), size):
            one = drawn[start : start + size]
            assert len(set(one.tolist())) == len(one)
        if len(drawn) >= size:
            assert set(drawn[:size].tolist()) == set(np.flatnonzero(codes == group).tolist())


@pytest.mark.parametrize("power", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_shares_go_with_a_power_of_the_pictures(power: float, batch: int) -> None:
    sizes = (400, 25, 100)
    codes = codes_of(*sizes)
    sampler = GroupShuffleSampler(codes, batch, 3, power)
    expected = np.array([size**power for size in sizes]) / sum(size**power for size in sizes)
    np.testing.assert_allclose(sampler.shares, expected)
    steps = -(-2000 // batch)
    drawn = np.concatenate([sampler.batch(step) for step in range(steps)])[:2000]
    found = np.bincount(codes[drawn], minlength=3)
    np.testing.assert_allclose(found / 2000, expected, atol=1e-3)
    for start in range(0, 1800, 90):  # spread evenly: any stretch has about its share
        part = np.bincount(codes[drawn[start : start + 200]], minlength=3)
        assert np.abs(part - 200 * expected).max() <= 2
    for code, size in enumerate(sizes):  # every pass over a group shows each of its pictures once
        mine = drawn[codes[drawn] == code]
        for start in range(0, len(mine) - size + 1, size):
            assert len(set(mine[start : start + size].tolist())) == size


def test_a_group_of_hardly_any_pictures_has_a_place() -> None:
    codes = codes_of(100000, 1)
    sampler = GroupShuffleSampler(codes, 50, 0, 1.0)
    assert codes[np.concatenate([sampler.batch(step) for step in range(20)])].sum() == 1


def test_passes_differ_and_so_do_groups_and_seeds() -> None:
    codes = np.repeat([0, 1], 20)
    drawn = np.concatenate([GroupShuffleSampler(codes, 8, 5).batch(step) for step in range(10)])
    first, second = (drawn[codes[drawn] == group] - 20 * group for group in (0, 1))
    assert not np.array_equal(first[:20], first[20:])
    assert not np.array_equal(first, second)
    assert not np.array_equal(drawn[:8], GroupShuffleSampler(codes, 8, 6).batch(0))


LABELS = np.repeat(np.arange(20), 3).astype(np.int64)
CLASS_CODES = LABELS % 2
EITHER = {
    "pictures": lambda seed: GroupShuffleSampler(codes_of(3, 40, 7), 10, seed),
    "pictures by power": lambda seed: GroupShuffleSampler(codes_of(3, 40, 7), 10, seed, 0.5),
    "classes": lambda seed: GroupClassSampler(LABELS, CLASS_CODES, ["a", "b"], 12, 2, seed),
}


@pytest.mark.parametrize("name", EITHER)
def test_a_batch_is_a_function_of_seed_and_step(name: str) -> None:
    forward = [EITHER[name](3).batch(step) for step in range(40)]
    jumping = EITHER[name](3)
    for step in (*np.random.default_rng(1).permutation(40).tolist(), 39, 0, 20):
        assert np.array_equal(jumping.batch(step), forward[step])
    going_on = EITHER[name](3)
    for step in range(17, 40):
        assert np.array_equal(going_on.batch(step), forward[step])
    assert not np.array_equal(EITHER[name](4).batch(0), forward[0])


# ---- classes


@pytest.mark.parametrize(
    ("classes", "batch", "k"), [((4, 30, 9), 12, 2), ((2, 2), 8, 2), ((5, 6, 7), 60, 4), ((3, 3), 6, 3)]
)
def test_classes_are_spread_evenly(classes: tuple[int, ...], batch: int, k: int) -> None:
    of_class = codes_of(*classes)
    labels = np.repeat(np.arange(len(of_class)), 5).astype(np.int64)
    sampler = GroupClassSampler(labels, of_class[labels], [f"g{g}" for g in range(len(classes))], batch, k, seed=2)
    share = batch // k // len(classes)
    drawn: list[int] = []
    for step in range(50):
        rows = labels[sampler.batch(step)].reshape(-1, k)
        assert (rows == rows[:, :1]).all() and len(set(rows[:, 0].tolist())) == batch // k
        assert Counter(of_class[rows[:, 0]].tolist()) == dict.fromkeys(range(len(classes)), share)
        drawn += rows[:, 0].tolist()
    for group, size in enumerate(classes):
        stream = [label for label in drawn if of_class[label] == group]
        for start in range(0, len(stream) - size + 1, size):
            assert len(set(stream[start : start + size])) == size  # a pass brings every class once


def test_classes_of_one_picture_are_left_out_and_counted() -> None:
    labels = np.array([0, 0, 1, 2, 2, 3, 3, 3, 4], np.int64)
    codes = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1], np.int64)
    sampler = GroupClassSampler(labels, codes, ["a", "b"], 6, 3)
    assert (sampler.left_out, sampler.small) == (2, 2)
    assert {int(label) for step in range(20) for label in labels[sampler.batch(step)]} == {0, 2, 3}


@pytest.mark.parametrize(
    ("batch", "k", "message"),
    [
        (10, 2, "must be a multiple of 4 .*try 8"),
        (2, 2, "must be a multiple of 4 .*try 4"),
        (16, 2, "needs 4 classes.*'b' has 2: lower it to at most 8"),
    ],
)
def test_impossible_shares_name_the_remedy(batch: int, k: int, message: str) -> None:
    labels = np.repeat(np.arange(7), 2).astype(np.int64)
    with pytest.raises(UserError, match=message):
        GroupClassSampler(labels, (labels >= 5).astype(np.int64), ["a", "b"], batch, k)


def test_a_group_without_a_usable_class() -> None:
    labels = np.array([0, 0, 1, 1, 2], np.int64)
    with pytest.raises(UserError, match="'b' has 0: add pictures"):
        GroupClassSampler(labels, (labels == 2).astype(np.int64), ["a", "b"], 4, 2)


# ---- groups


def test_codes_and_the_groups_of_classes() -> None:
    names, codes = group_codes(["b", "a", "b", "c"], "--x")
    assert names == ["a", "b", "c"] and codes.tolist() == [1, 0, 1, 2] and codes.dtype == np.int64
    labels = np.array([2, 0, 2, 0], np.int64)
    assert groups_of_classes(labels, codes).tolist() == [0, -1, 1]  # class 2 is of b, as its first picture


@pytest.mark.parametrize(
    ("groups", "words"),
    [([], "this data has none"), (["a", "", "b"], "1 training pictures"), (["a", "a"], "all are of 'a'")],
)
def test_no_groups(groups: list[str], words: str) -> None:
    with pytest.raises(UserError, match=f"--balance=groups needs .*{words}"):
        group_codes(groups, "--balance=groups")
