"""Clipping, loss scaling, and rows that are moved by themselves: as Paddle's optimizers move all of them."""

import numpy as np
import paddle
import pytest
from paddle import nn

from metric_learning.checks import UserError
from metric_learning.losses import element_loss, partial_centers
from metric_learning.optimizer import FIRST_SCALE, GOOD_STEPS, Optimizer

LABELS = [4, 1, 4, 0]


class Nothing(nn.Layer):
    """A loss without parameters."""


def linear(seed: int = 0) -> nn.Layer:
    paddle.seed(seed)
    return nn.Linear(5, 3)


def slopes(net: nn.Layer, factor: float = 1.0) -> None:
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32))
    ((net(x) ** 2).sum() * factor).backward()


def moved(net: nn.Layer) -> list[np.ndarray]:
    return [p.numpy() for p in net.parameters()]


@pytest.mark.parametrize("clip", [0.5, 1e6])
@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_it_steps_as_paddles_own(kind, clip):
    ours, theirs = linear(), linear()
    shared = {
        "parameters": theirs.parameters(),
        "weight_decay": paddle.regularizer.L2Decay(0.1),
        "grad_clip": nn.ClipGradByGlobalNorm(clip),
    }
    paddles = paddle.optimizer.Adam(0.05, **shared) if kind == "adam" else paddle.optimizer.Momentum(0.05, **shared)
    optimizer = Optimizer(kind, ours, Nothing(), momentum=0.9, weight_decay=0.1, clip_norm=clip)
    optimizer.set_lr(0.05)
    for _ in range(4):
        slopes(ours)
        slopes(theirs)
        optimizer.step()
        paddles.step()
        paddles.clear_grad()
    for a, b in zip(moved(ours), moved(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", [0.0, 0.4])
@pytest.mark.parametrize("kind", ["momentum", "adam"])
@pytest.mark.parametrize("name", ["softmax", "arcmargin", "curricularface"])
def test_centres_of_which_all_take_part_move_as_parameters_do(name, kind, clip, monkeypatch):
    monkeypatch.setattr(partial_centers, "ROWS_AT_ONCE", 3)
    found = []
    for centers in ("all", "partial"):
        paddle.seed(3)
        loss, net = element_loss(name, 7, 3, centers=centers, partial_rate=1.0), linear()
        optimizer = Optimizer(kind, net, loss, momentum=0.9, weight_decay=0.1, clip_norm=clip)
        optimizer.set_lr(0.02)
        x = paddle.to_tensor(np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32))
        for _ in range(6):
            loss(net(x), paddle.to_tensor(LABELS)).backward()
            optimizer.step()
        arrays = {n: v.numpy() for n, v in loss.state_dict().items() if n.split(".")[-1] in ("weight", "bias", "t")}
        found.append(arrays | dict(enumerate(moved(net))))
    assert found[0].keys() == found[1].keys()
    for n, array in found[0].items():
        np.testing.assert_allclose(found[1][n], array, rtol=2e-4, atol=2e-5, err_msg=str(n))


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_rows_that_take_no_part_are_not_touched_nor_is_what_is_remembered_of_them(kind):
    paddle.seed(3)
    loss = element_loss("arcmargin", 500, 3, centers="partial", partial_rate=0.1)
    net = linear()
    optimizer = Optimizer(kind, net, loss, momentum=0.9, weight_decay=0.1)
    optimizer.set_lr(0.1)
    seen, taken = [], set()
    for _ in range(2):
        before = {n: v.numpy() for n, v in loss.state_dict().items()}
        loss(net(paddle.randn([4, 5])), paddle.to_tensor(LABELS)).backward()
        rows = loss.centers._taken[0].numpy()
        taken |= set(rows.tolist())
        optimizer.step()
        for n in loss.centers.sharded():
            now, was = loss.state_dict()[f"centers.{n}"].numpy(), before[f"centers.{n}"]
            changed = np.flatnonzero((now != was).any(axis=1))
            np.testing.assert_array_equal(changed, rows, err_msg=n)
        seen.append(rows)
    assert {4, 1, 0} <= set(seen[0]) and 50 <= len(seen[0]) <= 53
    assert not np.array_equal(*seen)
    untouched = sorted(set(range(500)) - taken)
    for n in loss.centers.sharded()[1:]:
        assert not getattr(loss.centers, n).numpy()[untouched].any()


def test_no_more_is_drawn_than_asked_for_and_everybody_is_drawn_alike():
    paddle.seed(0)
    centers = element_loss("arcmargin", 70_000, 2, centers="partial", partial_rate=0.25).centers
    counts = np.zeros(70_000)
    for _ in range(40):
        rows = centers.sample()
        assert len(rows) == round(0.25 * 65_536) + round(0.25 * (70_000 - 65_536)) == len(set(rows.tolist()))
        assert (np.diff(rows) > 0).all()
        counts[rows] += 1
    assert counts.mean() == pytest.approx(10) and counts.var() == pytest.approx(40 * 0.25 * 0.75, rel=0.05)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(UserError, match="partial_rate"):
        element_loss("arcmargin", 7, 3, centers="partial", partial_rate=rate)


# ---- loss scaling


def test_scaled_gradients_give_the_plain_step():
    plain, scaled = linear(), linear()
    one, two = (Optimizer("momentum", net, Nothing(), scaling=net is scaled, clip_norm=0.5) for net in (plain, scaled))
    for optimizer, net in ((one, plain), (two, scaled)):
        optimizer.set_lr(0.1)
        slopes(net, optimizer.scale)
        optimizer.step()
    assert two.scale == FIRST_SCALE
    for a, b in zip(moved(plain), moved(scaled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_an_overflow_leaves_the_step_out_and_halves_the_scale():
    net = linear()
    before = moved(net)
    optimizer = Optimizer("adam", net, Nothing(), scaling=True)
    optimizer.set_lr(0.1)
    slopes(net, float("inf"))
    optimizer.step()
    assert optimizer.scale == FIRST_SCALE / 2
    for a, b in zip(before, moved(net), strict=True):
        np.testing.assert_array_equal(a, b)
    slopes(net, optimizer.scale)
    optimizer.step()
    assert all(np.isfinite(value).all() for value in moved(net)) and not np.array_equal(before[0], moved(net)[0])


def test_the_scale_doubles_after_many_good_steps():
    net = linear()
    optimizer = Optimizer("momentum", net, Nothing(), scaling=True)
    optimizer.good_steps = GOOD_STEPS - 1
    slopes(net, optimizer.scale)
    optimizer.step()
    assert optimizer.scale == 2 * FIRST_SCALE
