import functools

import naive_losses as naive
import numpy as np
import pytest
from loss_cases import UNEQUAL, check_against, embeddings, run

from metric_learning.checks import UserError
from metric_learning.losses.multi_similarity import MultiSimilarityLoss


@pytest.mark.parametrize("settings", [(2.0, 50.0, 0.5, 0.1), (2.0, 40.0, 0.3, 0.0), (5.0, 10.0, 0.0, 3.0)])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_the_naive_twin(settings, seed):
    names = ("alpha", "beta", "base", "epsilon")
    twin = functools.partial(naive.multi_similarity, **dict(zip(names, settings, strict=True)))
    check_against(MultiSimilarityLoss(*settings), twin, embeddings(len(UNEQUAL), seed=seed), UNEQUAL)


SORTED = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])


def test_pairs_that_are_far_enough_apart_are_left_out():
    loss = MultiSimilarityLoss()
    value, gradient = run(loss, SORTED, [0, 0, 1, 1])
    assert value == 0.0 and not gradient.any()
    assert loss.figures["active_share"] == 0.0


def test_an_epsilon_above_2_keeps_every_pair():
    value, _ = run(MultiSimilarityLoss(epsilon=2.1), SORTED, [0, 0, 1, 1])
    assert value == pytest.approx(np.log1p(np.exp(-1.0)) / 2.0 + np.log1p(2.0 * np.exp(-25.0)) / 50.0, rel=1e-5)


def test_an_anchor_whose_pairs_are_left_out_is_in_the_mean():
    # The first four have nothing to learn, the last two, of two further classes with a far positive each, do.
    x = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.01]])
    labels = [0, 0, 1, 1]
    settled, _ = run(MultiSimilarityLoss(), x, labels)
    assert settled == 0.0
    hard = np.concatenate([x, [[0.0, 1.0], [0.0, 1.0]]])
    assert run(MultiSimilarityLoss(), hard, [*labels, 2, 3])[0] == 0.0
    value, _ = run(MultiSimilarityLoss(), np.concatenate([hard, hard[4:]]), [*labels, 2, 3, 2, 3])
    alone, _ = run(MultiSimilarityLoss(), np.concatenate([hard[4:], hard[4:]]), [2, 3, 2, 3])
    assert value == pytest.approx(alone / 2.0, rel=1e-5)


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"beta": -1.0}, {"base": 1.5}, {"epsilon": -0.1}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        MultiSimilarityLoss(**settings)
