from collections import Counter

import numpy as np
import pytest

from metric_learning.data import samplers
from metric_learning.data.permutation import Permutation
from metric_learning.data.samplers import ShuffleSampler, keyed_rng


def order(n: int, seed: int = 0, epoch: int = 0) -> Permutation:
    return Permutation(n, keyed_rng(0, seed, epoch))


@pytest.mark.parametrize("n", [*range(1, 70), 255, 256, 257, 1000, 4095, 4096, 4097, 65536, 100_003, 262_145])
def test_every_number_comes_once(n: int) -> None:
    found = order(n)[np.arange(n)]
    assert found.dtype == np.int64
    assert (np.bincount(found, minlength=n) == 1).all() and len(found) == n


def test_it_is_computed_where_it_is_asked_for() -> None:
    whole = order(5000, 3)[np.arange(5000)]
    rows = np.random.default_rng(0).permutation(5000)
    assert np.array_equal(order(5000, 3)[rows], whole[rows])
    assert all(int(order(5000, 3)[np.array([place])][0]) == whole[place] for place in (0, 17, 4999))


def test_seeds_and_epochs_give_other_orders() -> None:
    orders = [order(5000, seed, epoch)[np.arange(5000)] for seed, epoch in ((0, 0), (1, 0), (0, 1), (-1, 0))]
    for k, one in enumerate(orders):
        for other in orders[:k]:
            assert (one == other).sum() < 12  # by chance one of them stands at the same place, on average


def test_places_and_neighbours_are_spread_evenly() -> None:
    """Over 3000 keys: each number at each place (chi squared), and who follows whom."""
    n, keys = 12, 3000
    found = np.array([order(n, 1, epoch)[np.arange(n)] for epoch in range(keys)])
    for place in range(n):
        counts = np.bincount(found[:, place], minlength=n)
        assert ((counts - keys / n) ** 2 / (keys / n)).sum() < 40  # 11 degrees of freedom: 1 of 30,000 above
    pairs = Counter(zip(found[:, 3].tolist(), found[:, 4].tolist(), strict=True))
    expected = keys / (n * (n - 1))
    assert sum((pairs[a, b] - expected) ** 2 / expected for a in range(n) for b in range(n) if a != b) < 210


def test_long_orders_look_drawn() -> None:
    n = 1 << 23 | 12345
    rows = np.arange(1_000_000, 1_060_000)
    found = order(n, 5)[rows]
    assert len(np.unique(found)) == len(rows) and found.min() >= 0 and found.max() < n
    counts = np.bincount(found * 60 // n, minlength=60)
    assert ((counts - 1000) ** 2 / 1000).sum() < 110  # 59 degrees of freedom
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.02
    steps = np.diff(found)
    assert (np.abs(steps) < n // 1000).mean() < 0.004  # neighbours stay no neighbours


def test_the_sampler_changes_over_above_its_largest_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "LARGEST", 99)
    assert isinstance(ShuffleSampler(100, 7)._order(0), Permutation)
    assert isinstance(ShuffleSampler(99, 7)._order(0), np.ndarray)
    sampler = ShuffleSampler(100, 7, seed=5)
    stream = np.concatenate([sampler.batch(step) for step in range(100)])
    epochs = stream.reshape(7, 100)
    assert (np.sort(epochs, axis=1) == np.arange(100)).all()
    assert not np.array_equal(epochs[0], epochs[1])
    for step in (99, 3, 0, 50):
        assert np.array_equal(ShuffleSampler(100, 7, seed=5).batch(step), stream[7 * step : 7 * step + 7])


def test_up_to_the_largest_array_the_order_is_as_it_was() -> None:
    """Runs of the versions before are to be resumed bit for bit."""
    assert samplers.LARGEST == 1 << 22
    expected = keyed_rng(samplers.CLASS_ORDER, 3, 1).permutation(1000)
    assert np.array_equal(ShuffleSampler(1000, 100, 3).batch(13), expected[300:400])
