"""Pairs for a pool of class centres: who stands beside whom, how often, and how a batch divides."""

import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.data.pool_sampler import PoolSampler

LABELS = np.array([0] * 5 + [1] * 2 + [2] + [4] * 3 + [5] * 9, np.int64)[np.random.default_rng(0).permutation(20)]


def pairs(sampler, step):
    return sampler.batch(step).reshape(-1, 2)


def test_pairs_of_one_identity_and_pairs_of_any():
    sampler = PoolSampler(LABELS, 18)
    assert sampler.of_identity.sum() == 6 and len(sampler.of_identity) == 9
    for step in range(20):
        rows = pairs(sampler, step)
        same = rows[sampler.of_identity]
        assert (LABELS[same[:, 0]] == LABELS[same[:, 1]]).all()
        single = LABELS[same[:, 0]] == 2
        assert ((same[:, 0] == same[:, 1]) == single).all()  # its only picture twice, nobody else's
    assert sampler.single == 1


def test_every_identity_once_a_pass_and_every_picture_once_a_pass():
    sampler = PoolSampler(LABELS, 30, 1 / 3)  # 5 identities, 20 instances: both are one whole pass
    for step in range(5):
        rows = pairs(sampler, step)
        assert sorted(LABELS[rows[sampler.of_identity][:, 0]]) == [0, 1, 2, 4, 5]
        assert sorted(rows[~sampler.of_identity].ravel()) == list(range(20))


def test_both_pictures_of_a_pair_are_drawn_anew():
    sampler = PoolSampler(LABELS, 10, 1.0)
    found = {tuple(row) for step in range(60) for row in pairs(sampler, step) if LABELS[row[0]] == 1}
    one, two = np.flatnonzero(LABELS == 1)
    assert found == {(one, two), (two, one)}


def test_a_batch_is_a_function_of_seed_and_step():
    first, other = PoolSampler(LABELS, 12, seed=3), PoolSampler(LABELS, 12, seed=3)
    straight = [first.batch(step) for step in range(9)]
    for step in (8, 0, 5):
        np.testing.assert_array_equal(other.batch(step), straight[step])
    assert any((PoolSampler(LABELS, 12, seed=4).batch(s) != straight[s]).any() for s in range(9))


@pytest.mark.parametrize("share", [0.0, 0.3, 2 / 3, 1.0])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes_have_whole_pairs_and_as_many_of_each_kind(share, size):
    sampler = PoolSampler(LABELS, 24, share)
    rows = pairs(sampler, 1).reshape(size, -1, 2)
    kinds = sampler.of_identity.reshape(size, -1)
    counts = kinds.sum(axis=1)
    assert counts.max() - counts.min() <= 1 and counts.sum() == round(share * 12)
    assert rows.shape[1] == 12 // size


def test_more_pairs_than_classes_and_pictures():
    sampler = PoolSampler(np.array([0, 0, 1]), 40)
    assert set(sampler.batch(2)) == {0, 1, 2}


@pytest.mark.parametrize(("size", "share", "match"), [(7, 0.5, "even"), (0, 0.5, "batch_size"), (8, 1.2, "share")])
def test_refused(size, share, match):
    with pytest.raises(UserError, match=match):
        PoolSampler(LABELS, size, share)
