import functools

import naive_losses as naive
import numpy as np
import pytest
from loss_cases import UNEQUAL, check_against, embeddings, run

from metric_learning.checks import UserError
from metric_learning.losses.circle import CircleLoss


@pytest.mark.parametrize("settings", [(0.4, 80.0), (0.25, 256.0), (0.0, 4.0)])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_the_naive_twin_with_fixed_weights(settings, seed):
    x = embeddings(len(UNEQUAL), seed=seed)
    twin = functools.partial(naive.circle, margin=settings[0], gamma=settings[1], weights_at=x.tolist())
    check_against(CircleLoss(*settings), twin, x, UNEQUAL)


def test_a_positive_is_pulled_by_how_far_it_is():
    """Gradient in s_p is -gamma a_p Z (the paper's equation 10): twice as far from 1 + m, twice the pull."""
    # Every exponent is far above 0, where softplus has slope 1, so each anchor's pull is gamma a_p alone.
    value, _ = run(CircleLoss(0.4, 80.0), np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), [0, 0, 1])
    near = 80.0 * 1.4 * 0.6
    far = [80.0 * (s + 0.4) * (s - 0.4) for s in (0.6, 0.8)]
    assert value == pytest.approx(np.mean([near + each for each in far]), rel=1e-5)


def test_an_anchor_is_active_above_the_boundary():
    loss = CircleLoss()
    run(loss, np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]), [0, 0, 1, 1])
    assert loss.figures["active_share"] == 0.0
    run(loss, np.ones((4, 2)), [0, 0, 1, 1])
    assert loss.figures["active_share"] == 1.0


@pytest.mark.parametrize("settings", [{"margin": 1.1}, {"margin": -0.1}, {"gamma": 0.0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        CircleLoss(**settings)
