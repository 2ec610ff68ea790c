"""Accuracy over folds and at the best threshold, against loops; ties, one kind only, too few, no numbers."""

import math
import time

import naive_metrics as naive
import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.metrics import best_accuracy, ten_fold_accuracy


def test_ten_fold_by_hand():
    # Two folds of three. Trained on the second (.5+ .4- .1-): .5 is right three times. On the first (.9+ .6- .2+):
    # from the bottom, .2 is right twice, .6 once, .9 twice, none once; the first best is .2.
    found = ten_fold_accuracy([0.9, 0.6, 0.2, 0.5, 0.4, 0.1], [1, 0, 1, 1, 0, 0], folds=2)
    assert found.thresholds == (0.5, 0.2)
    assert found.accuracies == (1 / 3, 2 / 3)
    assert found.mean == pytest.approx(1 / 2)
    assert found.std == pytest.approx(1 / 6)


@pytest.mark.parametrize("seed", range(10))
def test_ten_fold_against_the_loops(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(10, 60))
    values, same = rng.integers(-4, 5, n) / 4, rng.integers(0, 2, n) if seed else np.zeros(n, int)
    found = ten_fold_accuracy(values, same)
    expected = naive.fold_accuracies(values.tolist(), same.tolist(), 10)
    assert list(found.accuracies) == expected
    assert found.mean == pytest.approx(sum(expected) / 10)
    assert found.std == pytest.approx(math.sqrt(sum((a - found.mean) ** 2 for a in expected) / 10))
    assert all(math.isfinite(threshold) for threshold in found.thresholds)


def test_ten_fold_of_too_few():
    assert ten_fold_accuracy([0.5] * 9, [1] * 9).mean is None
    assert ten_fold_accuracy([], []).accuracies == ()
    with pytest.raises(UserError, match="at least 2"):
        ten_fold_accuracy([0.5], [1], folds=1)


@pytest.mark.parametrize("seed", range(10))
def test_folds_given_pair_by_pair_against_the_loops(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    values, same = rng.integers(-4, 5, n) / 4, rng.integers(0, 2, n) if seed else np.ones(n, int)
    folds = rng.integers(0, 4, n) * 7
    folds[:2] = 0, 7
    found = ten_fold_accuracy(values, same, folds)
    assert list(found.accuracies) == naive.fold_accuracies(values.tolist(), same.tolist(), folds.tolist())


def test_numbered_folds_are_those_that_are_counted_out():
    rng = np.random.default_rng(3)
    values, same = rng.normal(size=60).astype(np.float32), rng.integers(0, 2, 60)
    assert ten_fold_accuracy(values, same, 10) == ten_fold_accuracy(values, same, np.arange(60) // 6)


def test_the_file_order_of_folds_matters_and_that_within_does_not():
    rng = np.random.default_rng(4)
    values, same = rng.normal(size=40), rng.integers(0, 2, 40)
    within = np.concatenate([rng.permutation(4) + 4 * f for f in range(10)])
    assert ten_fold_accuracy(values[within], same[within]) == ten_fold_accuracy(values, same)
    across = rng.permutation(40)
    assert ten_fold_accuracy(values[across], same[across]) != ten_fold_accuracy(values, same)


def test_one_kind_of_pairs_only():
    values = np.arange(20) / 20
    found = ten_fold_accuracy(values, np.ones(20))
    # The lowest score of the others is the first best, so only the first fold, all below it, is rejected.
    assert found.accuracies == (0.0, *[1.0] * 9) and found.thresholds[:2] == (0.1, 0.0)
    found = ten_fold_accuracy(values, np.zeros(20))
    assert found.accuracies == (*[1.0] * 9, 0.0)
    assert found.thresholds[0] == np.nextafter(0.95, 1) and found.thresholds[9] == np.nextafter(0.85, 1)


def test_scores_that_are_all_one():
    found = ten_fold_accuracy([0.5] * 20, [1] * 12 + [0] * 8)
    assert found.thresholds == (0.5,) * 10 and found.mean == pytest.approx(0.6)


def test_pairs_of_one_fold_only_have_no_accuracy():
    assert ten_fold_accuracy([0.1, 0.2], [0, 1], [3, 3]) == ten_fold_accuracy([], [], [])
    assert ten_fold_accuracy([], [], []).mean is None


@pytest.mark.parametrize("seed", range(10))
def test_best_accuracy_against_the_loops(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    values, same = rng.integers(-4, 5, n) / 4, (rng.integers(0, 2, n) if seed > 1 else np.full(n, seed))
    right, threshold = naive.best_threshold(values.tolist(), same.tolist())
    found = best_accuracy(values, same)
    assert found.accuracy == right / n
    assert found.threshold == (np.nextafter(values.max(), 9) if threshold == math.inf else threshold)


def test_best_accuracy_by_hand():
    found = best_accuracy([0.9, 0.6, 0.4, 0.2], [1, 0, 1, 0])
    assert (found.accuracy, found.threshold) == (0.75, 0.4)
    assert best_accuracy([], []).accuracy is None and best_accuracy([], []).threshold is None
    assert best_accuracy(np.float32([0.5]), [0]).threshold == float(np.nextafter(np.float32(0.5), np.float32(1)))


@pytest.mark.parametrize("measure", [ten_fold_accuracy, best_accuracy])
def test_what_is_no_score_or_answer_is_refused(measure):
    for wrong in (math.nan, math.inf):
        with pytest.raises(UserError, match="scores must be finite; number 3"):
            measure([0.5] * 3 + [wrong] + [0.1] * 20, [1] * 24)
    with pytest.raises(UserError, match="same must be one a row"):
        measure([0.5, 0.1], [1])
    with pytest.raises(UserError, match="same must be 0 or 1"):
        measure([0.5, 0.1], [1, -1])


def test_wrong_folds_are_refused():
    with pytest.raises(UserError, match="folds must be one a row"):
        ten_fold_accuracy([0.5, 0.1], [1, 0], [0])
    with pytest.raises(UserError, match="at least 2"):
        ten_fold_accuracy([0.5] * 9, [1] * 9, 0)


def test_a_million_pairs_take_seconds():
    rng = np.random.default_rng(0)
    same = rng.integers(0, 2, 10**6)
    scores = (rng.normal(size=10**6) + 2 * same).astype(np.float32)
    started = time.perf_counter()
    found = ten_fold_accuracy(scores, same)
    assert found.mean == pytest.approx(0.8413, abs=2e-3)  # of two normals two apart: Phi(1)
    assert time.perf_counter() - started < 10
