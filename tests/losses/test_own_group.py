"""Each sample against the classes of its own group: as if there were no others."""

import numpy as np
import pytest
from loss_cases import embeddings, run
from margin_twins import CASES, built

from metric_learning.checks import UserError
from metric_learning.losses import ELEMENT_LOSSES

GROUPS = np.array([0, 1, 0, 1])  # of the four classes
OF_GROUP = {0: [0, 2, 2, 0, 2], 1: [1, 3, 3, 1, 3]}  # labels of one group each


def alone(loss, name: str, group: int, **settings):
    """A loss with the classes of one group only, and their weights."""
    rows = np.flatnonzero(group == GROUPS)
    made = built(name, classes=len(rows), **settings)
    made.centers.weight.set_value(loss.centers.weight.numpy()[rows])
    if loss.centers.bias is not None:
        made.centers.bias.set_value(loss.centers.bias.numpy()[rows])
    return made, {int(row): place for place, row in enumerate(rows)}


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_equals_the_loss_that_has_the_group_alone(name, settings, group, gamma):
    loss = built(name, focal_gamma=gamma, **settings)
    if loss.centers.bias is not None:
        loss.centers.bias.set_value(np.array([0.3, -0.2, 0.1, 0.7], dtype=np.float32))
    loss.keep_to_groups(GROUPS)
    smaller, place = alone(loss, name, group, focal_gamma=gamma, **settings)
    labels = OF_GROUP[group]
    x = embeddings(len(labels))
    value, gradient = run(loss, x, labels)
    expected, slope = run(smaller, x, [place[label] for label in labels])
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)
    rows = sorted(place)
    moved = loss.centers.weight.grad.numpy()
    np.testing.assert_allclose(moved[rows], smaller.centers.weight.grad.numpy(), rtol=1e-4, atol=1e-6)
    assert not moved[[row for row in range(4) if row not in rows]].any()
    assert loss.figures["accuracy"] == pytest.approx(smaller.figures["accuracy"])


@pytest.mark.parametrize("name", ["softmax", "arcmargin"])
def test_a_mixed_batch_is_the_mean_of_its_samples(name):
    loss = built(name)
    loss.keep_to_groups(GROUPS)
    labels = [0, 1, 3, 2, 1]
    x = embeddings(len(labels))
    apart = [run(loss, x[i : i + 1], [label])[0] for i, label in enumerate(labels)]
    assert run(loss, x, labels)[0] == pytest.approx(np.mean(apart), rel=1e-5)


@pytest.mark.parametrize("name", ELEMENT_LOSSES)
def test_one_group_is_all(name):
    labels, x = [3, 0, 1, 2], embeddings(4)
    plain, kept = built(name), built(name)
    kept.keep_to_groups(np.zeros(4, np.int64))
    for a, b in zip(run(plain, x, labels), run(kept, x, labels), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_class_alone_in_its_group_has_nothing_to_learn():
    loss = built("arcmargin")
    loss.keep_to_groups(np.arange(4))
    value, gradient = run(loss, embeddings(3), [0, 1, 2])
    assert value == 0.0 and not gradient.any()


def test_groups_of_another_number_of_classes_are_refused():
    with pytest.raises(UserError, match="4 classes and groups of 3"):
        built("softmax").keep_to_groups(np.zeros(3, np.int64))
