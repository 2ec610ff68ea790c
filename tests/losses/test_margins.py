import math

import numpy as np
import paddle
import pytest

from metric_learning.checks import UserError
from metric_learning.losses.margins import ArcMargin, Softmax


def moved(cosines, **settings):
    """The true class's logits over the scale, and their slopes, at these cosines."""
    margin = ArcMargin(**settings)
    own = paddle.to_tensor(np.asarray(cosines, dtype=np.float32))
    own.stop_gradient = False
    true = margin(own.unsqueeze(1), own, paddle.ones([len(cosines)])).true
    true.sum().backward()
    return true.numpy() / margin.scale, own.grad.numpy() / margin.scale


@pytest.mark.parametrize("easy_margin", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.15, 0.5, math.pi])
def test_gradient_is_finite_at_the_ends_and_past_the_turn(easy_margin, margin):
    cosines = [-1.0, 1.0, math.cos(math.pi - margin / 2), -math.cos(margin), 0.0, 1.0000001, -1.0000001]
    value, slope = moved(cosines, margin=margin, easy_margin=easy_margin)
    assert np.isfinite(value).all() and np.isfinite(slope).all()


def test_arcmargin_is_the_cosine_of_the_wider_angle():
    angle = np.linspace(0.05, math.pi - 0.2, 20)
    value, slope = moved(np.cos(angle), margin=0.15)
    np.testing.assert_allclose(value, np.cos(angle + 0.15), atol=1e-6)
    np.testing.assert_allclose(slope, np.sin(angle + 0.15) / np.sin(angle), rtol=1e-3)


def test_past_the_turn_a_line_takes_over():
    angle = np.array([math.pi - 0.14, math.pi - 0.01, math.pi])
    value, slope = moved(np.cos(angle), margin=0.15)
    np.testing.assert_allclose(value, np.cos(angle) - 0.15 * math.sin(0.15), atol=1e-6)
    np.testing.assert_allclose(slope, 1.0)


def test_easy_margin_leaves_the_cosines_up_to_zero_alone():
    value, _ = moved([-0.9, -0.1, 0.0, 0.1, 0.9], margin=0.15, easy_margin=True)
    np.testing.assert_allclose(value[:3], [-0.9, -0.1, 0.0], atol=1e-7)
    np.testing.assert_allclose(value[3:], np.cos(np.arccos([0.1, 0.9]) + 0.15), atol=1e-6)


def test_paddlecv_form_agrees_away_from_the_ends():
    scale, margin = 80.0, 0.15
    cosine = np.linspace(-0.95, 0.95, 39)
    sine = np.sqrt(1.0 - cosine**2 + 1e-6)
    hard = np.where(
        cosine > math.cos(math.pi - margin),
        cosine * math.cos(margin) - sine * math.sin(margin),
        cosine - math.sin(math.pi - margin) * margin,
    )
    value, _ = moved(cosine, scale=scale, margin=margin)
    np.testing.assert_allclose(value, hard, atol=1e-4)


def test_only_the_true_class_is_moved():
    cosine = paddle.to_tensor(np.random.default_rng(0).uniform(-0.9, 0.9, (4, 3)).astype("float32"))
    own = cosine[:, 1]
    logits = ArcMargin(scale=2.0, margin=0.3)(cosine, own, paddle.ones([4]))
    np.testing.assert_array_equal(logits.others.numpy(), cosine.numpy() * 2.0)
    np.testing.assert_allclose(logits.true.numpy(), 2.0 * np.cos(np.arccos(own.numpy()) + 0.3), atol=1e-6)


def test_softmax_leaves_the_products_alone():
    product = paddle.randn([2, 3])
    logits = Softmax()(product, product[:, 0], paddle.ones([2]))
    assert logits.others is product and (logits.true == product[:, 0]).all()
    assert not Softmax().normalized and ArcMargin().normalized


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"scale": 0.0}, "scale"),
        ({"scale": math.nan}, "scale"),
        ({"margin": -0.1}, "margin"),
        ({"margin": 4.0}, "margin"),
        ({"margin": math.nan}, "margin"),
    ],
)
def test_bad_settings_are_refused(settings, word):
    with pytest.raises(UserError, match=word):
        ArcMargin(**settings)
