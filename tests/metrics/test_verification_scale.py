"""All pairs in many tiles, with windows around the thresholds, over several processes: the same figures, to the bit."""

import numpy as np
import pytest
from teams import run_team
from test_verification import FARS, tied_scores

from metric_learning.metrics import pairs, scores, stream
from metric_learning.metrics.pairs import all_pairs
from metric_learning.metrics.scores import Tally
from metric_learning.metrics.similarity import Calibration, StoredPoint
from metric_learning.metrics.stored_points import StoredCounts
from metric_learning.metrics.windows import MissedError, Windows, joined_windows, windows_around


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(scores, "BUFFERED", 64)
    monkeypatch.setattr(stream, "MOST_BUFFERED", 64)
    monkeypatch.setattr(pairs, "ROWS", 8)
    monkeypatch.setattr(pairs, "COLUMNS", 16)
    monkeypatch.setattr(pairs, "AT_ONCE", 3)


def faces(n=300, seed=0, size=6):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) // 6)
    x = rng.standard_normal((n, size))[labels] + 0.7 * rng.standard_normal((n, size))
    return x.astype(np.float32), labels, rng.choice(["x", "y", "z"], n, p=[0.6, 0.3, 0.1])


def same(a, b):
    """Equal to the bit, curves included."""
    assert (a.pooled, a.at_global, a.own_summary, a.global_summary) == (
        b.pooled,
        b.at_global,
        b.own_summary,
        b.global_summary,
    )
    assert list(a.groups) == list(b.groups)
    for name, one in a.groups.items():
        other = b.groups[name]
        assert (one.points, one.eer, one.auc) == (other.points, other.eer, other.auc)
        assert (one.positives, one.negatives) == (other.positives, other.negatives)
        np.testing.assert_array_equal(one.roc_far, other.roc_far)
        np.testing.assert_array_equal(one.roc_tar, other.roc_tar)


# ---- windows


@pytest.mark.parametrize("seed", range(20))
def test_windows_say_what_a_tally_says_or_that_they_do_not_know(seed):
    rng = np.random.default_rng(seed)
    values = np.sort(tied_scores(rng, 60 + seed).astype(np.float32))
    low, high = np.float32(-0.5), np.float32(0.25)
    edges = np.array([[low, high], [0.75, np.inf]], np.float32)
    window, tally = Windows(edges), Tally(None, np.float32)
    for part in np.array_split(values, 4):
        window.add(part)
        tally.add(part)
    for rank in range(1, values.size + 1):
        value = values[::-1][rank - 1]
        if low <= value < high or value >= 0.75:
            assert window.largest(rank) == tally.largest(rank) == value
        else:
            with pytest.raises(MissedError):
                window.largest(rank)
    for score in np.arange(-1.0, 1.25, 0.125):
        if low <= score <= high or score >= 0.75:
            assert window.at_least(score) == np.count_nonzero(values >= score)
        else:
            with pytest.raises(MissedError):
                window.at_least(score)
    assert joined_windows([window, window]).at_least(0.75) == 2 * np.count_nonzero(values >= 0.75)


def test_windows_hold_the_thresholds_of_what_was_sampled():
    negatives = np.random.default_rng(0).normal(0, 0.05, 10**6).astype(np.float32)
    fars = (0.1, 1e-3, 1e-5, 1e-6)
    edges = windows_around([negatives[::10]], fars)
    assert (np.diff(edges.ravel()) > 0).all()
    for far in fars:
        threshold = np.sort(negatives)[::-1][int(far * negatives.size)]
        assert ((edges[:, 0] <= threshold) & (threshold < edges[:, 1])).any()
    kept = ((negatives[:, None] >= edges[:, 0]) & (negatives[:, None] < edges[:, 1])).any(axis=1)
    assert kept.mean() < 0.04


# ---- all pairs


@pytest.mark.parametrize("curves", [True, False])
def test_a_sample_changes_no_figure(curves, small, monkeypatch):
    x, labels, groups = faces()
    whole = all_pairs(x, labels, groups, FARS, curves=curves)
    monkeypatch.setattr(pairs, "MANY", 0)
    monkeypatch.setattr(pairs, "SAMPLED", 100)
    once = pairs._AllPairs.streams
    monkeypatch.setattr(
        pairs._AllPairs, "streams", lambda self, edges, *rest: once(self, edges[:], *rest)
    )  # never None
    same(all_pairs(x, labels, groups, FARS, curves=curves), whole)


def test_a_sample_that_misleads_costs_a_second_pass_and_nothing_else(small, monkeypatch):
    x, labels, groups = faces()
    seen, done = [0, 0], []
    whole = all_pairs(x, labels, groups, FARS)
    monkeypatch.setattr(pairs, "MANY", 0)
    monkeypatch.setattr(pairs, "windows_around", lambda *_: np.array([[0.9, 0.91]], np.float32))

    def watch(name, positives, negatives):
        seen[0] += positives.size
        seen[1] += negatives.size

    same(all_pairs(x, labels, groups, FARS, watch=watch, progress=done.append), whole)
    assert sum(seen) == sum(group.positives + group.negatives for group in whole.groups.values())
    assert seen[0] == sum(group.positives for group in whole.groups.values())
    assert sum(done) == len(x)


def test_without_curves_all_but_eer_auc_and_roc_is_there(small):
    x, labels, groups = faces()
    whole, short = all_pairs(x, labels, groups, FARS), all_pairs(x, labels, groups, FARS, curves=False)
    assert (whole.pooled, whole.at_global) == (short.pooled, short.at_global)
    for name, group in short.groups.items():
        assert group.points == whole.groups[name].points
        assert (group.eer, group.auc, group.roc_far.size) == (None, None, 0)


def test_nan_is_refused_and_one_class_one_picture_and_nothing_are_not(small, monkeypatch):
    monkeypatch.setattr(pairs, "MANY", 0)
    x, labels, _ = faces(20)
    one_class = all_pairs(x, np.zeros(20), fars=(0.5,)).groups["all"]
    assert (one_class.positives, one_class.negatives, one_class.auc) == (190, 0, None)
    assert all_pairs(x[:1], labels[:1], fars=(0.5,)).groups["all"].positives == 0
    assert all_pairs(x[:0], labels[:0], fars=(0.5,)).groups == {}
    copies = all_pairs(np.ones((20, 3)), labels, fars=(0.5,)).groups["all"]
    assert (copies.auc, copies.eer, copies.points[0].far) == (0.5, 0.5, 0.0)


def test_against_everything_sorted(small, monkeypatch):
    monkeypatch.setattr(pairs, "MANY", 0)
    x, labels, _ = faces(200)
    found = all_pairs(x, labels, fars=FARS)
    units = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    every = (units @ units.T)[np.triu_indices(200, 1)]
    other = np.sort(every[(labels[:, None] != labels)[np.triu_indices(200, 1)]])[::-1]
    for point in found.pooled:
        assert point.threshold == pytest.approx(other[int(point.target_far * other.size)], abs=1e-6)


# ---- several processes


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("many", [0, 10**9])
def test_several_processes_give_the_figures_of_one(size, many, small, monkeypatch):
    monkeypatch.setattr(pairs, "MANY", many)
    monkeypatch.setattr(pairs, "SAMPLED", 100)
    x, labels, groups = faces()
    points = Calibration(1.0, StoredPoint(0.5, 0.1, 10, 10), {"y": StoredPoint(0.4, 0.1, 10, 10)}, {})
    counts = StoredCounts(points)
    alone = all_pairs(x, labels, groups, FARS, watch=counts.add)

    def job(team):
        mine = StoredCounts(points)
        found = all_pairs(x, labels, groups, FARS, watch=mine.add, team=team)
        mine.gather(team)
        return found, mine.figures()

    for found, figures in run_team(size, job):
        same(found, alone)
        assert figures == counts.figures()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_tiles_are_dealt_out_evenly(size, small):
    codes = np.sort(np.arange(300) // 6)
    alone = run_team(1, lambda team: list(pairs.Tiles(codes, team)))[0]
    shares = run_team(size, lambda team: list(pairs.Tiles(codes, team)))
    assert sorted(tile for share in shares for tile in share) == sorted(alone)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
