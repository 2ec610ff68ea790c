"""The fitted similarity against a plain twin, its edges, and what a stranger may have done to it."""

import json
import math

import naive_metrics as naive
import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.metrics import calibration, per_group
from metric_learning.metrics.calibration import calibrate, calibrate_all_pairs, strictest
from metric_learning.metrics.cosine import unit_rows
from metric_learning.metrics.similarity import MAX_SLOPE, Calibration, StoredPoint, logistic
from metric_learning.metrics.stored_points import StoredCounts


def log_logistic(x):
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def naive_slope(positives, negatives, threshold):
    """The slope of the highest likelihood by ternary search over plain sums, both kinds of pairs weighing alike."""
    smooth = 1 / (min(len(positives), len(negatives)) + 2)

    def likelihood(slope):
        total = 0.0
        for scores, target in ((positives, 1 - smooth), (negatives, smooth)):
            part = 0.0
            for score in scores:
                x = slope * (float(score) - threshold)
                part += target * log_logistic(x) + (1 - target) * log_logistic(-x)
            total += part / len(scores)
        return total

    low, high = 0.0, MAX_SLOPE
    for _ in range(120):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (a, high) if likelihood(a) < likelihood(b) else (low, b)
    return high


def drawn(seed, positives=60, negatives=90, apart=0.4, spread=0.15):
    rng = np.random.default_rng(seed)
    same, other = rng.normal(apart, spread, positives), rng.normal(0, spread, negatives)
    return np.clip(same, -1, 1), np.clip(other, -1, 1)


# ---- the fit


@pytest.mark.parametrize("seed", range(6))
def test_the_fit_is_that_of_the_plain_twin(seed):
    same, other = drawn(seed, 30 + 20 * seed, 200 - 30 * seed, apart=0.2 + 0.1 * seed)
    far = (0.3, 0.1, 0.02)[seed % 3]
    found = calibrate({"all": (same, other)}, far)
    assert found.point.threshold == naive.loosest_threshold(other.tolist(), found.point.far)
    assert found.slope == pytest.approx(naive_slope(same, other, found.point.threshold), rel=1e-3)
    assert (found.point.positives, found.point.negatives, found.groups) == (len(same), len(other), {})


def test_the_middle_is_the_threshold_to_the_bit_and_the_rest_is_monotone():
    found = calibrate({"all": drawn(1)}, 0.1)
    at = found.point.threshold
    assert found.similarity(at) == 0.5
    assert found.similarity(np.nextafter(at, -1)) < 0.5 < found.similarity(at + 1e-6)
    ladder = found.similarity(np.linspace(-1, 1, 1001))
    assert (np.diff(ladder) > 0).all() and ladder[0] >= 0 and ladder[-1] <= 1
    for cosine in (-0.3, 0.2, 0.9):
        assert found.similarity(cosine) == pytest.approx(1 / (1 + math.exp(-found.slope * (cosine - at))), rel=1e-12)
    share = (np.asarray(drawn(1)[1]) >= at).mean()
    assert share <= 0.1


def test_pairs_of_either_kind_weigh_alike():
    """A thousand copies of every negative change the threshold's rate, not the fit."""
    same, other = drawn(3)
    once = calibrate({"all": (same, other)}, 0.1)
    often = calibrate({"all": (same, np.repeat(other, 1000))}, 0.1)
    assert often.point.threshold == once.point.threshold
    assert often.slope == pytest.approx(once.slope, rel=1e-6)


def test_scores_that_come_apart_have_a_finite_slope():
    found = calibrate({"all": ([0.8, 0.9, 0.7], [0.0, 0.1, -0.2, 0.05])}, 0.25)
    assert found.slope == pytest.approx(
        naive_slope([0.8, 0.9, 0.7], [0.0, 0.1, -0.2, 0.05], found.point.threshold), rel=1e-3
    )
    assert 1 < found.slope < 30 and found.similarity(0.8) > 0.8 and found.similarity(-0.2) < 0.4
    steep = calibrate({"all": (np.full(500, 0.10002), np.full(500, 0.1))}, 0.01)
    assert steep.slope == MAX_SLOPE and steep.similarity(1.0) == 1.0 and steep.similarity(-1.0) == 0.0


def test_the_strictest_rate_that_the_negatives_can_measure():
    assert strictest(1e-3, 1000) == 1e-3 and strictest(1e-3, 5000) == 1e-3
    for count in (2, 3, 7, 10, 49, 93, 999):
        far = strictest(1e-3, count)
        assert far == pytest.approx(1 / count)
        point = calibrate({"all": ([0.9, 0.8], np.linspace(-0.5, 0.5, count))}).point
        assert point.far == far and point.threshold > np.linspace(-0.5, 0.5, count)[-2]


@pytest.mark.parametrize(
    ("same", "other", "words"),
    [
        ([], [0.1, 0.2], "none is positive"),
        ([0.5], [], "0 negative"),
        ([0.5], [0.1], "1 negative"),
        ([0.0, 0.1], [0.5, 0.6], "turned round"),
        ([0.5, 0.5], [0.5, 0.5], "turned round"),
        ([0.5, math.nan], [0.1, 0.2], "finite"),
        ([0.5], [0.1, math.inf], "finite"),
        ([50.0], [0.1, 0.2], "-1..1"),
    ],
)
def test_what_can_not_be_fitted_is_one_line(same, other, words):
    with pytest.raises(UserError, match=words) as caught:
        calibrate({"all": (same, other)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("far", [0.0, 1.0, -0.1, math.nan])
def test_a_rate_outside_0_and_1(far):
    with pytest.raises(UserError, match="between 0 and 1"):
        calibrate({"all": drawn(0)}, far)


def test_millions_of_scores_in_bins_are_fitted_as_one_by_one(monkeypatch):
    same, other = drawn(5, 4000, 9000)
    exact = naive_slope(same[::10], other[::10], 0.3)
    bins = calibration.Bins(), calibration.Bins()
    for part in np.array_split(same[::10], 7):
        bins[0].add(part)
    bins[1].add(other[::10])
    assert calibration.fit_slope(*bins, 0.3) == pytest.approx(exact, rel=1e-4)
    edges = calibration.Bins()
    edges.add(np.array([-1.0005, -1.0, 1.0, 1.0005]))
    assert edges.total == 4 and edges.scores()[1].sum() == 1.0


# ---- groups and all pairs


def test_groups_have_points_of_their_own_where_they_have_the_negatives():
    scores = {"a": drawn(1, 20, 400), "b": drawn(2, 30, 40), "few": drawn(3, 5, 9), "none": ([], [0.0] * 50)}
    found = calibrate(scores, 0.01)
    assert set(found.groups) == {"a", "b", "none"}
    pooled = np.concatenate([other for _, other in scores.values()])
    assert found.point.threshold == naive.loosest_threshold(pooled.tolist(), 0.01)
    for name, far in (("a", 0.01), ("b", 1 / 40)):
        point = found.groups[name]
        assert point.threshold == naive.loosest_threshold(scores[name][1].tolist(), far)
        assert (point.far, point.negatives) == (far, len(scores[name][1]))
        assert found.similarity(point.threshold, name) == 0.5
        assert found.at(name) is point and found.at() is found.point
    with pytest.raises(UserError, match=r"--group must be one of a, b, none; got 'B'\. Did you mean 'b'\?"):
        found.at("B")
    with pytest.raises(UserError, match="without groups"):
        calibrate({"all": drawn(0)}).at("a")


@pytest.mark.parametrize("grouped", [False, True])
def test_all_pairs_are_the_pairs_one_by_one(grouped):
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 8, 60)
    rows = rng.normal(size=(8, 5))[labels] + rng.normal(size=(60, 5))
    groups = np.where(labels % 2, "odd", "even") if grouped else None
    units = unit_rows(rows).astype(np.float64)
    scores = {}
    for i in range(60):
        for j in range(i + 1, 60):
            if not grouped or groups[i] == groups[j]:
                name = groups[i] if grouped else "all"
                scores.setdefault(name, ([], []))[int(labels[i] != labels[j])].append(float(units[i] @ units[j]))
    found, expected = calibrate_all_pairs(rows, labels, groups, 0.02), calibrate(scores, 0.02)
    assert found.slope == pytest.approx(expected.slope, rel=1e-4)
    assert set(found.groups) == set(expected.groups) == ({"odd", "even"} if grouped else set())
    for name in (None, *found.groups):
        one, other = found.at(name), expected.at(name)
        assert one.threshold == pytest.approx(other.threshold, abs=1e-6)
        assert (one.far, one.positives, one.negatives) == (other.far, other.positives, other.negatives)
    with pytest.raises(UserError, match="finite"):
        calibrate_all_pairs(np.where(rows == rows[0, 0], np.nan, rows), labels)
    with pytest.raises(UserError, match="0 negative"):
        calibrate_all_pairs(rows, np.zeros(60, int))
    with pytest.raises(UserError, match="none is positive"):
        calibrate_all_pairs(rows, np.arange(60))


# ---- the stored thresholds on other pairs


def test_stored_thresholds_are_counted_on_other_pairs():
    made = calibrate({"a": drawn(1, 20, 200), "b": drawn(2, 30, 200)}, 0.05)
    other = {"a": drawn(3), "b": drawn(4), "new": drawn(5)}
    counts = StoredCounts(made)
    for name, (same, apart) in other.items():
        for part in range(3):
            counts.add(name, same[part::3], apart[part::3])
    found = counts.figures()
    for name, (same, apart) in other.items():
        assert found.groups[name].tar == (same >= made.point.threshold).mean()
        assert found.groups[name].far == (apart >= made.point.threshold).mean()
        if name != "new":
            assert found.own[name].tar == (same >= made.groups[name].threshold).mean()
            assert found.own[name].far == (apart >= made.groups[name].threshold).mean()
    assert set(found.own) == {"a", "b"}
    assert found.pooled.tar == np.concatenate([same >= made.point.threshold for same, _ in other.values()]).mean()
    empty = StoredCounts(made)
    empty.add("a", np.empty(0), np.array([0.0]))
    assert empty.figures().pooled.tar is None and empty.figures().pooled.far == 0.0
    assert StoredCounts(made).figures().pooled.far is None


# ---- as JSON


def made() -> Calibration:
    found = calibrate({"a": drawn(1, 20, 200), "b": drawn(2, 30, 200)}, 0.05)
    return found.with_notes(date="2026-01-31", flip_test=False, step=None, picture={"shape": [3, 8, 8]})


def test_json_keeps_every_bit():
    one = made()
    assert Calibration.from_dict(json.loads(json.dumps(one.to_dict()))) == one


@pytest.mark.parametrize(
    "damage",
    [
        {"slope": -3.0},
        {"slope": 0.0},
        {"slope": math.nan},
        {"slope": "12"},
        {"slope": True},
        {"slope": 1e9},
        {"slope": None},
        {"point": None},
        {"point": {"threshold": math.inf, "far": 0.1, "positives": 1, "negatives": 10}},
        {"point": {"threshold": 1.5, "far": 0.1, "positives": 1, "negatives": 10}},
        {"point": {"threshold": 0.5, "far": 0.0, "positives": 1, "negatives": 10}},
        {"point": {"threshold": 0.5, "far": 0.1, "positives": 1.5, "negatives": 10}},
        {"point": {"threshold": 0.5, "far": 0.1, "positives": 1, "negatives": -1}},
        {"groups": []},
        {"groups": {"a": 3}},
        {"groups": {"a\n\x1b[2J": {"threshold": 0.5, "far": 0.1, "positives": 1, "negatives": 10}}},
        {"fitted": "words"},
        {"fitted": {"pairs": "all\nof them"}},
        {"fitted": {"pairs": ["a"]}},
    ],
)
def test_what_was_edited_is_refused(damage):
    with pytest.raises(ValueError, match=r"."):
        Calibration.from_dict(made().to_dict() | damage)


@pytest.mark.parametrize("saved", [None, 3, "text", [], {}])
def test_what_is_no_calibration_is_refused(saved):
    with pytest.raises(ValueError, match="no table"):
        Calibration.from_dict(saved)


def test_logistic_does_not_overflow():
    assert logistic([-1e6, -800, 0, 800, 1e6]).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert Calibration(3.0, StoredPoint(0.25, 0.1, 1, 10)).similarity([[0.25], [1]]).shape == (2, 1)


def test_thresholds_are_those_of_the_report():
    scores = {"a": drawn(1, 20, 200), "b": drawn(2, 30, 200)}
    assert calibrate(scores, 0.05).point.threshold == per_group(scores, (0.05,)).pooled[0].threshold
