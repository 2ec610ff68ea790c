"""Label smoothing, class weights and the loss of one logit: against twins, at their ends, and what is refused."""

import math
import warnings

import naive_losses as naive
import numpy as np
import paddle
import pytest
from loss_cases import embeddings, numeric_gradient, run
from margin_twins import CASES, built, twin

from metric_learning.checks import UserError
from metric_learning.losses import element_loss, pool_loss
from metric_learning.losses.class_weights import balanced_weights, named_weights
from metric_learning.losses.element import ElementLoss
from metric_learning.optimizer import Optimizer
from metric_learning.step import Step

LABELS = [3, 0, 1, 1, 3, 2, 0]
WEIGHTS = [0.5, 3.0, 1.0, 0.1]


@pytest.mark.parametrize(
    ("gamma", "smoothing", "weights"),
    [(0.0, 0.1, None), (0.0, 0.9, WEIGHTS), (2.0, 0.3, None), (2.0, 0.3, WEIGHTS), (0.0, 0.0, WEIGHTS)],
)
@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.sweep
def test_value_and_gradient_equal_the_naive_twin(name, settings, gamma, smoothing, weights):
    loss = built(name, focal_gamma=gamma, label_smoothing=smoothing, class_weights=weights, **settings)
    if loss.centers.bias is not None:
        loss.centers.bias.set_value(np.array([0.3, -0.2, 0.1, 0.7], dtype=np.float32))
    x = embeddings(len(LABELS))
    same = twin(name, loss, x.tolist(), LABELS, gamma, smoothing=smoothing, weights=weights, **settings)
    value, gradient = run(loss, x, LABELS)
    assert value == pytest.approx(same(x.tolist()), rel=1e-4)
    slope = numeric_gradient(same, x)
    np.testing.assert_allclose(gradient, slope, rtol=2e-3, atol=1e-4 * max(1.0, np.abs(slope).max()))


def test_a_smoothed_target_is_reached_and_gone_past():
    """The loss is least where the logits are ln((1 - eps + eps / C) / (eps / C)) apart, not at infinity."""
    wanted = math.log((0.9 + 0.1 / 3) / (0.1 / 3))
    loss = one_logit_each(3, 0.1)
    for apart, sign in ((wanted, 0.0), (wanted - 0.5, -1.0), (wanted + 0.5, 1.0)):
        slope = run(loss, [[apart, 0.0, 0.0]], [0])[1][0, 0]
        assert slope == pytest.approx(0.0, abs=1e-6) if sign == 0.0 else slope * sign > 0.01


def one_logit_each(classes, smoothing):
    """softmax whose logits are the embedding itself."""
    loss = element_loss("softmax", classes, classes, label_smoothing=smoothing)
    loss.centers.weight.set_value(np.eye(classes, dtype=np.float32))
    return loss


@pytest.mark.parametrize("size", [1.0, 1e2, 1e4])
def test_large_logits_lose_no_digits_to_smoothing(size):
    x = embeddings(6, 3, spread=size) + 3 * size  # all of them far from 0
    x = x.astype(np.float32).astype(np.float64)
    labels = [0, 1, 2, 0, 1, 2]
    value, gradient = run(one_logit_each(3, 0.2), x, labels)
    assert value == pytest.approx(naive.mean(naive.cross_entropies(x.tolist(), labels, smoothing=0.2)), rel=1e-6)
    shares = np.array([[math.exp(v - naive.log_sum_exp(row)) for v in row] for row in x.tolist()])
    target = 0.2 / 3 + 0.8 * np.eye(3)[labels]
    np.testing.assert_allclose(gradient, (shares - target) / 6, atol=1e-6)


def test_figures_are_those_without_smoothing_and_weights():
    plain, other = built("arcmargin"), built("arcmargin", label_smoothing=0.3, class_weights=WEIGHTS)
    x = embeddings(7)
    assert run(plain, x, LABELS)[0] != run(other, x, LABELS)[0]
    assert plain.figures == pytest.approx(other.figures, rel=1e-6)


def test_each_sample_s_part_has_the_loss_as_its_mean():
    loss = built("arcmargin", class_weights=WEIGHTS, label_smoothing=0.1)
    x, y = paddle.to_tensor(embeddings(7).astype("float32")), paddle.to_tensor(LABELS)
    assert loss.each(x, y).mean().item() == loss(x, y).item()


def test_equal_weights_change_nothing_and_only_their_ratios_count():
    x = embeddings(7)
    plain = run(built("softmax"), x, LABELS)[0]
    assert run(built("softmax", class_weights=[7.0] * 4), x, LABELS)[0] == pytest.approx(plain, rel=1e-6)
    one, other = (run(built("softmax", class_weights=np.multiply(WEIGHTS, by)), x, LABELS)[0] for by in (1.0, 1e-6))
    assert one == pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize("pieces", [2, 5])
def test_pieces_of_a_batch_weigh_as_the_whole(pieces):
    from metric_learning.data.loader import Batch

    found = []
    for count in (1, pieces):
        paddle.seed(1)
        net = paddle.nn.Linear(6, 5)
        loss = built("arcmargin", class_weights=WEIGHTS, label_smoothing=0.1, scale=8.0)
        batch = Batch(0, embeddings(7, 6).astype(np.float32), np.array(LABELS), np.arange(7), ["x"] * 7, [None] * 7)
        value = Step(net, lambda b, net=net: net(paddle.to_tensor(b.images)), loss, 5, pieces=count)(batch)
        found.append((value, net.weight.grad.numpy(), loss.centers.weight.grad.numpy()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


def test_balanced_weights_are_scikit_learn_s():
    """n / (C n_c), so that each class has the same sum of weights; an empty one counts nowhere."""
    counts = np.array([10, 30, 0, 60])
    found = balanced_weights(counts)
    np.testing.assert_allclose(found, [100 / 30, 100 / 90, 1.0, 100 / 180])
    assert (found * counts).sum() == pytest.approx(100.0)


def test_weights_by_name():
    assert named_weights(["a", "b", "c"], {"c": 2.0}).tolist() == [1.0, 1.0, 2.0]
    with pytest.raises(UserError, match="Did you mean 'female'"):
        named_weights(["female", "male"], {"femal": 2.0})
    with pytest.raises(UserError, match=r"--class_weights of male must be above 0"):
        named_weights(["female", "male"], {"male": 0.0})


@pytest.mark.parametrize("weights", [[1.0] * 3, [1.0, 1.0, 1.0, 0.0], [1.0, 1.0, -1.0, 1.0], [math.nan] * 4, 3.0])
def test_weights_that_cannot_be(weights):
    with pytest.raises(UserError, match=r"class_weights must be 4 finite numbers above 0"):
        built("softmax", class_weights=weights)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_a_share_that_cannot_be(smoothing):
    with pytest.raises(UserError, match="label_smoothing"):
        built("softmax", label_smoothing=smoothing)


def test_smoothing_needs_all_centres():
    with pytest.raises(UserError, match=r"label_smoothing .*--centers=all"):
        built("arcmargin", centers="partial", label_smoothing=0.1)
    pool = pool_loss("arcmargin", 4, 5, 3).element
    with pytest.raises(UserError, match=r"label_smoothing .*--centers=all"):
        ElementLoss(pool.centers, pool.margin, label_smoothing=0.1)


# ---- two classes by one logit


def naive_bce(z, y, smoothing=0.0, gamma=0.0):
    """Sigmoid cross-entropy of a logit, from softplus; the focal factor is of the plain probability."""
    wrong, right = (z, -z) if y == 0 else (-z, z)  # -log p is softplus(wrong)
    cost = (1 - smoothing / 2) * naive.softplus(wrong) + smoothing / 2 * naive.softplus(right)
    return (1.0 - math.exp(-naive.softplus(wrong))) ** gamma * cost


def bce(**settings):
    """z = 2 x0 - x1 + 0.5."""
    loss = element_loss("bce", 2, 2, **settings)
    loss.centers.weight.set_value(np.array([[0, 0], [2, -1]], np.float32))
    loss.centers.bias.set_value(np.array([0, 0.5], np.float32))
    return loss


@pytest.mark.parametrize("weights", [None, [1.0, 4.0]])
@pytest.mark.parametrize(("smoothing", "gamma"), [(0.0, 0.0), (0.2, 0.0), (0.0, 2.0), (0.2, 2.0)])
def test_bce_is_sigmoid_cross_entropy(smoothing, gamma, weights):
    x, labels = embeddings(9, 2), [0, 1, 1, 0, 0, 1, 0, 1, 1]
    w = [1.0 if weights is None else weights[y] for y in labels]

    def same(moved, weight=(2.0, -1.0), bias=0.5):
        costs = [
            naive_bce(naive.dot(v, weight) + bias, y, smoothing, gamma) for v, y in zip(moved, labels, strict=True)
        ]
        return naive.dot(w, costs) / sum(w)

    loss = bce(label_smoothing=smoothing, focal_gamma=gamma, class_weights=weights)
    value, gradient = run(loss, x, labels)
    assert value == pytest.approx(same(x.tolist()), rel=1e-6)
    np.testing.assert_allclose(gradient, numeric_gradient(same, x), rtol=1e-4, atol=1e-6)
    to_weight = [
        (same(x.tolist(), (2 + a, b - 1)) - same(x.tolist(), (2 - a, -b - 1))) / 2e-6 for a, b in np.eye(2) * 1e-6
    ]
    np.testing.assert_allclose(loss.centers.weight.grad.numpy(), [[0, 0], to_weight], rtol=1e-4, atol=1e-6)
    to_bias = (same(x.tolist(), bias=0.5 + 1e-6) - same(x.tolist(), bias=0.5 - 1e-6)) / 2e-6
    np.testing.assert_allclose(loss.centers.bias.grad.numpy(), [0, to_bias], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("z", [-1e4, -90.0, -20.0, 0.0, 20.0, 90.0, 1e4])
@pytest.mark.parametrize("y", [0, 1])
def test_bce_at_large_logits(z, y, smoothing):
    loss = element_loss("bce", 2, 1, label_smoothing=smoothing)
    loss.centers.weight.set_value(np.array([[0], [1]], np.float32))
    value, gradient = run(loss, [[z]], [y])
    assert value == pytest.approx(naive_bce(z, y, smoothing), rel=1e-6, abs=1e-6)
    sigmoid = 1 / (1 + math.exp(-z)) if z > -700 else 0.0
    target = y * (1 - smoothing) + smoothing / 2
    assert gradient[0, 0] == pytest.approx(sigmoid - target, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_the_first_class_stays_at_zero_and_is_saved_so(kind):
    loss, net = element_loss("bce", 2, 5), paddle.nn.Linear(5, 5)
    optimizer = Optimizer(kind, net, loss, momentum=0.9, weight_decay=0.1)
    optimizer.set_lr(0.1)
    before = loss.centers.weight.numpy().copy()
    for number in range(3):
        loss(
            net(paddle.to_tensor(embeddings(4, seed=number).astype("float32"))), paddle.to_tensor([0, 1, 1, 0])
        ).backward()
        optimizer.step()
    saved = {name: value.numpy() for name, value in loss.state_dict().items()}
    assert saved.keys() == {"centers.weight", "centers.bias"}
    assert not saved["centers.weight"][0].any() and saved["centers.bias"][0] == 0.0
    assert (saved["centers.weight"][1] != before[1]).all() and saved["centers.bias"][1] != 0.0


def test_bce_learns_what_can_be_told_apart():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=64)
    x = paddle.to_tensor((rng.normal(size=(64, 3)) + 3 * y[:, None]).astype(np.float32))
    loss = element_loss("bce", 2, 3, class_weights=[1.0, 2.0], label_smoothing=0.05, dropout=0.1)
    optimizer = Optimizer("momentum", paddle.nn.Layer(), loss)
    optimizer.set_lr(0.3)
    for _ in range(80):
        loss(x, paddle.to_tensor(y)).backward()
        optimizer.step()
    assert loss.figures["accuracy"] > 0.95


@pytest.mark.parametrize("classes", [1, 3, 100])
def test_bce_is_for_two_classes(classes):
    with pytest.raises(UserError, match=f"bce is for two classes; there are {classes}. Take softmax"):
        element_loss("bce", classes, 5)


def test_bce_needs_all_centres():
    with pytest.raises(UserError, match="bce needs --centers=all; got partial"):
        element_loss("bce", 2, 5, centers="partial")


def test_no_warning_is_given():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bce(label_smoothing=0.1, class_weights=[1.0, 2.0])(paddle.randn([3, 2]), paddle.to_tensor([0, 1, 1]))
