import math

import numpy as np
import paddle
import pytest
from loss_cases import embeddings, numeric_gradient, run
from margin_twins import CASES, built, twin

from metric_learning.checks import UserError
from metric_learning.losses import ELEMENT_LOSSES
from metric_learning.losses.centers import AllCenters
from metric_learning.losses.element import focal

LABELS = [3, 0, 1, 1, 3, 2, 0]


def test_every_loss_has_a_case_against_its_twin():
    assert {name for name, _ in CASES} == set(ELEMENT_LOSSES)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.sweep
def test_value_and_gradient_equal_the_naive_twin(name, settings, trained, gamma):
    loss = built(name, trained=trained, focal_gamma=gamma, **settings)
    if loss.centers.bias is not None:
        loss.centers.bias.set_value(np.array([0.3, -0.2, 0.1, 0.7], dtype=np.float32))
    x = embeddings(len(LABELS))
    same = twin(name, loss, x.tolist(), LABELS, gamma, **settings)
    value, gradient = run(loss, x, LABELS)
    assert value == pytest.approx(same(x.tolist()), rel=1e-4)
    slope = numeric_gradient(same, x)
    np.testing.assert_allclose(gradient, slope, rtol=2e-3, atol=1e-4 * max(1.0, np.abs(slope).max()))


@pytest.mark.parametrize("name", ELEMENT_LOSSES)
class TestEveryElementLoss:
    def test_trains_every_parameter(self, name):
        loss = built(name)
        loss.eval()  # the buffers stay
        before, _ = run(loss, embeddings(7), LABELS)
        for parameter in loss.parameters():
            gradient = parameter.grad.numpy()
            assert np.isfinite(gradient).all() and gradient.any(), parameter.name
            parameter.set_value(parameter - 1e-3 * parameter.grad)
        assert run(loss, embeddings(7), LABELS)[0] < before

    @pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])
    @pytest.mark.parametrize("sign", [-1.0, 0.0, 1.0])
    def test_gradient_is_finite_at_the_centre_at_its_opposite_and_at_zero(self, name, sign, gamma):
        loss = built(name, focal_gamma=gamma)
        x = sign * loss.centers.weight.numpy()[LABELS]
        value, gradient = run(loss, x, LABELS)
        assert math.isfinite(value) and np.isfinite(gradient).all()
        assert all(np.isfinite(p.grad.numpy()).all() for p in loss.parameters())

    def test_one_class(self, name):
        settings = {"lambda_g": 0.0} if name == "magface" else {}
        value, gradient = run(built(name, classes=1, **settings), embeddings(3), [0, 0, 0])
        assert value == 0.0
        assert not gradient.any()

    def test_one_sample(self, name):
        value, gradient = run(built(name), embeddings(1), [2])
        assert value > 0.0 and gradient.any()

    @pytest.mark.parametrize("gamma", [0.0, 2.0])
    def test_batches_of_one_train_on(self, name, gamma):
        loss = built(name, focal_gamma=gamma)
        for number in range(3):
            value, gradient = run(loss, embeddings(1, seed=number), [2])
            assert math.isfinite(value) and np.isfinite(gradient).all()
        assert all(np.isfinite(array.numpy()).all() for array in loss.state_dict().values())

    @pytest.mark.parametrize("gamma", [0.0, 2.0])
    @pytest.mark.parametrize("norm", [1e-30, 1e-6, 1e4, 1e15])
    def test_huge_and_small_norms(self, name, norm, gamma):
        loss = built(name, focal_gamma=gamma)
        value, gradient = run(loss, embeddings(7, spread=norm), LABELS)
        assert math.isfinite(value) and np.isfinite(gradient).all()
        assert all(np.isfinite(array.numpy()).all() for array in loss.state_dict().values())

    @pytest.mark.parametrize("label", [-1, 4, -100, 10**12])
    def test_label_out_of_range_is_an_error_that_names_it(self, name, label):
        with pytest.raises(UserError, match=rf"0\.\.3.*got {label}\b"):
            run(built(name), embeddings(2), [0, label])

    def test_order_of_the_batch_does_not_matter(self, name):
        order = np.random.default_rng(1).permutation(len(LABELS))
        x = embeddings(len(LABELS))
        value, gradient = run(built(name), x, LABELS)
        again, moved = run(built(name), x[order], np.array(LABELS)[order])
        assert again == pytest.approx(value, rel=1e-5)
        np.testing.assert_allclose(moved, gradient[order], rtol=1e-3, atol=1e-6)

    def test_the_same_seed_gives_the_same_bits(self, name):
        first, second = (run(built(name, seed=5), embeddings(7), LABELS) for _ in range(2))
        assert first[0] == second[0]
        assert np.array_equal(first[1], second[1])
        assert run(built(name, seed=6), embeddings(7), LABELS)[0] != first[0]

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_is_computed_in_float32(self, name, dtype):
        x = paddle.to_tensor(embeddings(7).astype("float32")).astype(dtype).astype("float32").numpy()
        assert run(built(name), x, LABELS, dtype)[0] == run(built(name), x, LABELS)[0]

    def test_figures(self, name):
        loss = built(name)
        assert loss.figures == {}
        run(loss, loss.centers.weight.numpy()[LABELS] * 50.0, LABELS)
        assert loss.figures["accuracy"] == 1.0
        assert 0.0 < loss.figures["target_probability"] <= 1.0
        assert loss.figures["embedding_norm"] > 1.0
        if loss.margin.normalized:
            assert loss.figures["target_cosine"] == pytest.approx(1.0, abs=1e-5)
        others = [label for label in LABELS if label]  # the first class of bce is at 0, on no side
        run(loss, -loss.centers.weight.numpy()[others], others)
        assert loss.figures["accuracy"] == 0.0


def test_defaults_are_paddlecv_s():
    margin = built("arcmargin").margin
    assert (margin.scale, margin.margin, margin.easy_margin) == (80.0, 0.15, False)
    assert built("softmax").centers.bias is not None and built("arcmargin").centers.bias is None


def test_defaults_are_the_papers():
    expected = {
        "amsoftmax": {"scale": 30.0, "margin": 0.35},
        "sphereface": {"scale": 64.0, "margin": 4.0, "lambda_base": 1000.0, "lambda_gamma": 0.12, "lambda_min": 5.0},
        "magface": {"scale": 64.0, "l_a": 10.0, "u_a": 110.0, "l_margin": 0.45, "u_margin": 0.8, "lambda_g": 35.0},
        "curricularface": {"scale": 64.0, "margin": 0.5, "ema_rate": 0.01},
        "adaface": {"scale": 64.0, "margin": 0.4, "h": 0.333, "ema_rate": 0.01},
    }
    for name, settings in expected.items():
        margin = built(name).margin
        assert {key: getattr(margin, key) for key in settings} == settings, name
        assert not getattr(margin, "easy_margin", False)


def test_focal_weighs_each_sample_before_the_mean():
    entropy = paddle.to_tensor([0.1, 2.0])
    expected = [(1.0 - math.exp(-e)) ** 2 * e for e in (0.1, 2.0)]
    np.testing.assert_allclose(focal(entropy, 2.0).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 5.0])
def test_focal_has_a_finite_slope_for_a_sample_that_is_certain(gamma):
    entropy = paddle.to_tensor([0.0, 1e-9, 90.0])
    entropy.stop_gradient = False
    focal(entropy, gamma).sum().backward()
    assert np.isfinite(entropy.grad.numpy()).all()


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="arcmargin"):
        built("arcmargn")


@pytest.mark.parametrize(
    "settings", [{"focal_gamma": -1.0}, {"focal_gamma": math.nan}, {"classes": 0}, {"dim": 0}, {"scale": -1.0}]
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(UserError):
        built("arcmargin", **settings)


def test_shapes_and_types_that_would_go_wrong_in_silence_are_refused():
    loss, x = built("softmax"), paddle.randn([3, 5])
    for labels in (paddle.zeros([3, 1], "int64"), paddle.zeros([2], "int64"), paddle.zeros([3], "float32")):
        with pytest.raises(UserError, match="labels"):
            loss(x, labels)
    with pytest.raises(UserError, match="embeddings"):
        loss(paddle.zeros([0, 5]), paddle.zeros([0], "int64"))


def test_centres_start_as_xavier_normal():
    paddle.seed(0)
    weight = AllCenters(300, 200).weight.numpy()
    assert weight.std() == pytest.approx(math.sqrt(2.0 / 500.0), rel=0.02)
    assert abs(weight.mean()) < 1e-3
