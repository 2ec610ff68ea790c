import functools
import math

import naive_losses as naive
import numpy as np
import pytest
from loss_cases import UNEQUAL, check_against, embeddings, run

from metric_learning.checks import UserError
from metric_learning.losses.eml import EmlLoss


@pytest.mark.parametrize("beta", [0.5, 1e5])
@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_value_and_gradient_equal_the_naive_twin(beta, spread):
    twin = functools.partial(naive.eml, beta=beta)
    check_against(EmlLoss(beta), twin, embeddings(len(UNEQUAL), spread=spread), UNEQUAL)


def paddlecv_eml(x, samples, beta=1e5, threshold=20.0):
    """PaddleCV's form: P x K in order, its exponential kept finite by a linear branch above the threshold."""
    classes = np.arange(len(x)) // samples
    losses = []
    for a in range(len(x)):
        d = ((x - x[a]) ** 2).sum(axis=1)
        pos = d[(classes == classes[a]) & (np.arange(len(x)) != a)]
        neg = d[classes != classes[a]]
        bias = pos.max() - neg.min()
        theta = np.exp(pos - pos.max()).mean() * np.exp(-(neg - neg.min())).mean()

        def curved(b, theta=theta):
            return math.log(1.0 + beta * theta * math.exp(b)) / math.log(1.0 + beta)

        line = (math.log(theta) + max(bias, threshold) + math.log(beta)) / math.log(1.0 + beta)
        losses.append(curved(min(bias, threshold)) + line - curved(threshold))
    return np.mean(losses)


@pytest.mark.parametrize("spread", [0.05, 0.5, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("samples", [2, 3])
def test_paddlecv_form_agrees_on_both_its_branches(spread, samples):
    x = embeddings(12, spread=spread)
    value, _ = run(EmlLoss(), x, np.arange(12) // samples)
    expected = paddlecv_eml(x, samples)
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-4)
    if spread >= 3.0:
        # Well past the bend: this is the linear branch.
        assert expected > 2.0


def test_distances_beyond_the_range_of_exp_are_fine():
    value, gradient = run(EmlLoss(), embeddings(6, spread=1e3), [0, 0, 1, 1, 2, 2])
    assert math.isfinite(value) and np.isfinite(gradient).all()


def test_the_pull_is_active_above_the_bend():
    loss = EmlLoss()
    run(loss, np.zeros((4, 2)), [0, 0, 1, 1])
    assert loss.figures["active_share"] == 1.0
    run(loss, np.array([[0.0], [0.0], [9.0], [9.0]]), [0, 0, 1, 1])
    assert loss.figures["active_share"] == 0.0


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan])
def test_bad_settings_are_refused(beta):
    with pytest.raises(UserError, match="beta"):
        EmlLoss(beta)
