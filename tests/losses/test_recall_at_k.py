import functools

import naive_losses as naive
import numpy as np
import pytest
from loss_cases import UNEQUAL, check_against, embeddings, run

from metric_learning.checks import UserError
from metric_learning.losses.recall_at_k import RecallAtKLoss


# With tau1 5 three positives are worth more than k = 1, so the sum is cut.
@pytest.mark.parametrize(
    "settings", [((1, 2, 4, 8, 16), 1.0, 0.01), ((1,), 0.5, 0.1), ((2, 3), 2.0, 0.3), ((1, 2), 5.0, 0.1)]
)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.sweep
def test_value_and_gradient_equal_the_naive_twin(settings, seed):
    twin = functools.partial(naive.recall_at_k, **dict(zip(("ks", "tau1", "tau2"), settings, strict=True)))
    check_against(RecallAtKLoss(*settings), twin, embeddings(len(UNEQUAL), seed=seed), UNEQUAL)


def test_many_positives_of_unequal_classes():
    labels = np.random.default_rng(0).integers(0, 4, 24).tolist()
    twin = functools.partial(naive.recall_at_k, tau2=0.1)
    check_against(RecallAtKLoss(tau2=0.1), twin, embeddings(24, dim=2), labels)


def test_sharp_temperatures_give_recall_itself():
    # The cut is so sharp that only a rank of exactly k, here 2, is half in and half out.
    x, labels = embeddings(40, dim=3), (np.arange(40) % 8).tolist()
    value, _ = run(RecallAtKLoss((2,), 0.01, 1e-5), x, labels)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    near = np.argsort(-(unit @ unit.T) + 9.0 * np.eye(40), axis=1)[:, :2]
    hits = (np.array(labels)[near] == np.array(labels)[:, None]) * [1.0, 0.5]
    assert value == pytest.approx(1.0 - hits.sum(axis=1).mean() / 2.0, abs=1e-4)


def test_perfect_ranks():
    x = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    loss = RecallAtKLoss((1, 2))
    # One positive, first: sigmoid(0) of recall at 1, sigmoid(1) of recall at 2.
    assert run(loss, x, [0, 0, 1, 1])[0] == pytest.approx(1.0 - (0.5 + 1.0 / (1.0 + np.exp(-1.0))) / 2.0, rel=1e-5)
    assert loss.figures["active_share"] == 0.0


@pytest.mark.parametrize(
    "settings", [{"ks": ()}, {"ks": (0, 1)}, {"ks": (2, 1)}, {"ks": (1, 1)}, {"tau1": 0.0}, {"tau2": -1.0}]
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        RecallAtKLoss(**settings)
