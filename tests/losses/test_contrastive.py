import functools

import naive_losses as naive
import numpy as np
import pytest
from loss_cases import UNEQUAL, check_against, embeddings, run

from metric_learning.checks import UserError
from metric_learning.losses.contrastive import ContrastiveLoss


@pytest.mark.parametrize("margins", [(0.0, 0.5), (0.3, 1.0), (1.2, 1.4)])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_the_naive_twin(margins, seed):
    twin = functools.partial(naive.contrastive, pos_margin=margins[0], neg_margin=margins[1])
    check_against(ContrastiveLoss(*margins), twin, embeddings(len(UNEQUAL), seed=seed), UNEQUAL)


# On the unit circle: 0 and 60 degrees are one class, 90 and 180 another.
ANGLES = np.deg2rad([0.0, 60.0, 90.0, 180.0])
POINTS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


def test_by_hand():
    loss = ContrastiveLoss(0.0, 1.0)
    value, _ = run(loss, POINTS, [0, 0, 1, 1])
    # Distances: 1 and sqrt 2 within; between, only 60 and 90 degrees are nearer than 1.
    near = 2.0 * np.sin(np.deg2rad(15.0))
    assert value == pytest.approx((1.0 + np.sqrt(2.0)) / 2.0 + (1.0 - near), abs=1e-6)
    # Both of each: 4 ordered positive pairs, and 2 of the 8 negative ones.
    assert loss.figures["active_share"] == pytest.approx(6 / 12)


def test_a_sample_alone_in_its_class_is_still_pushed_away():
    x = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.1]])
    _, gradient = run(ContrastiveLoss(), x, [0, 0, 1])
    assert gradient[2].any()


def test_nothing_to_do_is_zero_and_flat():
    loss = ContrastiveLoss()
    value, gradient = run(loss, np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]), [0, 0, 1, 1])
    assert value == 0.0 and not gradient.any()
    assert loss.figures["active_share"] == 0.0


@pytest.mark.parametrize("settings", [{"pos_margin": -0.1}, {"neg_margin": float("nan")}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        ContrastiveLoss(**settings)
