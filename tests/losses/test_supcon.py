import functools
import math

import naive_losses as naive
import numpy as np
import pytest
from loss_cases import UNEQUAL, check_against, embeddings, run

from metric_learning.checks import UserError
from metric_learning.losses.supcon import SupConLoss


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_the_naive_twin(temperature, seed):
    twin = functools.partial(naive.supcon, temperature=temperature)
    check_against(SupConLoss(temperature), twin, embeddings(len(UNEQUAL), seed=seed), UNEQUAL)


def test_identical_embeddings_are_a_uniform_choice_among_the_others():
    assert run(SupConLoss(), np.ones((6, 3)), [0, 0, 0, 1, 1, 1])[0] == pytest.approx(math.log(5.0), rel=1e-6)


def test_a_small_temperature_is_not_cut_off():
    # Each anchor's positive is opposite to it: a loss of 200, far above the 64 at which Paddle's own function stops.
    value, _ = run(SupConLoss(0.01), np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), [0, 0, 1, 1])
    assert value == pytest.approx(200.0, rel=1e-5)


def test_an_anchor_is_active_until_its_best_match_is_its_own():
    loss = SupConLoss()
    run(loss, np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), [0, 0, 1, 1])
    assert loss.figures["active_share"] == 0.0
    run(loss, np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [1.0, 0.2]]), [0, 0, 1, 1])
    assert loss.figures["active_share"] == 0.5


@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan])
def test_bad_settings_are_refused(temperature):
    with pytest.raises(UserError, match="temperature"):
        SupConLoss(temperature)
