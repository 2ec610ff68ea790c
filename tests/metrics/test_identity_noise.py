"""Identities: centres and suspects against loops, small classes by hand, people moved on purpose."""

import tracemalloc
from unittest import mock

import naive_noise as naive
import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.metrics import identity_noise
from metric_learning.metrics.identity_noise import identity_errors, most_central


def people(count: int, each: int, size: int = 32, spread: float = 0.6, seed: int = 0):
    """Embeddings (count * each, size) round a direction a person, lengths from 0.1 to 10, and labels."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(count, size))
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    labels = np.repeat(np.arange(count), each)
    rows = middles[labels] + spread * rng.normal(size=(len(labels), size)) / np.sqrt(size)
    return (rows * rng.uniform(0.1, 10, (len(rows), 1))).astype(np.float32), labels


@pytest.mark.parametrize("at_once", [1, 5, 1024])
@pytest.mark.parametrize("seed", range(8))
def test_against_the_loops(seed, at_once):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 70))
    labels = rng.integers(0, int(rng.integers(1, 12)), count)
    rows = rng.normal(size=(12, 6))[labels] + rng.normal(size=(count, 6)) * 0.8
    with mock.patch.object(identity_noise, "ROWS_AT_ONCE", at_once):
        found = identity_errors(rows, labels, far=1.5, close=1.0)
    own, other, whose, suspects, pairs = naive.identity_errors(rows.tolist(), labels.tolist(), 1.5, 1.0)
    assert found.own == pytest.approx([own[i] for i in range(count)], abs=1e-6)
    assert found.other == pytest.approx([other[i] for i in range(count)], abs=1e-6)
    names = [None if place < 0 else found.classes[place] for place in found.other_class]
    assert names == [whose[i] for i in range(count)]
    assert list(zip(found.suspects.tolist(), found.reasons, strict=True)) == suspects
    assert {(found.classes[a], found.classes[b]): c for a, b, c in found.close} == pytest.approx(pairs, abs=1e-6)
    assert all(a.cosine >= b.cosine for a, b in zip(found.close, found.close[1:], strict=False))


def test_moved_pictures_are_found_with_whose_they_are():
    rows, truth = people(30, 12)
    rng = np.random.default_rng(1)
    moved = rng.choice(len(truth), 18, replace=False)
    labels = truth.copy()
    labels[moved] = (truth[moved] + rng.integers(1, 30, 18)) % 30
    found = identity_errors(rows, labels)
    first = found.suspects[:18]
    assert set(first.tolist()) == set(moved.tolist()) and set(found.reasons[:18]) == {"nearer"}
    assert (found.other_class[first] == truth[first]).all()
    assert (found.suspicion[found.suspects] > 0).all() and (np.diff(found.suspicion[found.suspects]) <= 0).all()


def test_strangers_are_far():
    rows, labels = people(20, 10, size=64)
    stranger = np.random.default_rng(5).normal(size=(3, 64))
    found = identity_errors(np.concatenate([rows, stranger]), np.concatenate([labels, [0, 7, 12]]))
    assert set(found.suspects[:3].tolist()) == {200, 201, 202} and found.reasons[:3] == ["far"] * 3


def test_wrong_pictures_do_not_pull_the_centre():
    """Three of twelve are of ONE other person: the mean goes a quarter of the way to them, the centre does not."""
    rows, labels = people(8, 12, spread=0.3)
    labels[12:15] = 0  # class 0 has fifteen now, three of them of class 1
    found = identity_errors(rows, labels)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pure = units[:12].sum(axis=0) / np.linalg.norm(units[:12].sum(axis=0))
    mean = units[:15].sum(axis=0) / np.linalg.norm(units[:15].sum(axis=0))
    assert found.centres[0] @ pure > 0.99 > mean @ pure
    assert set(found.suspects[:3].tolist()) == {12, 13, 14}


def test_two_folders_of_one_person():
    rows, labels = people(20, 8)
    labels = np.where(np.arange(len(labels)) >= 156, 99, labels)  # the last four of person 19
    found = identity_errors(rows, labels)
    (pair,) = found.close
    assert {int(found.classes[pair.first]), int(found.classes[pair.second])} == {19, 99}
    nearer = np.flatnonzero((found.other > found.own) & (labels >= 19))
    assert len(nearer) and not set(nearer.tolist()) & set(found.suspects.tolist())  # nobody is wrong in either


def two(*rows: tuple[float, ...]):
    """Three classes of five about the axes of five dimensions, and rows of a class of their own, 9."""
    rng = np.random.default_rng(0)
    sure = np.eye(5)[np.repeat([0, 1, 2], 5)] + 0.1 * rng.normal(size=(15, 5))
    return np.concatenate([sure, np.array(rows)]), np.concatenate([np.repeat([0, 1, 2], 5), [9] * len(rows)])


def test_of_a_class_of_two_the_one_that_is_somebody_elses():
    found = identity_errors(*two((1, 0, 0, 0, 0), (0, 0, 0, 1, 0)))
    assert found.suspects.tolist() == [15] and found.reasons == ["nearer"]
    assert found.own[15] == pytest.approx(0) and found.own[16] == pytest.approx(0)


def with_far_at(cosine: float, rows: np.ndarray, labels: np.ndarray):
    """The errors where far and close are about at this cosine."""
    at_median, one_below = (identity_errors(rows, labels, far=below).far_cosine for below in (0, 1))
    below = (at_median - cosine) / (at_median - one_below)
    return identity_errors(rows, labels, far=below, close=below)


@pytest.mark.parametrize("others", [1, 4])
def test_a_class_is_not_close_to_whom_a_few_of_it_are(others):
    """One of two, two of six: they pull the centre so near that its cosine alone would call the classes close."""
    strange = [(0, 0, 0, 1, 0)] * others
    found = with_far_at(0.1, *two(*[(1, 0, 0, 0, 0)] * (1 if others == 1 else 2), *strange))
    assert found.centres[3] @ found.centres[0] > found.close_cosine and found.close == []
    assert 15 in found.suspects.tolist() and found.reasons[0] == "nearer"


def test_of_a_class_of_two_that_do_not_match_both():
    found = identity_errors(*two((0, 0, 0, 0, 1), (0, 0, 0, 1, 0)))
    assert sorted(found.suspects.tolist()) == [15, 16] and found.reasons == ["pair", "pair"]
    found = identity_errors(*two((1, 0, 0, 0, 0), (0, 1, 0, 0, 0)))
    assert sorted(found.suspects.tolist()) == [15, 16] and found.reasons == ["nearer", "nearer"]
    assert identity_errors(*two((0, 0, 0, 0, 1), (0, 0, 0, 0.1, 1))).suspects.tolist() == []


def test_a_picture_alone_is_not_judged_but_its_class_may_be_close():
    found = identity_errors(*two((1, 0, 0, 0, 0)))
    assert found.suspects.tolist() == [] and found.own[15] == np.inf and found.suspicion[15] == -np.inf
    assert [(found.classes[a], found.classes[b]) for a, b, _ in found.close] == [(0, 9)]


def test_nothing_to_compare_with():
    none = identity_errors(np.ones((0, 3)), [])
    assert none.suspects.tolist() == [] and none.close == [] and none.far_cosine is None
    alone = identity_errors(np.eye(3), ["a", "b", "c"])
    assert alone.suspects.tolist() == [] and alone.close == [] and alone.far_cosine is None
    one = identity_errors([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [-1.0, 0.0]], [5, 5, 5, 5])
    assert one.other_class.tolist() == [-1] * 4 and np.isinf(one.other).all()
    assert one.suspects[0] == 3 and one.reasons[0] == "far" and one.close == []


def test_equal_and_zero_embeddings():
    same = identity_errors(np.ones((6, 4)), [0, 0, 0, 1, 1, 1])
    assert same.suspects.tolist() == [] and len(same.close) == 1  # rounding alone accuses nobody
    nearly = 1 + 1e-6 * np.random.default_rng(0).normal(size=(50, 64))
    assert identity_errors(nearly, np.zeros(50), far=1).suspects.tolist() == []
    zero = identity_errors(np.concatenate([np.ones((4, 3)), np.zeros((1, 3))]), [0, 0, 0, 1, 0])
    assert zero.own[4] == 0 and not np.isnan(zero.other).any()


def test_labels_may_be_names_and_the_order_is_nothing():
    rows, labels = people(10, 6)
    labels[3] = 5
    names = np.array([f"näme {label}" for label in labels])
    order = np.random.default_rng(0).permutation(len(labels))
    found, mixed = identity_errors(rows, labels), identity_errors(rows[order], names[order])
    assert order[mixed.suspects].tolist() == found.suspects.tolist()
    assert mixed.own == pytest.approx(found.own[order])


def test_the_picture_in_the_middle():
    rows, labels = people(3, 5)
    found = identity_errors(rows, labels)
    middle = most_central(found, rows, 1)
    cosines = [naive.dot(naive.unit(rows[i].tolist()), found.centres[1].tolist()) for i in range(5, 10)]
    assert middle == 5 + int(np.argmax(cosines))
    assert most_central(found, rows, 1, but=middle) not in (None, middle)
    assert most_central(identity_errors(*two((1, 0, 0, 0, 0))), two((1, 0, 0, 0, 0))[0], 3, but=15) is None


def test_many_classes_take_bounded_memory():
    rows, labels = people(3000, 3, size=8)  # a whole matrix of cosines would be 108 MB
    tracemalloc.start()
    found = identity_errors(rows, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6 and len(found.classes) == 3000


@pytest.mark.parametrize(
    ("rows", "labels", "changed", "said"),
    [
        ([[1.0, np.nan]], [0], {}, "row 0 is not"),
        ([1.0], [0], {}, "array of real numbers"),
        ([[1.0]], [0, 1], {}, "one a row"),
        ([[1.0]], [0], {"far": -1.0}, "far must be at least 0"),
        ([[1.0]], [0], {"close": np.nan}, "close must be at least 0"),
    ],
)
def test_what_does_not_match_is_refused(rows, labels, changed, said):
    with pytest.raises(UserError, match=said):
        identity_errors(rows, labels, **changed)
