import math

import naive_metrics as naive
import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.metrics import pairs, scores
from metric_learning.metrics.groups import grouped_result, per_group
from metric_learning.metrics.pairs import all_pairs, scores_of_pairs
from metric_learning.metrics.scores import Tally, allowed, needed
from metric_learning.metrics.stream import ScoreStream
from metric_learning.metrics.verification import stream_result, verification_metrics

FARS = (0.5, 0.3, 0.1, 0.01)


@pytest.fixture
def small_buffers(monkeypatch):
    monkeypatch.setattr(scores, "BUFFERED", 8)


def tied_scores(rng, most=40):
    return rng.integers(-4, 5, rng.integers(0, most)) / 4


def assert_point(point, positives, negatives, threshold, needs):
    assert point.threshold == threshold
    assert point.needs == needs
    if threshold is None:
        assert point.far is point.tar is point.frr is None
        return
    assert point.far == float(naive.share_accepted(negatives, threshold))
    tar = naive.share_accepted(positives, threshold) if positives else None
    assert point.tar == (None if tar is None else float(tar))
    assert point.frr == (None if tar is None else float(1 - tar))


def above_in_float32(score):
    return float(np.nextafter(np.float32(score), np.float32(2)))


def above(score):
    return math.nextafter(score, math.inf)


def assert_result(result, positives, negatives, fars=FARS, above=above):
    positives, negatives = [float(s) for s in positives], [float(s) for s in negatives]
    assert (result.positives, result.negatives) == (len(positives), len(negatives))
    for point, far in zip(result.points, fars, strict=True):
        threshold = naive.loosest_threshold(negatives, far, above)
        assert_point(point, positives, negatives, threshold, None if threshold is not None else round(1 / far + 0.4999))
    assert result.auc == naive.area_under_curve(positives, negatives)
    assert result.eer == naive.equal_error_rate(positives, negatives)


def test_worked_by_hand():
    # Negatives from the top: .9 .6 .6 .4 .3 .2 .1 0 -.1 -.2; positives .9 .8 .6 .5 .1.
    positives, negatives = [0.8, 0.1, 0.9, 0.6, 0.5], [0.1, 0.2, 0.6, 0.0, 0.9, 0.3, -0.1, 0.6, -0.2, 0.4]
    result = verification_metrics(positives, negatives, fars=(0.1, 0.2, 0.3, 0.09))
    tenth, fifth, third, less = result.points
    # One of ten may pass: blocked by .6, the second; its tie with the third matters not. .9 and .8 are above.
    assert tenth.threshold == math.nextafter(0.6, 1)
    assert (tenth.far, tenth.tar) == (0.1, 2 / 5)
    # Two of ten: blocked by the third, .6 again; accepting it would make three of ten.
    assert (fifth.threshold, fifth.far, fifth.tar) == (tenth.threshold, 0.1, 2 / 5)
    # Three of ten: blocked by .4.
    assert third.threshold == math.nextafter(0.4, 1)
    assert (third.far, third.tar, third.frr) == (0.3, 4 / 5, 1 / 5)
    assert (less.threshold, less.tar, less.needs) == (None, None, 12)
    # Negatives below each positive, ties half: .9: 9.5, .8: 9, .6: 8, .5: 7, .1: 3.5.
    assert result.auc == pytest.approx(37 / 50)
    # Above .1 FRR is 1/5, FAR falls to 3/10 past .4 still above; above .5 FRR is 2/5: it jumps through FAR = 3/10.
    assert result.eer == pytest.approx(0.3)
    assert result.roc_far.tolist() == [0.1, 0.3, 0.7]
    assert result.roc_tar.tolist() == [2 / 5, 4 / 5, 1.0]


def test_equal_error_rate_where_only_far_jumps_and_at_a_tie():
    # FRR rests at 1/2 between .2 and .8 while FAR falls from 1 to 0 past .5.
    assert verification_metrics([0.2, 0.8], [0.5], fars=(0.5,)).eer == 0.5
    # All tied: FRR goes 0 -> 1 while FAR goes 1 -> 0.
    assert verification_metrics([0.5] * 3, [0.5] * 7, fars=(0.5,)).eer == 0.5
    # At the tie FRR goes 0 -> 1/2 and FAR 1/4 -> 0: from (0, 1/4) a share 1/3 of the way, 1/6.
    assert verification_metrics([0.5, 0.9], [0.5, 0.1, 0.1, 0.1], fars=(0.5,)).eer == pytest.approx(1 / 6)


@pytest.mark.parametrize("seed", range(40))
def test_against_the_loops_with_ties_and_empty_sides(seed, small_buffers):
    rng = np.random.default_rng(seed)
    same, other = tied_scores(rng, 1 + seed), tied_scores(rng, 40)
    assert_result(verification_metrics(same, other, FARS), same, other)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_against_the_loops_without_ties(dtype):
    rng = np.random.default_rng(5)
    same, other = rng.normal(0.5, 0.3, 60).astype(dtype), rng.normal(0, 0.3, 150).astype(dtype)
    result = verification_metrics(same, other, FARS)
    wide = dtype if dtype != np.float16 else np.float32
    for point, far in zip(result.points, FARS, strict=True):
        blocker = np.sort(other)[::-1][int(far * 150)].astype(wide)
        assert point.threshold == np.nextafter(blocker, wide(2))
        assert point.tar == np.mean(same >= wide(point.threshold))
    assert result.auc == naive.area_under_curve(same.tolist(), other.tolist())
    assert result.eer == naive.equal_error_rate(same.tolist(), other.tolist())


@pytest.mark.parametrize("announced", [None, 2500, 4000])
def test_any_chunks_give_one_result(announced, small_buffers):
    rng = np.random.default_rng(2)
    same, other = np.round(rng.normal(0.4, 0.3, 300), 2), np.round(rng.normal(0, 0.3, 2500), 2)
    whole = verification_metrics(same, other, FARS)
    for chunk in (1, 7, 1000):
        stream = ScoreStream(same, max(FARS), announced)
        for start in range(0, 2500, chunk):
            stream.add(other[start : start + chunk])
        result = stream_result(stream, FARS)
        assert (result.points, result.eer, result.auc) == (whole.points, whole.eer, whole.auc)
        np.testing.assert_array_equal(result.roc_far, whole.roc_far)
        np.testing.assert_array_equal(result.roc_tar, whole.roc_tar)
    assert stream.top.values.size < 120 or announced is None


def test_a_stream_can_be_asked_on_the_way():
    stream = ScoreStream([0.5, 0.7], 0.5)
    assert stream_result(stream, (0.5,)).auc is None
    stream.add([0.6])
    assert stream_result(stream, (0.5,)).auc == 0.5
    stream.add([0.1, 0.2])
    assert_result(stream_result(stream, (0.5,)), [0.5, 0.7], [0.6, 0.1, 0.2], (0.5,))


def test_memory_stays_with_the_highest_negatives(small_buffers):
    tally = Tally(keep=10)
    for start in range(0, 5000, 50):
        tally.add(np.arange(start, start + 50, dtype=np.float64))
        assert tally.values.size <= 10
    assert [tally.largest(rank) for rank in (1, 10)] == [4999, 4990]
    assert tally.at_least(4995) == 5


def test_roc_points_are_exact_and_few():
    rng = np.random.default_rng(4)
    same, other = np.round(rng.normal(0.4, 0.3, 4000), 3), np.round(rng.normal(0, 0.3, 9000), 3)
    result = verification_metrics(same, other)
    assert 100 < result.roc_far.size <= 300
    assert (np.diff(result.roc_far) > 0).all()
    assert (np.diff(result.roc_tar) > 0).all()
    assert result.roc_tar[-1] == 1
    for far, tar in list(zip(result.roc_far, result.roc_tar, strict=True))[::10]:
        threshold = np.sort(same)[round((1 - tar) * same.size)]
        assert (np.mean(other >= threshold), np.mean(same >= threshold)) == (far, pytest.approx(tar))


def test_roc_runs_from_no_false_accept_to_all():
    result = verification_metrics([-0.5, 0.5, 0.9], [0.6, 0.1, 0.0])
    assert result.roc_far.tolist() == [0, 1 / 3, 1]
    assert result.roc_tar.tolist() == [1 / 3, 2 / 3, 1]


def test_rates_are_read_as_decimals():
    assert allowed(0.29, 100) == 29
    assert allowed(1e-4, 9999) == 0
    assert allowed(1e-4, 10000) == 1
    assert [needed(far) for far in (1e-4, 0.3, 0.5, 1e-9)] == [10000, 4, 2, 10**9]


def test_empty_sides_are_none():
    nobody = verification_metrics([], [], FARS)
    assert_result(nobody, [], [])
    assert nobody.eer is nobody.auc is None
    assert nobody.roc_far.size == 0
    assert_result(verification_metrics([0.5], [], FARS), [0.5], [])
    assert_result(verification_metrics([], [0.5, 0.2], FARS), [], [0.5, 0.2])


@pytest.mark.parametrize("seed", range(10))
def test_groups_at_a_global_threshold(seed, small_buffers):
    rng = np.random.default_rng(seed)
    by_group = {name: (tied_scores(rng), tied_scores(rng)) for name in "abc"}
    # One group with far more high negatives than its share.
    by_group["d"] = (tied_scores(rng), np.full(12, 0.9))
    result = per_group(by_group, FARS)
    pool = [float(s) for _, other in by_group.values() for s in other]
    everyone = [float(s) for same, _ in by_group.values() for s in same]
    for i, far in enumerate(FARS):
        threshold = naive.loosest_threshold(pool, far)
        needs = None if threshold is not None else math.ceil(1 / far)
        assert_point(result.pooled[i], everyone, pool, threshold, needs)
        for name, (same, other) in by_group.items():
            point = result.at_global[name][i]
            assert point.threshold == threshold
            if threshold is not None:
                assert point.far == (np.mean(other >= threshold) if other.size else None)
                assert point.tar == (np.mean(same >= threshold) if same.size else None)
    for name, (same, other) in by_group.items():
        assert_result(result.groups[name], same, other)


def test_summary_by_hand():
    groups = {
        "a": ([0.9, 0.9, 0.9, 0.1], [0.5, 0.0, 0.0, 0.0]),
        "b": ([0.9, 0.1, 0.1, 0.1], [0.6, 0.7, 0.0, 0.0]),
        "no positives": ([], [0.2] * 4),
    }
    result = per_group(groups, fars=(0.25,))
    # Three of twelve negatives pass: .7 .6 .5, blocked by .2. FAR 1/4 and 1/2; TAR 3/4 and 1/4.
    summary = result.global_summary[0]
    assert (summary.groups, summary.worst, summary.mean, summary.min, summary.std) == (2, "b", 0.5, 0.25, 0.25)
    assert summary.frr_ratio == 3
    assert summary.skewed_error_ratio == pytest.approx((0.5 + 0.75) / (0.25 + 0.25))
    # At their own thresholds, one of four: blocked by 0 and by .6, so TAR is 1 and 1/4.
    own = result.own_summary[0]
    assert (own.mean, own.frr_ratio, own.skewed_error_ratio) == (5 / 8, None, 4)
    assert result.groups["no positives"].points[0].threshold == math.nextafter(0.2, 1)


def test_summary_without_a_denominator_is_none():
    perfect = per_group({"a": ([1.0], [0.0, 0.1]), "b": ([1.0], [0.0, 0.1])}, fars=(0.5, 0.01))
    assert perfect.own_summary[0].frr_ratio is None
    assert perfect.own_summary[1].groups == 0
    assert perfect.own_summary[1].mean is None
    assert per_group({}, fars=(0.5,)).pooled[0].needs == 2


@pytest.fixture
def small_tiles(monkeypatch, small_buffers):
    monkeypatch.setattr(pairs, "COLUMNS", 16)
    monkeypatch.setattr(pairs, "ROWS", 8)


@pytest.mark.parametrize("seed", range(6))
def test_all_pairs_against_the_loops(seed, small_tiles):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 70))
    x = np.zeros((n, 6))
    for row in x:
        row[rng.permutation(6)[:4]] = rng.choice([-1.0, 1.0], 4)
    labels, groups = rng.integers(0, 12, n), rng.choice(["x", "y", "z"], n)
    # Most of the high negatives lie in one group, more than its share of any rate.
    x[groups == "z"] = np.abs(x[groups == "z"])
    result = all_pairs(x, labels, groups, FARS)
    expected = naive.unordered_pairs(x.tolist(), labels.tolist(), groups.tolist())
    assert sorted(result.groups) == sorted(expected)
    for name, (same, other) in expected.items():
        assert_result(result.groups[name], same, other, above=above_in_float32)
    again = per_group({name: tuple(map(np.float32, sides)) for name, sides in sorted(expected.items())}, FARS)
    assert (result.at_global, result.pooled) == (again.at_global, again.pooled)
    assert result.global_summary == again.global_summary
    pool = [s for _, other in expected.values() for s in other]
    assert [point.threshold for point in result.pooled] == [
        naive.loosest_threshold(pool, far, above_in_float32) for far in FARS
    ]


def test_all_pairs_without_groups_and_with_nothing():
    eye = all_pairs(np.eye(4), [0, 0, 1, 2], fars=(0.5,))
    assert (eye.groups["all"].positives, eye.groups["all"].negatives) == (1, 5)
    one = all_pairs(np.eye(1), ["a"], ["g"], fars=(0.5,))
    assert (one.groups["g"].positives, one.groups["g"].negatives) == (0, 0)
    assert all_pairs(np.ones((0, 3)), [], [], fars=(0.5,)).groups == {}


def test_all_pairs_counts_pairs_of_many_tiles_and_reports_progress():
    rng = np.random.default_rng(0)
    labels, seen = rng.integers(0, 30, 900), []
    result = all_pairs(rng.standard_normal((900, 8)), labels, fars=(0.1,), progress=seen.append).groups["all"]
    same = sum(int(size) * (int(size) - 1) // 2 for size in np.bincount(labels))
    assert (result.positives, result.negatives) == (same, 900 * 899 // 2 - same)
    assert sum(seen) == 900
    assert result.auc == pytest.approx(0.5, abs=0.03)


def test_scores_of_pairs():
    x = np.array([[3.0, 4.0], [5.0, 0.0], [0.0, 0.0], [-6.0, -8.0]])
    got = scores_of_pairs(x, [0, 0, 0, 1], [1, 3, 2, 1])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [0.6, -1, 0, 1], atol=1e-7)
    assert scores_of_pairs(x, [], []).size == 0
    with pytest.raises(UserError, match=r"pair 1 names row 4; the embeddings have rows 0\.\.3"):
        scores_of_pairs(x, [0, 1], [1, 4])
    with pytest.raises(UserError, match="two lists of one length"):
        scores_of_pairs(x, [0, 1], [1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: verification_metrics([0.5, math.nan], [0.1]), "positive scores must be finite; number 1"),
        (lambda: verification_metrics([0.5], [math.inf]), "negative scores must be finite; number 0"),
        (lambda: verification_metrics([[0.5]], [0.1]), "must be a list of numbers"),
        (lambda: verification_metrics([0.5], [0.1], fars=(0.0,)), "between 0 and 1"),
        (lambda: verification_metrics([0.5], [0.1], fars=()), "between 0 and 1"),
        (lambda: per_group({"g": ([0.5], [math.nan])}), "negative scores of g"),
        (lambda: all_pairs(np.eye(3), [0, 1, 2], ["a"]), "groups must be one a row"),
        (lambda: ScoreStream([0.5], 0.1, 1).add([0.1, 0.2]), "announced"),
        (lambda: ScoreStream(np.ones(1, np.float32), 0.1).add([0.1]), "give both as float64"),
    ],
)
def test_refusals_are_one_line(call, words):
    with pytest.raises(UserError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def test_very_many_pairs_do_not_overflow():
    stream = ScoreStream(np.zeros(4), 0.5)
    stream.add([0.0, 0.0, -1.0])
    stream.negatives_below()
    # As if every positive and negative had come 2^40 times.
    stream.positives_below *= 2**40
    stream.positives *= 2**40
    stream._below *= 2**40
    stream._not_above *= 2**40
    stream.negatives *= 2**40
    values, counts = stream.top.seen()
    stream.top.insert(values, counts.astype(np.int64) * (2**40 - 1))
    result = stream_result(stream, (0.5,))
    assert result.auc == pytest.approx((1 + 2 * 0.5) / 3)
    assert result.eer == pytest.approx(2 / 5)


def test_grouped_result_takes_streams():
    streams = {name: ScoreStream([0.5], 0.5, 4) for name in "ab"}
    streams["a"].add([0.9, 0.8])
    streams["b"].add([0.1, 0.2])
    result = grouped_result(streams, (0.5,))
    assert result.pooled[0].threshold == math.nextafter(0.2, 1)
    assert [result.at_global[name][0].far for name in "ab"] == [1, 0]
