from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.data.samplers import (
    AUGMENT,
    ClassSampler,
    QuadrupletSampler,
    ShuffleSampler,
    TripletSampler,
    keyed_rng,
)
from metric_learning.data.sources import ClassIndices


def labels_of(*counts: int) -> NDArray[np.int64]:
    """Class k has counts[k] pictures; the order is mixed, as in life."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)


LABELS = labels_of(*[2 + k % 7 for k in range(23)], 1, 1)
SAMPLERS = {
    "shuffle": lambda seed: ShuffleSampler(len(LABELS), 12, seed),
    "class": lambda seed: ClassSampler(LABELS, 12, 2, seed),
    "class of 4": lambda seed: ClassSampler(LABELS, 36, 4, seed),
    "triplet": lambda seed: TripletSampler(LABELS, 12, seed),
    "quadruplet": lambda seed: QuadrupletSampler(LABELS, 12, seed),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_batch_is_a_function_of_seed_and_step(name: str) -> None:
    forward = [SAMPLERS[name](3).batch(step) for step in range(60)]
    jumping = SAMPLERS[name](3)
    for step in (*np.random.default_rng(1).permutation(60).tolist(), 59, 0, 30):
        assert np.array_equal(jumping.batch(step), forward[step])
    for step in (0, 17, 59):
        assert np.array_equal(SAMPLERS[name](3).batch(step), forward[step])
    assert not np.array_equal(SAMPLERS[name](4).batch(0), forward[0])
    for batch in forward:
        assert batch.dtype == np.int64
        assert len(batch) == len(forward[0])
        assert batch.min() >= 0 and batch.max() < len(LABELS)


def test_keyed_generators_are_apart() -> None:
    first = {keyed_rng(*key).integers(2**62) for key in [(AUGMENT, 0, 0, 0), (0, 0, 0, 0), (AUGMENT, 1, 0, 0)]}
    second = {keyed_rng(*key).integers(2**62) for key in [(AUGMENT, 0, 1, 0), (AUGMENT, 0, 0, 1), (AUGMENT, -1, 0, 0)]}
    assert len(first | second) == 6
    assert keyed_rng(AUGMENT, -1, 5).integers(2**62) != keyed_rng(AUGMENT, -2, 5).integers(2**62)


# ---- ShuffleSampler


@pytest.mark.parametrize(("n", "batch"), [(10, 3), (10, 10), (10, 25), (1, 4), (7, 1)])
def test_shuffle_gives_every_picture_once_an_epoch(n: int, batch: int) -> None:
    sampler = ShuffleSampler(n, batch, seed=5)
    stream = np.concatenate([sampler.batch(step) for step in range(40)])
    epochs = stream[: len(stream) // n * n].reshape(-1, n)
    assert (np.sort(epochs, axis=1) == np.arange(n)).all()
    if n > 1:
        assert any(not np.array_equal(epochs[0], epoch) for epoch in epochs)


@pytest.mark.parametrize(("n", "batch"), [(0, 4), (4, 0)])
def test_shuffle_of_nothing_is_refused(n: int, batch: int) -> None:
    with pytest.raises(UserError):
        ShuffleSampler(n, batch)


# ---- ClassSampler


@pytest.mark.parametrize(
    ("classes", "p"), [(5, 5), (6, 5), (7, 5), (9, 5), (10, 5), (23, 5), (8, 6), (100, 7), (2, 1), (3, 2)]
)
def test_no_class_twice_in_a_batch_and_each_once_an_epoch(classes: int, p: int) -> None:
    labels = labels_of(*[4] * classes)
    sampler = ClassSampler(labels, 2 * p, 2, seed=1)
    assert sampler.classes_per_batch == p
    stream = []
    for step in range(6 * classes):
        batch = labels[sampler.batch(step)].reshape(p, 2)
        assert (batch[:, 0] == batch[:, 1]).all()
        assert len(set(batch[:, 0])) == p
        stream += batch[:, 0].tolist()
    for epoch in range(len(stream) // classes):
        assert sorted(stream[epoch * classes : (epoch + 1) * classes]) == list(range(classes))


@pytest.mark.parametrize("k", [2, 3, 5])
def test_pictures_of_a_class_are_different_and_all_come(k: int) -> None:
    labels = labels_of(5, 6, 11)
    sampler = ClassSampler(labels, 2 * k, k, seed=2)
    seen: Counter[int] = Counter()
    for step in range(90):
        for row in sampler.batch(step).reshape(-1, k):
            assert len(set(row.tolist())) == k
            seen.update(row.tolist())
    assert len(seen) == 22


def test_a_class_gives_its_pictures_in_turn() -> None:
    labels = labels_of(11, 11)
    sampler = ClassSampler(labels, 4, 2, seed=3)
    for cycle in range(4):  # 5 epochs of one batch use up 10 of the 11
        batches = [sampler.batch(5 * cycle + step) for step in range(5)]
        assert len(set(np.concatenate(batches).tolist())) == 20


def test_small_classes_repeat_their_own_and_single_pictures_stay_out() -> None:
    labels = labels_of(1, 2, 3, 8, 1)
    sampler = ClassSampler(labels, 15, 5)
    assert (sampler.left_out, sampler.small) == (2, 2)
    for step in range(20):
        rows = sampler.batch(step).reshape(3, 5)
        assert {int(labels[row[0]]) for row in rows} == {1, 2, 3}
        for row in rows:
            label = int(labels[row[0]])
            assert (labels[row] == label).all()
            assert len(set(row.tolist())) == min(5, {1: 2, 2: 3, 3: 8}[label])


@pytest.mark.parametrize(
    ("batch", "k", "message"),
    [
        (10, 3, "must be a multiple of 3.*try 9"),
        (10, 1, "--samples_each_class must be at least 2"),
        (1, 2, "--train_batch_size must be at least 2"),
        (12, 2, "needs 6 classes.*there are 3: lower --train_batch_size to at most 6"),
    ],
)
def test_impossible_batches_name_the_remedy(batch: int, k: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ClassSampler(labels_of(3, 3, 3, 1), batch, k)


def test_no_usable_class() -> None:
    with pytest.raises(UserError, match="there are 0: add pictures"):
        ClassSampler(labels_of(1, 1, 1), 2, 2)


# ---- tuples


def test_triplets() -> None:
    labels = labels_of(2, 3, 1, 9, 1)
    sampler = TripletSampler(labels, 12, seed=1)
    assert sampler.left_out == 2
    anchors: Counter[int] = Counter()
    negatives: Counter[int] = Counter()
    for step in range(300):
        for a, p, n in sampler.batch(step).reshape(-1, 3):
            assert a != p
            assert labels[a] == labels[p] != labels[n]
            anchors[int(labels[a])] += 1
            negatives[int(labels[n])] += 1
    assert set(anchors.values()) == {400}
    assert set(negatives) == {0, 1, 2, 3, 4}
    # Anchors are of three classes; a single-picture class is a negative of each with chance 1/4.
    assert abs(negatives[2] - 300) < 60


def test_quadruplets_are_of_three_classes() -> None:
    labels = labels_of(2, 3, 1)
    sampler = QuadrupletSampler(labels, 8, seed=1)
    for step in range(50):
        for a, p, first, second in sampler.batch(step).reshape(-1, 4):
            assert a != p
            assert labels[a] == labels[p]
            assert len({int(labels[a]), int(labels[first]), int(labels[second])}) == 3


@pytest.mark.parametrize(
    ("kind", "counts", "batch"),
    [
        (TripletSampler, (3, 3), 10),
        (QuadrupletSampler, (3, 3, 3), 10),
        (TripletSampler, (3,), 3),
        (TripletSampler, (1, 1), 3),
        (QuadrupletSampler, (3, 3), 4),
        (TripletSampler, (3, 3), 0),
    ],
)
def test_impossible_tuples_are_refused(kind: type[TripletSampler], counts: tuple[int, ...], batch: int) -> None:
    with pytest.raises(UserError):
        kind(labels_of(*counts), batch)


def test_classes_without_a_picture_have_no_place() -> None:
    labels = np.array([5, 2, 5, 2, 2, 7], np.int64)
    members = ClassIndices(labels)
    assert len(members) == 8
    assert [rows.tolist() for rows in members] == [[], [], [1, 3, 4], [], [], [0, 2], [], [5]]
    assert all(rows.dtype == np.int64 for rows in members)
