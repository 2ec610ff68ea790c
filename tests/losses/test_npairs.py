import functools
import math

import naive_losses as naive
import numpy as np
import pytest
from loss_cases import UNEQUAL, check_against, embeddings, run

from metric_learning.checks import UserError
from metric_learning.losses.npairs import NpairsLoss, anchors_and_positives


@pytest.mark.parametrize("reg_lambda", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("labels", [UNEQUAL, [0, 0, 1, 1, 2, 2], [5, 3, 3, 5]])
def test_value_and_gradient_equal_the_naive_twin(labels, reg_lambda):
    twin = functools.partial(naive.npairs, reg_lambda=reg_lambda)
    check_against(NpairsLoss(reg_lambda), twin, embeddings(len(labels)), labels)


@pytest.mark.parametrize("samples", [2, 3])
def test_paddlecv_form_on_its_own_rows(samples):
    classes = 4
    x = embeddings(classes * samples).reshape(classes, samples, 5)
    logits = x[:, 0] @ x[:, 1:].reshape(-1, 5).T
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = np.repeat(np.eye(classes), samples - 1, axis=1) / (samples - 1)
    expected = -(wanted * np.log(share)).sum(axis=1).mean() + 0.5 * 0.01 * (x**2).sum(axis=2).mean()
    value, _ = run(NpairsLoss(), x.reshape(-1, 5), np.repeat(np.arange(classes), samples))
    assert value == pytest.approx(expected, abs=1e-4)


def test_the_first_sample_of_a_class_is_its_anchor():
    anchors, positives = anchors_and_positives(np.array([9, 2, 5, 2, 9, 2]), 6)
    assert anchors.tolist() == [1, 0]
    assert positives.tolist() == [3, 4, 5]


def test_a_singleton_class_takes_no_part():
    x = embeddings(5)
    value, gradient = run(NpairsLoss(), x, [0, 0, 1, 1, 2])
    assert value == pytest.approx(run(NpairsLoss(), x[:4], [0, 0, 1, 1])[0])
    assert not gradient[4].any() and gradient[:4].any()


def test_one_class_of_several_has_nothing_to_be_told_from():
    with pytest.warns(UserWarning, match="two classes with two samples each"):
        value, gradient = run(NpairsLoss(), embeddings(4), [0, 0, 0, 1])
    assert value == 0.0
    assert not gradient.any()


def test_long_embeddings_do_not_overflow():
    x, labels = embeddings(6, spread=1e3), [0, 0, 1, 1, 2, 2]
    value, gradient = run(NpairsLoss(), x, labels)
    assert value == pytest.approx(naive.npairs(x.tolist(), labels), rel=1e-5)
    assert np.isfinite(gradient).all()


def test_an_anchor_is_active_until_its_best_match_is_its_own():
    loss = NpairsLoss()
    run(loss, np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), [0, 0, 1, 1])
    assert loss.figures["active_share"] == 0.0
    assert (loss.figures["positive_distance"], loss.figures["negative_distance"]) == (0.0, 2.0)
    run(loss, np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]), [0, 0, 1, 1])
    assert loss.figures["active_share"] == 0.5


@pytest.mark.parametrize("reg_lambda", [-0.01, math.nan])
def test_bad_settings_are_refused(reg_lambda):
    with pytest.raises(UserError, match="npairs_reg_lambda"):
        NpairsLoss(reg_lambda)
