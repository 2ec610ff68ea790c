"""The margins of faces: where they bend, at the ends of the cosine, with one margin a sample; and known facts."""

import math

import naive_losses as naive
import numpy as np
import paddle
import pytest
from loss_cases import embeddings, numeric_gradient, run
from margin_twins import CASES, at_angle, built, twin

from metric_learning.checks import UserError
from metric_learning.losses import ELEMENT_LOSSES
from metric_learning.losses.margins import AdaFace, AmSoftmax, CurricularFace, MagFace, SphereFace
from metric_learning.losses.margins.sphereface import multiplied

NORMALIZED = [(name, settings) for name, settings in CASES if ELEMENT_LOSSES[name].normalized]
TAKE_EXTRA = [name for name, kind in ELEMENT_LOSSES.items() if kind.takes_extra]
EXTRA = [0.1, -0.05, 0.3, 0.0, 0.2, -0.1, 0.05]
LABELS = [3, 0, 1, 1, 3, 2, 0]


def own_logits(margin, cosines, norms=None, extra=None):
    """The true class's logits over the scale, and their slopes, at these cosines; there is one more class, at 0.2."""
    own = paddle.to_tensor(np.asarray(cosines, np.float32), stop_gradient=False)
    cosine = paddle.stack([own, paddle.full_like(own, 0.2)], axis=1)
    norms = paddle.to_tensor(np.asarray(np.ones(len(cosines)) if norms is None else norms, dtype=np.float32))
    extra = None if extra is None else paddle.to_tensor(np.asarray(extra, dtype=np.float32))
    true = margin(cosine, own, norms, extra).true
    true.sum().backward()
    return true.numpy() / margin.scale, own.grad.numpy() / margin.scale


# ---- where the margins bend


@pytest.mark.parametrize(("name", "settings"), NORMALIZED)
def test_value_and_gradient_at_every_angle(name, settings):
    loss = built(name, classes=3, trained=True, **settings)
    weight = loss.centers.weight.numpy().astype(np.float64)
    angles = [0.15, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.7, 3.0]
    x = np.stack([at_angle(weight[i % 3], angle, 1.1 + i / 3) for i, angle in enumerate(angles)])
    x = x.astype(np.float32).astype(np.float64)
    labels = [i % 3 for i in range(len(angles))]
    same = twin(name, loss, x.tolist(), labels, **settings)
    value, gradient = run(loss, x, labels)
    assert value == pytest.approx(same(x.tolist()), rel=1e-4)
    slope = numeric_gradient(same, x)
    np.testing.assert_allclose(gradient, slope, rtol=5e-3, atol=2e-4 * np.abs(slope).max())


@pytest.mark.parametrize(("name", "settings"), NORMALIZED)
@pytest.mark.parametrize("angle", [0.0, math.pi])
def test_value_at_the_ends(name, settings, angle):
    loss = built(name, classes=3, trained=True, **settings)
    weight = loss.centers.weight.numpy().astype(np.float64)
    x = np.stack([at_angle(weight[i], angle, 2.0) for i in range(3)])
    same = twin(name, loss, x.tolist(), [0, 1, 2], **settings)
    assert run(loss, x, [0, 1, 2])[0] == pytest.approx(same(x.tolist()), rel=2e-3, abs=1e-3)


@pytest.mark.parametrize(("name", "settings"), NORMALIZED)
def test_slopes_are_finite_at_the_ends_and_past_the_turn(name, settings):
    loss = built(name, trained=True, **settings)
    ends = [1.0, -1.0, 1.0000001, -1.0000001, 0.99999994, -0.99999994, 0.0, 0.9999, -0.9999]
    turns = [math.cos(math.pi - bend) for bend in (0.05, 0.15, 0.5, 0.7, 1.2, 1.5)]
    cosines = np.array((ends + turns) * 4)
    norms = np.repeat([0.0, 1e-6, 2.2, 1e6], len(cosines) // 4)
    value, slope = own_logits(loss.margin, cosines, norms)
    assert np.isfinite(value).all() and np.isfinite(slope).all()


# ---- one margin a sample


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize(("name", "settings"), [case for case in CASES if case[0] in TAKE_EXTRA])
def test_extra_is_added_to_the_margin_of_each_sample(name, settings, gamma):
    loss = built(name, trained=True, focal_gamma=gamma, **settings)
    x = embeddings(len(LABELS))
    same = twin(name, loss, x.tolist(), LABELS, gamma, EXTRA, **settings)

    def with_extra(tensor, labels):
        return loss(tensor, labels, paddle.to_tensor(EXTRA))

    value, gradient = run(with_extra, x, LABELS)
    assert value == pytest.approx(same(x.tolist()), rel=1e-4)
    slope = numeric_gradient(same, x)
    np.testing.assert_allclose(gradient, slope, rtol=2e-3, atol=1e-4 * max(1.0, np.abs(slope).max()))


@pytest.mark.parametrize("name", TAKE_EXTRA)
def test_no_extra_is_an_extra_of_zero_and_one_of_any_size_is_finite(name):
    loss = built(name, trained=True)
    loss.eval()
    x, labels = paddle.to_tensor(embeddings(7).astype("float32"), stop_gradient=False), paddle.to_tensor(LABELS)
    assert loss(x, labels, paddle.zeros([7])).item() == pytest.approx(loss(x, labels).item(), rel=1e-5)
    value = loss(x, labels, paddle.to_tensor([-9.0, -1.0, -0.1, 1.0, 3.0, 9.0, 100.0], dtype="float64"))
    value.backward()
    assert math.isfinite(value.item()) and np.isfinite(x.grad.numpy()).all()


def test_a_larger_extra_is_a_harder_sample_and_has_a_gradient():
    for name in TAKE_EXTRA:
        loss = built(name, scale=4.0)
        loss.eval()
        x, labels = paddle.to_tensor(embeddings(7).astype("float32")), paddle.to_tensor(LABELS)
        extra = paddle.full([7], 0.05)
        extra.stop_gradient = False
        loss(x, labels, extra).backward()
        assert (extra.grad.numpy() > 0.0).all(), name


@pytest.mark.parametrize("name", [name for name in ELEMENT_LOSSES if name not in TAKE_EXTRA])
def test_a_margin_without_a_meaning_for_extra_refuses_it(name):
    loss = built(name)
    with pytest.raises(UserError, match="Choose arcmargin"):
        loss(paddle.randn([2, 5]), paddle.to_tensor([0, 1]), paddle.zeros([2]))
    assert [name for name in ELEMENT_LOSSES if name not in TAKE_EXTRA] == ["softmax", "bce", "sphereface"]


@pytest.mark.parametrize("shape", [[3], [2, 1], [1], []])
def test_an_extra_of_another_shape_is_refused(shape):
    with pytest.raises(UserError, match="extra must be"):
        built("arcmargin")(paddle.randn([2, 5]), paddle.to_tensor([0, 1]), paddle.zeros(shape))


# ---- known facts


def test_amsoftmax_moves_the_cosine_by_the_margin():
    cosine = np.linspace(-1.0, 1.0, 9)
    value, slope = own_logits(AmSoftmax(), cosine)
    np.testing.assert_allclose(value, cosine - 0.35, atol=1e-6)
    np.testing.assert_allclose(slope, 1.0)
    value, _ = own_logits(AmSoftmax(margin=0.4, easy_margin=True), [-0.5, 0.3, 0.39, 0.41, 0.9])
    np.testing.assert_allclose(value, [-0.5, 0.3, 0.39, 0.01, 0.5], atol=1e-6)


def test_sphereface_falls_all_the_way_and_is_the_authors_polynomial_for_four():
    cosine = paddle.to_tensor(np.linspace(1.0, -1.0, 2001).astype(np.float32))
    for margin in (1.0, 1.35, 2.0, 3.0, 4.0, 7.5):
        assert (np.diff(multiplied(cosine, margin).numpy()) < 1e-5).all()
    np.testing.assert_allclose(multiplied(cosine, 1.0).numpy(), cosine.numpy(), atol=1e-6)
    c = cosine.numpy().astype(np.float64)
    first = np.sign(c)
    third = first * np.sign(2 * c**2 - 1)
    expected = third * (8 * c**4 - 8 * c**2 + 1) + 2 * first + third - 3
    keep = (np.abs(c) > 1e-3) & (np.abs(2 * c**2 - 1) > 1e-3)  # the sign of 0 is 0, which psi never is
    np.testing.assert_allclose(multiplied(cosine, 4.0).numpy()[keep], expected[keep], atol=2e-5)


def test_sphereface_anneals_by_its_own_count_of_batches():
    margin = SphereFace()
    seen = []
    for _ in range(3):
        own_logits(margin, [0.3])
        seen.append(margin.annealing().item())
    np.testing.assert_allclose(seen, [1000.0 / 1.12, 1000.0 / 1.24, 1000.0 / 1.36], rtol=1e-6)
    margin.t.set_value(paddle.to_tensor([10**7]))
    assert margin.annealing().item() == 5.0


def test_sphereface_has_two_forms():
    assert (SphereFace().lambda_base, SphereFace().lambda_min, SphereFace().scale) == (1000.0, 5.0, 64.0)
    second = SphereFace(margin=1.35)
    assert (second.lambda_base, second.lambda_min, second.scale) == (0.0, 0.0, 64.0)
    value, _ = own_logits(second, np.cos([0.3, 1.0, 2.0]))
    np.testing.assert_allclose(value, np.cos([0.405, 1.35, 2.7]), atol=1e-5)
    assert SphereFace(margin=1.35, lambda_base=10.0, lambda_min=1.0).annealing().item() == 10.0


def test_magface_margin_follows_the_length_and_stops_at_its_ends():
    margin = MagFace()
    found = margin.margin_of(paddle.to_tensor([0.0, 5.0, 10.0, 60.0, 110.0, 500.0])).numpy()
    np.testing.assert_allclose(found, [0.45, 0.45, 0.45, 0.625, 0.8, 0.8], rtol=1e-5)
    value, _ = own_logits(margin, np.cos([1.0, 1.0]), norms=[1.0, 200.0])
    np.testing.assert_allclose(value, np.cos([1.45, 1.8]), atol=1e-6)


def test_magface_penalty_falls_up_to_the_longest_length():
    lengths = paddle.to_tensor([1.0, 10.0, 50.0, 109.0, 110.0, 300.0], stop_gradient=False)
    penalty = MagFace().penalty(lengths)
    penalty.sum().backward()
    np.testing.assert_allclose(penalty.numpy(), [naive.magface_penalty([v]) for v in lengths.tolist()], rtol=1e-5)
    slope = lengths.grad.numpy()
    assert (slope[[1, 2, 3]] <= 0.0).all() and slope[2] < 0.0 and slope[0] == slope[5] == 0.0


def test_the_focal_factor_does_not_touch_magface_s_penalty():
    x = embeddings(7, spread=20.0)
    for gamma in (0.0, 2.0):
        without = run(built("magface", focal_gamma=gamma, lambda_g=0.0), x, LABELS)[0]
        value = run(built("magface", focal_gamma=gamma), x, LABELS)[0]
        expected = naive.mean([naive.magface_penalty(v) for v in x.tolist()])
        assert value - without == pytest.approx(expected, rel=1e-3)


def test_curricularface_changes_only_classes_beyond_the_bound():
    margin = CurricularFace(scale=1.0, margin=0.5, ema_rate=0.0)
    margin.t.set_value(paddle.to_tensor([0.3]))
    cosine = paddle.to_tensor([[math.cos(1.0), 0.9, 0.05, -0.4, math.cos(1.5) + 0.01]])
    found = margin(cosine, cosine[:, 0], paddle.ones([1]))
    near = math.cos(1.5) + 0.01
    assert found.true.item() == pytest.approx(math.cos(1.5), abs=1e-6)
    np.testing.assert_allclose(found.others.numpy()[0, 1:], [0.9 * 1.2, 0.05, -0.4, near * (0.3 + near)], atol=1e-6)


def test_adaface_is_arcface_for_a_bad_picture_and_cosface_for_a_middling_one():
    margin = AdaFace(h=1.0, ema_rate=0.0)
    margin.mean.set_value(paddle.to_tensor([50.0]))
    margin.std.set_value(paddle.to_tensor([10.0]))
    angles = np.array([0.7, 1.0, 2.0])
    for norm, expected in (
        (1.0, np.cos(angles + 0.4)),
        (50.0, np.cos(angles) - 0.4),
        (99.0, np.cos(angles - 0.4) - 0.8),
    ):
        value, _ = own_logits(margin, np.cos(angles), norms=[norm] * 3)
        np.testing.assert_allclose(value, expected, atol=1e-6)
    value, slope = own_logits(margin, [math.cos(0.1), -math.cos(0.1)], norms=[99.0, 1.0])  # cut at 0 and at pi
    np.testing.assert_allclose(value, [1.0 - 0.8, -1.0], atol=1e-6)
    assert not slope.any()


# ---- settings


@pytest.mark.parametrize(
    ("kind", "settings", "word"),
    [
        *((kind, {"scale": 0.0}, "scale") for kind in (AdaFace, AmSoftmax, CurricularFace, MagFace, SphereFace)),
        *((kind, {"margin": -0.1}, "margin of") for kind in (AdaFace, AmSoftmax, CurricularFace, SphereFace)),
        *((kind, {"margin": math.nan}, "margin of") for kind in (AdaFace, AmSoftmax, CurricularFace, SphereFace)),
        *((kind, {"ema_rate": 1.5}, "ema_rate") for kind in (AdaFace, CurricularFace)),
        (AdaFace, {"h": -1.0}, "h must"),
        (AmSoftmax, {"margin": 2.5}, "amsoftmax"),
        (SphereFace, {"margin": 0.5}, "sphereface"),
        (SphereFace, {"lambda_min": -1.0}, "lambda_min"),
        (SphereFace, {"lambda_base": math.inf}, "lambda_base"),
        (SphereFace, {"lambda_gamma": -1.0}, "lambda_gamma"),
        (MagFace, {"l_a": 0.0}, "l_a"),
        (MagFace, {"l_a": 200.0}, "u_a"),
        (MagFace, {"l_margin": 0.9}, "u_margin must be at least"),
        (MagFace, {"u_margin": 4.0}, "u_margin"),
        (MagFace, {"lambda_g": -1.0}, "lambda_g"),
    ],
)
def test_bad_settings_are_refused(kind, settings, word):
    with pytest.raises(UserError, match=word):
        kind(**settings)
