"""Confident learning against loops, by hand at the edges, and on labels that were made wrong on purpose."""

import naive_noise as naive
import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.metrics import label_noise
from metric_learning.metrics.label_noise import probable_label_errors


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def test_by_hand():
    # t_0 = (0.9 + 0.8 + 0.1) / 3 = 0.6, t_1 = (0.7 + 0.5) / 2 = 0.6. The fifth reaches neither.
    p0 = np.array([0.9, 0.8, 0.1, 0.3, 0.5])
    found = probable_label_errors(np.stack([p0, 1 - p0], axis=1), [0, 0, 0, 1, 1])
    assert found.thresholds == pytest.approx([0.6, 0.6])
    assert found.joint.tolist() == [[2, 1], [0, 1]]
    assert found.indices.tolist() == [2] and found.given.tolist() == [0] and found.suggested.tolist() == [1]
    assert found.margins == pytest.approx([-0.8])
    assert found.noise_rate == pytest.approx((1 / 3 * 3 + 0 * 2) / 5)


@pytest.mark.parametrize("at_once", [1, 7, 65536])
@pytest.mark.parametrize("seed", range(6))
def test_against_the_loops(seed, at_once, monkeypatch):
    monkeypatch.setattr(label_noise, "ROWS_AT_ONCE", at_once)
    rng = np.random.default_rng(seed)
    count, classes = int(rng.integers(1, 60)), int(rng.integers(2, 6))
    table = softmax(rng.normal(size=(count, classes)) * 2)
    if seed % 2:  # many ties, sums that are off by rounding
        table = np.round(table * 4) / 4
        table = np.where(table.sum(axis=1, keepdims=True) > 0, table, 1) + 0.0
        table /= table.sum(axis=1, keepdims=True)
    labels = rng.integers(0, classes, count)
    found = probable_label_errors(table, labels)
    wrong, thresholds, joint, rate = naive.label_errors(table.tolist(), labels.tolist())
    given = [(i, a, b) for i, a, b, _ in wrong]
    assert list(zip(found.indices, found.given, found.suggested, strict=True)) == given
    assert found.margins == pytest.approx([margin for *_, margin in wrong])
    assert found.thresholds == pytest.approx(thresholds)
    assert found.joint.tolist() == joint
    assert found.noise_rate == pytest.approx(rate)


@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize("classes", [2, 5])
def test_labels_made_wrong_are_found(share, classes):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, classes, 4000)
    # A classifier that is right in most cases, and knows its doubts.
    logits = 3 * np.eye(classes)[truth] + rng.normal(size=(4000, classes))
    wrong = rng.random(4000) < share
    labels = np.where(wrong, (truth + rng.integers(1, classes, 4000)) % classes, truth)
    found = probable_label_errors(softmax(logits), labels)
    hits = wrong[found.indices]
    assert hits.mean() > 0.7 and hits.sum() > 0.6 * wrong.sum(), (hits.mean(), hits.sum() / wrong.sum())
    assert hits[: len(hits) // 4].mean() > 0.9 and (np.diff(found.margins) >= 0).all()  # the most suspicious come first
    assert found.noise_rate == pytest.approx(wrong.mean(), abs=0.04)
    assert (found.suggested[hits] == truth[found.indices[hits]]).mean() > 0.95


def test_a_sure_class_has_a_higher_threshold():
    """Off the diagonal although the label is the likeliest: its class's others are surer, class 1's are not."""
    p0 = np.array([0.95, 0.95, 0.95, 0.6, 0.7, 0.6])
    found = probable_label_errors(np.stack([p0, 1 - p0], axis=1), [0, 0, 0, 0, 1, 1])
    assert found.indices.tolist() == [3] and found.margins == pytest.approx([0.2])


def test_a_class_without_examples_and_none():
    missing = probable_label_errors([[0.1, 0.2, 0.7], [0.2, 0.1, 0.7]], [0, 1])
    assert missing.thresholds.tolist() == [0.1, 0.1, np.inf] and missing.joint[:, 2].sum() == 0
    none = probable_label_errors(np.ones((0, 2)), np.ones(0, int))
    assert none.noise_rate is None and none.joint.tolist() == [[0, 0], [0, 0]] and len(none.margins) == 0


def test_ties_go_to_the_own_label():
    found = probable_label_errors(np.full((6, 2), 0.5), [0, 0, 0, 1, 1, 1])
    assert len(found.indices) == 0 and found.joint.tolist() == [[3, 0], [0, 3]]
    equal = probable_label_errors(np.tile([0.8, 0.1, 0.1], (3, 1)), [1] * 3)  # the mean of three tenths is rounded up
    assert equal.joint.sum() == 3 and equal.joint[1, 1] == 3


def test_float16_is_taken():
    table = softmax(np.random.default_rng(0).normal(size=(50, 40)) * 3).astype(np.float16)
    assert probable_label_errors(table, np.arange(50) % 40).joint.sum() > 0


@pytest.mark.parametrize(
    ("table", "labels", "said"),
    [
        ([[0.5, np.nan]], [0], "sum to 1 in each row; row 0"),
        ([[0.5, 0.5], [np.inf, 0.0]], [0, 1], "sum to 1 in each row; row 1"),
        ([[1.5, -0.5]], [0], r"row 0 is \[1.5, -0.5\]"),
        ([[0.5, 0.5], [0.5, 0.4]], [0, 1], "sum to 1 in each row; row 1"),
        (np.ones((2, 1)), [0, 0], "C >= 2 classes"),
        ([0.5, 0.5], [0, 0], r"an array \(N, C\)"),
        (np.ones((2, 0)), [0, 0], "C >= 2 classes"),
        ([[0.5, 0.5]], [0, 1], "one a row"),
        ([[0.5, 0.5]], [2], r"0\.\.1"),
        ([[0.5, 0.5]], [-1], r"0\.\.1"),
        ([[0.5, 0.5]], [0.0], "whole numbers"),
    ],
)
def test_what_can_not_be_is_refused(table, labels, said):
    with pytest.raises(UserError, match=said):
        probable_label_errors(table, labels)
