"""Figures of classification against plain twins (loops, float64), and their edges."""

import math

import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.metrics.classification import FLOOR, ROC_POINTS, as_probabilities, classification, wilson


def naive_predicted(row):
    best = 0
    for c in range(1, len(row)):
        if row[c] > row[best]:
            best = c
    return best


def naive_area(scores, positive):
    wins = pairs = 0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if positive[i] and not positive[j]:
                pairs += 1
                wins += 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
    return wins / pairs if pairs else None


def naive_figures(rows, labels):
    count, classes = len(rows), len(rows[0])
    confusion = [[0] * classes for _ in range(classes)]
    loss, bins = 0.0, [[] for _ in range(15)]
    for row, label in zip(rows, labels, strict=True):
        predicted = naive_predicted(row)
        confusion[label][predicted] += 1
        loss -= math.log(min(max(row[label], FLOOR), 1.0)) / count
        place = next(m for m in range(1, 16) if max(row) <= m / 15 or m == 15)
        bins[place - 1].append((max(row), predicted == label))
    recalls = [confusion[c][c] / sum(confusion[c]) for c in range(classes) if sum(confusion[c])]
    error = 0.0
    for held in (held for held in bins if held):
        confidence, right = sum(top for top, _ in held) / len(held), sum(hit for _, hit in held) / len(held)
        error += len(held) / count * abs(right - confidence)
    if classes == 2:
        area = naive_area([row[1] for row in rows], [label == 1 for label in labels])
    else:
        areas = [naive_area([row[c] for row in rows], [label == c for label in labels]) for c in range(classes)]
        areas = [area for area in areas if area is not None]
        area = sum(areas) / len(areas) if areas else None
    return {
        "accuracy": sum(confusion[c][c] for c in range(classes)) / count,
        "balanced_accuracy": sum(recalls) / len(recalls),
        "log_loss": loss,
        "roc_auc": area,
        "calibration_error": error,
        "confusion": confusion,
    }


def drawn(seed, count=80, classes=3, tenths=False):
    """Probabilities that know something of the labels; with tenths they are full of ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    if tenths:
        rows = rng.multinomial(10, np.full(classes, 1 / classes), count) / 10
    else:
        rows = rng.dirichlet(np.ones(classes), count)
        rows = 0.7 * rows + 0.3 * np.eye(classes)[np.where(rng.random(count) < 0.6, labels, 0)]
    return rows, labels


def check(found, rows, labels):
    for name, value in naive_figures(rows.tolist(), labels.tolist()).items():
        got = getattr(found, name)
        if name == "confusion":
            assert got.tolist() == value and got.dtype == np.int64
        elif value is None:
            assert got is None, name
        else:
            assert got == pytest.approx(value, abs=1e-12), name
    assert found.count == len(rows)


def names_of(classes):
    return [f"class {c}" for c in range(classes)]


@pytest.mark.parametrize("tenths", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_the_plain_twin(seed, classes, tenths):
    rows, labels = drawn(seed, 30 + 40 * seed, classes, tenths)
    groups = np.random.default_rng(seed).choice(["b", "a", "c$"], len(rows)).tolist()
    found = classification(rows, labels, names_of(classes), groups)
    check(found.pooled, rows, labels)
    assert list(found.groups) == sorted(set(groups)) and found.classes == names_of(classes)
    for name, figures in found.groups.items():
        members = np.array(groups) == name
        check(figures, rows[members], labels[members])
    assert sum(figures.confusion for figures in found.groups.values()).tolist() == found.pooled.confusion.tolist()


def test_a_small_case_by_hand():
    rows = [[0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [0.2, 0.8]]
    found = classification(rows, [0, 0, 1, 1], ["male", "female"], ["x", "x", "y", "y"])
    assert found.pooled.confusion.tolist() == [[1, 1], [1, 1]]  # of equal ones the first
    assert found.pooled.accuracy == 0.5 and found.pooled.balanced_accuracy == 0.5
    assert found.pooled.roc_auc == 0.75
    assert found.pooled.log_loss == pytest.approx(-math.log(0.9 * 0.4 * 0.5 * 0.8) / 4)
    # Bins of 0.5, 0.6, 0.8 and 0.9: none holds two.
    assert found.pooled.calibration_error == pytest.approx((0.5 + 0.6 + 0.2 + 0.1) / 4)
    assert found.worst == "x" and found.gap == 0.0
    assert found.groups["x"].roc_auc is None and found.groups["x"].roc_fpr.size == 0
    assert found.groups["x"].balanced_accuracy == 0.5


def test_a_bin_of_the_calibration_error_holds_its_upper_end():
    # 0.6 is 9/15: with 0.55 in the ninth bin, not with 0.65 in the tenth.
    rows = np.array([[0.55, 0.45], [0.6, 0.4], [0.65, 0.35]])
    found = classification(rows, [0, 1, 0], ["a", "b"]).pooled
    assert found.calibration_error == pytest.approx((abs(0.55 + 0.6 - 1) + abs(0.65 - 1)) / 3)
    check(found, rows, np.array([0, 1, 0]))


def test_worst_group_and_gap():
    rows, labels = [[0.9, 0.1]] * 5, [0, 0, 1, 1, 1]
    found = classification(rows, labels, ["a", "b"], ["one", "one", "one", "two", "two"])
    assert found.worst == "two" and found.gap == pytest.approx(2 / 3)
    for groups in (None, ["only"] * 5):
        alone = classification(rows, labels, ["a", "b"], groups)
        assert alone.worst is None and alone.gap is None
    assert classification(rows, labels, ["a", "b"]).groups == {}


def test_one_class_present_one_picture_and_none():
    one = classification([[0.2, 0.8]], [1], ["a", "b"]).pooled
    assert (one.accuracy, one.balanced_accuracy, one.roc_auc) == (1.0, 1.0, None)
    assert one.calibration_error == pytest.approx(0.2) and one.log_loss == pytest.approx(-math.log(0.8))
    assert one.interval is not None and one.interval[1] == 1.0
    same = classification(drawn(0, 20, 3)[0], [2] * 20, names_of(3)).pooled
    assert same.roc_auc is None and same.balanced_accuracy == same.accuracy
    # Of three classes two occur: the mean is over those two.
    rows, labels = drawn(1, 40, 3)
    check(classification(rows, np.minimum(labels, 1), names_of(3)).pooled, rows, np.minimum(labels, 1))
    none = classification(np.ones((0, 3)), [], names_of(3), [])
    figures = ("accuracy", "interval", "balanced_accuracy", "log_loss", "roc_auc", "calibration_error")
    assert all(getattr(none.pooled, name) is None for name in figures)
    assert none.pooled.count == 0 and none.pooled.confusion.tolist() == [[0] * 3] * 3
    assert none.groups == {} and none.worst is None


def test_sure_and_wrong_costs_a_finite_loss():
    found = classification([[1.0, 0.0], [0.0, 1.0]], [1, 1], ["a", "b"]).pooled
    assert found.log_loss == pytest.approx(-math.log(FLOOR) / 2)
    right = classification(np.array([[1.0005, 0.0]]), [0], ["a", "b"]).pooled
    assert right.log_loss == 0.0 and math.copysign(1, right.log_loss) == 1.0


def test_all_scores_equal_is_half_the_area():
    found = classification(np.full((10, 2), 0.5), [0, 1] * 5, ["a", "b"]).pooled
    assert found.roc_auc == 0.5
    assert found.roc_fpr.tolist() == [0.0, 1.0] and found.roc_tpr.tolist() == [0.0, 1.0]


def area_of(found):
    """Under the straight lines between the points of the curve."""
    return float(np.sum(np.diff(found.roc_fpr) * (found.roc_tpr[1:] + found.roc_tpr[:-1]) / 2))


@pytest.mark.parametrize("tenths", [False, True])
def test_the_roc_has_the_area_and_each_point_is_exact(tenths):
    rows, labels = drawn(3, 200, 2, tenths)
    found = classification(rows, labels, ["a", "b"]).pooled
    fpr, tpr = found.roc_fpr, found.roc_tpr
    assert area_of(found) == pytest.approx(found.roc_auc, abs=1e-12)
    expected = {(0.0, 0.0)}
    for at in rows[:, 1]:
        passed = rows[:, 1] >= at
        expected.add(
            ((passed & (labels == 0)).sum() / (labels == 0).sum(), (passed & (labels == 1)).sum() / labels.sum())
        )
    assert sorted(expected) == list(zip(fpr.tolist(), tpr.tolist(), strict=True))


def test_a_long_roc_is_thinned_to_points_of_its_own():
    rows, labels = drawn(4, 5000, 2)
    found = classification(rows, labels, ["a", "b"]).pooled
    assert ROC_POINTS - 20 < found.roc_fpr.size <= ROC_POINTS
    assert (found.roc_fpr[0], found.roc_tpr[0], found.roc_fpr[-1], found.roc_tpr[-1]) == (0, 0, 1, 1)
    assert area_of(found) == pytest.approx(found.roc_auc, abs=1e-3)
    assert all(float(x * (labels == 0).sum()) == pytest.approx(round(x * (labels == 0).sum())) for x in found.roc_fpr)


def test_order_of_pictures_and_names_of_classes_do_not_matter():
    rows, labels = drawn(5, 60, 4)
    found = classification(rows, labels, names_of(4)).pooled
    order, turned = np.random.default_rng(0).permutation(60), np.array([2, 0, 3, 1])
    again = classification(rows[order][:, turned], np.argsort(turned)[labels[order]], names_of(4)).pooled
    for name in ("accuracy", "balanced_accuracy", "log_loss", "roc_auc", "calibration_error"):
        assert getattr(again, name) == pytest.approx(getattr(found, name), abs=1e-12)
    assert again.confusion.tolist() == found.confusion[np.ix_(turned, turned)].tolist()


def test_half_precision_is_good_enough_and_its_ties_are_kept():
    rows, labels = drawn(6, 100, 50)
    for dtype in (np.float16, np.float32):
        check(classification(rows.astype(dtype), labels, names_of(50)).pooled, rows.astype(dtype).astype(float), labels)


def test_many_classes():
    rng = np.random.default_rng(7)
    rows, labels = rng.dirichlet(np.full(400, 0.1), 2000), rng.integers(0, 400, 2000)
    found = classification(rows, labels, names_of(400)).pooled
    assert found.confusion.shape == (400, 400) and found.confusion.sum() == 2000
    assert found.roc_auc == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (934, 1000), (10**9 - 1, 10**9)])
def test_wilson_bounds_solve_their_equation(right, count):
    low, high = wilson(right, count)
    share = right / count
    assert 0.0 <= low <= share <= high <= 1.0
    for x in (low, high):
        assert (x - share) ** 2 == pytest.approx(1.959963984540054**2 * x * (1 - x) / count, rel=1e-6, abs=1e-15)
    assert wilson(0, 0) is None


def test_wilson_as_printed_in_tables():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263 and 15 of 148.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


@pytest.mark.parametrize(
    ("rows", "labels", "classes", "words"),
    [
        ([[0.5, math.nan]], [0], 2, r"row 0 is \[0.5, nan\]"),
        ([[0.5, 0.5], [math.inf, -math.inf]], [0, 0], 2, "row 1"),
        ([[0.5, 0.5], [1.2, -0.2]], [0, 0], 2, "0 or more"),
        ([[0.5, 0.498]], [0], 2, r"sums to 0.998.*softmax"),
        ([[2.0, -1.0, 3.0, 0.1, 0.2]], [0], 5, "0.1, ..."),
        ([[1.0], [1.0]], [0, 0], 1, "at least 2|C >= 2"),
        ([0.5, 0.5], [0, 0], 2, "N, C"),
        ([["a", "b"]], [0], 2, "real numbers"),
        ([[0.5, 0.5]], [2], 2, r"0\.\.1; number 0 is 2"),
        ([[0.5, 0.5]], [-1], 2, r"0\.\.1; number 0 is -1"),
        ([[0.5, 0.5]], [0.0], 2, "whole numbers"),
        ([[0.5, 0.5]], [0, 1], 2, "one a row"),
        ([[0.5, 0.5]], [0], 3, "name the 2 columns"),
    ],
)
def test_what_is_no_classification_is_one_line(rows, labels, classes, words):
    with pytest.raises(UserError, match=words) as caught:
        classification(rows, labels, names_of(classes))
    assert "\n" not in str(caught.value)


def test_other_refusals():
    rows = [[0.5, 0.5]]
    with pytest.raises(UserError, match="'a' is there twice"):
        classification(rows, [0], ["a", "a"])
    with pytest.raises(UserError, match="groups must be one a row"):
        classification(rows, [0], ["a", "b"], ["x", "y"])
    with pytest.raises(UserError, match="retrieval or verification"):
        classification(np.ones((0, 17_000)), [], names_of(17_000))
    with pytest.raises(UserError, match=r"row \(1, 0\)"):
        as_probabilities([[[0.5, 0.5]], [[0.5, 0.6]]], "MNC")
    assert as_probabilities([[0.5, 0.4991]]).sum() == pytest.approx(0.9991)
