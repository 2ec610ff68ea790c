"""Training through oneDNN's primitives gives what the eager network gives: maps, gradients, running statistics."""

import gc

import numpy as np
import paddle
import pytest
from paddle import nn
from small_nets import Net
from small_runs import images

from metric_learning.backbones.activations import PReLU, sigmoid
from metric_learning.onednn import operators
from metric_learning.onednn.forward import training_forward, training_map
from metric_learning.onednn.library import OneDnnError
from metric_learning.onednn.trunk import KEPT_SHAPES, Trunk
from metric_learning.runtime import computes_bfloat16, onednn_works

pytestmark = [
    pytest.mark.filterwarnings("ignore:When training"),
    pytest.mark.skipif(not onednn_works(), reason="this build trains through eager convolutions"),
]


def plain(*layers):
    return nn.Sequential(*layers)


def conv(inputs=3, outputs=20, kernel=3, stride=1, padding=1, **how):
    return nn.Conv2D(inputs, outputs, kernel, stride, padding, **how)


def bare(*sizes, **how):
    return conv(*sizes, bias_attr=False, **how)


def residual():
    def add(net, x):
        x = net.first(x)
        return nn.functional.relu(net.second(x) + x)

    return Net(add, first=bare(), second=plain(bare(20), nn.BatchNorm2D(20)))


def used_often():
    def add(net, x):
        x = net.first(x)
        return net.second(x) + x + net.third(x + x)

    return Net(add, first=plain(bare(), nn.BatchNorm2D(20)), second=bare(20), third=bare(20))


def gated(turned):
    def times(net, x):
        x = net.first(x)
        s = sigmoid(net.gate(nn.functional.adaptive_avg_pool2d(x, 1)))
        return s * x if turned else x * s

    return Net(times, first=bare(), gate=conv(20, 20, 1, 1, 0))


def frozen_statistics():
    norm = nn.BatchNorm2D(20, use_global_stats=True)
    norm._mean.set_value(paddle.to_tensor(images(20, ()) * 0.1))
    norm._variance.set_value(paddle.to_tensor(1 + images(20, ()) ** 2))
    return plain(bare(), norm, nn.ReLU(), conv(20, 8))


CASES = {
    "conv2d": lambda: plain(bare()),
    "bias": lambda: plain(conv(), conv(20, 8)),
    "stride": lambda: plain(bare(3, 20, 3, 2, 1), bare(20, 32, 1, 2, 0)),
    "pads": lambda: plain(conv(3, 20, (3, 2), (2, 1), [2, 1, 0, 1])),
    "groups": lambda: plain(bare(3, 32), bare(32, 64, groups=4)),
    "depthwise_conv2d": lambda: plain(bare(3, 32), bare(32, 32, 3, 2, groups=32)),
    "batch_norm": lambda: plain(bare(), nn.BatchNorm2D(20, momentum=0.7, epsilon=1e-3), bare(20)),
    "norm of pictures": lambda: plain(nn.BatchNorm2D(3), bare()),
    "fused": lambda: plain(bare(), nn.BatchNorm2D(20), nn.ReLU(), bare(20)),
    "frozen statistics": frozen_statistics,
    "relu": lambda: plain(conv(), nn.ReLU(), conv(20, 20), nn.ReLU(), nn.MaxPool2D(2, 2)),
    "relu6": lambda: plain(bare(), nn.BatchNorm2D(20), nn.ReLU6()),
    "silu": lambda: plain(conv(), nn.Silu()),
    "hard_swish": lambda: plain(bare(), nn.BatchNorm2D(20), nn.Hardswish()),
    "hard_sigmoid": lambda: plain(bare(), nn.BatchNorm2D(20), nn.Hardsigmoid()),
    "prelu": lambda: plain(bare(), PReLU(20), bare(20), nn.BatchNorm2D(20), PReLU(20)),
    "pool2d": lambda: plain(bare(), nn.MaxPool2D(3, 2, 1)),
    "mean": lambda: plain(bare(), nn.AvgPool2D(3, 2, 1), bare(20)),
    "whole mean": lambda: plain(bare(), nn.AdaptiveAvgPool2D(1)),
    "elementwise_add": residual,
    "used often": used_often,
    "elementwise_mul": lambda: gated(False),
    "gate first": lambda: gated(True),
    "sigmoid": lambda: gated(False),
}


def in_training(make):
    paddle.seed(3)
    net = make()
    net.train()
    for layer in net.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer.weight.set_value(paddle.uniform(layer.weight.shape, min=0.5, max=1.5))
            layer.bias.set_value(paddle.uniform(layer.bias.shape, min=-0.5, max=0.5))
    return net


def found(net, function, batch):
    """The map, the gradients of the parameters, and the running statistics behind it."""
    made = function(paddle.to_tensor(batch))
    (made * paddle.to_tensor(images(made.shape[0], made.shape[1:], seed=9))).sum().backward()
    slopes = {name: value.grad.numpy() for name, value in net.named_parameters() if value.grad is not None}
    net.clear_gradients()
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    return made.numpy(), slopes, state


def alike(expected, given, tolerance=1e-4):
    assert expected[1].keys() == given[1].keys()
    np.testing.assert_allclose(given[0], expected[0], rtol=0, atol=tolerance * np.abs(expected[0]).max())
    for kind in (1, 2):
        largest = max((np.abs(value).max() for value in expected[kind].values()), default=0)
        for name, value in expected[kind].items():
            np.testing.assert_allclose(given[kind][name], value, rtol=tolerance, atol=tolerance * largest, err_msg=name)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sweep
def test_each_operator_equals_paddles_own(name):
    nets = [in_training(CASES[name]) for _ in range(2)]
    trunk = Trunk(nets[1].forward, 3)
    for batch in (images(4, (3, 16, 14)), images(3, (3, 20, 16), seed=1), images(4, (3, 16, 14), seed=2)):
        alike(found(nets[0], nets[0], batch), found(nets[1], trunk, batch))


def test_each_operator_has_a_case():
    assert set(operators.OPERATORS) <= set(CASES)


def small():
    return in_training(lambda: plain(bare(), nn.BatchNorm2D(20), PReLU(20), conv(20, 8)))


def test_what_does_not_learn_has_no_gradient_and_no_way_back():
    nets = small(), small()
    for net in nets:
        net[0].weight.stop_gradient = True
    trunk = Trunk(nets[1].forward, 3)
    alike(found(nets[0], nets[0], images(4)), found(nets[1], trunk, images(4)))
    for net in nets:  # frozen while it runs, up to the last layer
        for layer in net[1:3]:
            for value in layer.parameters():
                value.stop_gradient = True
    alike(found(nets[0], nets[0], images(4)), found(nets[1], trunk, images(4)))
    steps = [len(plan.back) for plans in trunk.plans.values() for plan in plans]
    assert steps[1] < steps[0] / 2


def test_two_steps_may_be_under_way_at_once():
    net, twin = small(), small()
    trunk = Trunk(net.forward, 3)
    for function in (trunk, twin):
        a, b = (function(paddle.to_tensor(images(4, seed=seed))) for seed in (1, 2))
        (a.sum() + 2 * (b * b).sum()).backward()
    learning = [[value for value in each.parameters() if not value.stop_gradient] for each in (net, twin)]
    for mine, other in zip(*learning, strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-3, atol=1e-2)
    assert [len(plans) for plans in trunk.plans.values()] == [2]


def test_steps_without_a_way_back_hold_nothing():
    net = small()
    trunk = Trunk(net.forward, 3)
    for _ in range(4):
        trunk(paddle.to_tensor(images(4)))  # nobody keeps it
        gc.collect()
        with paddle.no_grad():
            trunk(paddle.to_tensor(images(4)))
    assert [len(plans) for plans in trunk.plans.values()] == [1]
    for count in range(1, KEPT_SHAPES + 4):
        trunk(paddle.to_tensor(images(count)))
    assert len(trunk.plans) == KEPT_SHAPES


def test_the_same_step_twice_is_the_same_to_the_last_bit():
    net = small()
    trunk = Trunk(net.forward, 3)
    first, second = (found(net, trunk, images(4)) for _ in range(2))
    assert (first[0] == second[0]).all()
    assert all((value == second[1][name]).all() for name, value in first[1].items())


def test_new_weights_are_seen():
    net, twin = small(), small()
    trunk = Trunk(net.forward, 3)
    trunk(paddle.to_tensor(images(4)))
    for each in (net, twin):
        each[3].weight.set_value(each[3].weight * 2 + 0.1)
        each[1]._mean.set_value(twin[1]._mean)
        each[1]._variance.set_value(twin[1]._variance)
    alike(found(twin, twin, images(4)), found(net, trunk, images(4)))


def test_nan_stays_nan():
    batch = images(4)
    batch[1, 0, 3, 3] = np.nan
    assert np.isnan(Trunk(small().forward, 3)(paddle.to_tensor(batch)).numpy()).any()


@pytest.mark.parametrize(
    "given", [np.zeros((2, 4, 8, 8), "float32"), np.zeros((3, 8, 8), "float32"), np.zeros((2, 3, 8, 8))]
)
def test_what_are_no_images_is_refused(given):
    with pytest.raises(ValueError, match="images must be float32"):
        Trunk(small().forward, 3)(paddle.to_tensor(given))


def scaled():
    return Net(
        lambda net, x: net.first(x) * net.norm.weight.reshape([1, -1, 1, 1]), first=bare(), norm=nn.BatchNorm2D(20)
    )


def with_a_dead_end():
    def only(net, x):
        net.unused(x)
        return net.first(x)

    return Net(only, first=bare(), unused=bare())


UNKNOWN = {
    "softmax": lambda: plain(bare(), nn.Softmax(1)),
    "dilation": lambda: plain(bare(), nn.Conv2D(20, 8, 3, dilation=2)),
    "padding counted": lambda: plain(bare(), nn.AvgPool2D(3, 2, 1, exclusive=False)),
    "pooled to a size": lambda: plain(bare(), nn.AdaptiveAvgPool2D(2)),
    "a parameter as a factor": scaled,
    "a dead end": with_a_dead_end,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_left_to_paddles_graph(name, capfd):
    net = in_training(UNKNOWN[name])
    batch = images(2)
    with pytest.raises(OneDnnError):
        Trunk(net.forward, 3)(paddle.to_tensor(batch))
    net.to_map = net.forward
    forward = training_map(net, 3, onednn=True, bfloat16=True)
    alike(found(net, net, batch), found(net, forward, batch))
    found(net, forward, batch)
    assert capfd.readouterr().err.count("as Paddle's graph, in float32") == 1  # what was asked for is not had


def test_views_are_read_as_they_look():
    net, twin = small(), small()
    trunk, batch = Trunk(net.forward, 3), paddle.to_tensor(images(4, (3, 16, 14)))
    for view in (batch.transpose([0, 1, 3, 2]), batch[:, :, ::2], paddle.concat([batch, batch], axis=1)[:, 1:4]):
        np.testing.assert_allclose(trunk(view).numpy(), twin(view).numpy(), atol=1e-4)


def test_images_that_learn_have_their_gradient():
    net = small()
    net.to_map = net.forward
    forward = training_map(net, 3, onednn=True)
    slopes = []
    for function in (net, forward):
        given = paddle.to_tensor(images(4), stop_gradient=False)
        function(given).square().sum().backward()
        slopes.append(given.grad.numpy())
    np.testing.assert_allclose(slopes[1], slopes[0], atol=1e-3 * np.abs(slopes[0]).max())


def test_steps_that_were_under_way_at_once_are_forgotten():
    trunk = Trunk(small().forward, 3)
    kept = [trunk(paddle.to_tensor(images(4))) for _ in range(3)]
    del kept
    gc.collect()
    trunk(paddle.to_tensor(images(4)))
    assert [len(plans) for plans in trunk.plans.values()] == [1]


class TwoParts(nn.Layer):
    def __init__(self):
        super().__init__()
        self.map, self.tail = small(), nn.Linear(8, 5)

    def to_map(self, images):
        return self.map(images)

    def from_map(self, last):
        return self.tail(last.mean(axis=[2, 3]))

    def forward(self, images):
        return self.from_map(self.to_map(images))


def test_a_network_of_two_parts_goes_through_both():
    net, twin = (in_training(TwoParts) for _ in range(2))
    forward = training_forward(net, 3, onednn=True)
    alike(found(twin, twin, images(4)), found(net, forward, images(4)))
    net.eval()
    assert (forward(paddle.to_tensor(images(4))).numpy() == net(paddle.to_tensor(images(4))).numpy()).all()


@pytest.mark.skipif(not computes_bfloat16(), reason="this processor has no bfloat16")
def test_bfloat16_is_near_float32_and_its_weights_are_float32():
    nets = [in_training(lambda: plain(bare(3, 32), nn.BatchNorm2D(32), nn.ReLU(), bare(32, 32))) for _ in range(2)]
    trunk = Trunk(nets[1].forward, 3, bfloat16=True)
    expected, given = found(nets[0], nets[0], images(8)), found(nets[1], trunk, images(8))
    assert 1e-4 < np.abs(expected[0] - given[0]).max() < 0.05 * np.abs(expected[0]).max()
    for name, value in expected[1].items():
        assert np.linalg.norm(value - given[1][name]) < 0.1 * np.linalg.norm(value), name
    assert all(value.dtype == np.float32 for value in given[1].values())
