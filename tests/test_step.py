"""One step's gradients: the batch in pieces equals the batch as a whole; scaling; what is random."""

from unittest import mock

import numpy as np
import paddle
import pytest
from paddle import nn

from metric_learning import losses
from metric_learning.data.loader import Batch
from metric_learning.losses import ELEMENT_LOSSES, PAIR_LOSSES, element_loss, pair_loss
from metric_learning.step import Step, pieces_of

LABELS = [0, 0, 1, 2, 2, 0, 1, 1, 2, 3, 3, 1]  # rows of triplets too
QUICK = {"mining": "batch_hard"}


def batch(step: int = 0) -> Batch:
    images = np.random.default_rng(step).normal(size=(12, 3, 8, 8)).astype(np.float32)
    return Batch(step, images, np.array(LABELS), np.arange(12), [f"{i}" for i in range(12)], [None] * 12)


def network(drop: float = 0.0) -> nn.Layer:
    paddle.seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Dropout(drop), nn.Linear(16, 5))


def made(name: str):
    paddle.seed(2)
    with mock.patch.object(losses, "TWO_CLASSES", ()):
        return element_loss(name, 4, 5) if name in ELEMENT_LOSSES else pair_loss(name)


def gradients(name: str, pieces: int, drop: float = 0.0, scale: float = 1.0):
    net, loss = network(drop), made(name)
    value = Step(net, lambda b: net(paddle.to_tensor(b.images)), loss, 5, pieces=pieces, scale=lambda: scale)(batch())
    layers = [*net.named_parameters(), *loss.named_parameters()]
    return value, {n: p.grad.numpy() for n, p in layers}, {n: b.numpy() for n, b in loss.named_buffers()}


@pytest.mark.parametrize("pieces", [2, 5, 12])
@pytest.mark.parametrize("name", [*ELEMENT_LOSSES, *PAIR_LOSSES])
@pytest.mark.sweep
def test_pieces_give_the_loss_gradients_and_averages_of_the_whole(name, pieces):
    whole, slopes, buffers = gradients(name, 1)
    value, found, moved = gradients(name, pieces)
    assert value == pytest.approx(whole, rel=1e-5)
    for n, slope in slopes.items():
        np.testing.assert_allclose(found[n], slope, rtol=0, atol=1e-4 * max(np.abs(slope).max(), 0.1), err_msg=n)
    for n, buffer in buffers.items():
        np.testing.assert_allclose(moved[n], buffer, rtol=1e-5, err_msg=n)


def test_both_passes_of_a_piece_drop_the_same_entries():
    """Else the gradient would be that of another network: a large step along it would not lower the loss it is of."""
    net, loss = network(0.5), made("npairs")
    seen = []

    def forward(b: Batch):
        found = net(paddle.to_tensor(b.images))
        seen.append(found.detach().numpy())
        return found

    Step(net, forward, loss, 5, pieces=3)(batch())
    assert len(seen) == 6
    for first, second in zip(seen[:3], seen[3:], strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(seen[0], seen[1])


def test_statistics_move_once_for_each_piece():
    paddle.seed(1)
    net = nn.Sequential(nn.BatchNorm2D(3), nn.Flatten(), nn.Linear(192, 5))
    with pytest.warns(UserWarning, match="always track"):
        Step(net, lambda b: net(paddle.to_tensor(b.images)), made("eml"), 5, pieces=2)(batch())
    expected = np.zeros(3)
    for piece in pieces_of(batch(), 2):
        expected = 0.9 * expected + 0.1 * piece.images.astype(np.float64).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(net[0]._mean.numpy(), expected, atol=1e-7)


def test_the_scale_is_in_the_gradients_and_not_in_the_value():
    plain, scaled = gradients("arcmargin", 3), gradients("arcmargin", 3, scale=8.0)
    assert scaled[0] == pytest.approx(plain[0])
    for n, slope in plain[1].items():
        np.testing.assert_allclose(scaled[1][n], 8.0 * slope, rtol=1e-4, atol=1e-6)


def test_what_is_beside_is_added():
    net, loss = network(), made("eml")
    embed = lambda b: net(paddle.to_tensor(b.images))  # noqa: E731
    alone = Step(net, embed, loss, 5)(batch())
    both = Step(net, embed, loss, 5, beside=lambda x, b: (x * 0.0).sum() + len(b.labels))(batch())
    assert both == pytest.approx(alone + 12)


def test_randomness_depends_on_seed_and_step():
    assert gradients("eml", 1, 0.5)[0] == gradients("eml", 1, 0.5)[0] != gradients("eml", 1, 0.4)[0]
    net, loss = network(0.5), made("eml")
    values = {Step(net, lambda b: net(paddle.to_tensor(b.images)), loss, seed)(batch()) for seed in (1, 2, 3)}
    assert len(values) == 3


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_pieces_hold_everything_once_and_in_order(count):
    parts = list(pieces_of(batch(), count))
    assert len(parts) == count and {len(part.labels) // (12 // count) for part in parts} <= {1, 2}
    assert [path for part in parts for path in part.paths] == batch().paths
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), batch().images)
