"""A folded network gives what the eager network gives: each operator, each way to fold, each size of batch."""

import numpy as np
import paddle
import pytest
from paddle import nn
from small_nets import Net
from small_runs import images

from metric_learning.backbones.activations import PReLU, sigmoid
from metric_learning.backbones.iresnet import FixedScaleNorm
from metric_learning.engine import Predictor, eager
from metric_learning.onednn.folding import folded
from metric_learning.onednn.inference import CHUNK, FoldedNet, works
from metric_learning.onednn.library import OneDnnError

pytestmark = [
    pytest.mark.filterwarnings("ignore:When training"),
    pytest.mark.skipif(not works(), reason="this build's oneDNN is not known"),
]
SHAPE = (3, 17, 14)


def conv(inputs=3, outputs=20, kernel=3, stride=1, padding=1, **how):
    return nn.Conv2D(inputs, outputs, kernel, stride, padding, **how)


def norm(channels=20):
    return nn.BatchNorm2D(channels)


def slopes(channels=20):
    layer = PReLU(channels)
    layer.weight.set_value(np.linspace(-0.5, 1.5, channels).astype(np.float32))
    return layer


def residual(*behind):
    """The shortcut may be written over; it is not read again."""
    return Net(lambda net, x: net.last(net.second(net.first(x)) + net.first(x)), first=conv(), second=conv(20),
               last=nn.Sequential(*behind))  # fmt: skip


def shortcut_read_again():
    def add(net, x):
        x = net.first(x)
        return net.third(net.second(x) + x) + x

    return Net(add, first=conv(), second=conv(20), third=nn.Sequential(nn.ReLU(), conv(20)))


def shortcut_on_top(net_last):
    """The sum's other side comes later than the convolution."""

    def add(net, x):
        x = net.first(x)
        return net.last(net.second(x) + net.third(nn.functional.relu(x)))

    return Net(add, first=conv(), second=conv(20), third=nn.Sequential(conv(20), norm()), last=net_last)


def gated(*behind):
    def times(net, x):
        x = net.first(x)
        return net.last(x * sigmoid(net.gate(x)))

    squeeze = nn.Sequential(nn.AdaptiveAvgPool2D(1), conv(20, 5, 1, padding=0), nn.ReLU(), conv(5, 20, 1, padding=0))
    return Net(times, first=conv(), gate=squeeze, last=nn.Sequential(*behind))


def to_grid(*sides):
    """Windows of different sizes, as in VGG for pictures that are not 224 pixels."""
    linear = nn.Linear(20 * sides[0] * sides[1], 7)
    return nn.Sequential(conv(), nn.ReLU(), nn.AdaptiveAvgPool2D(sides), nn.Flatten(), linear)


def grid_at_the_end(*sides):
    return nn.Sequential(conv(), nn.ReLU(), nn.AdaptiveAvgPool2D(sides), nn.Flatten())


def two_readers():
    """Neither the norm nor the activation may go into a convolution that something else reads."""

    def add(net, x):
        x = net.first(x)
        return net.norm(x) + nn.functional.relu(x) + net.prelu(x)

    return Net(add, first=conv(), norm=norm(), prelu=slopes())


CASES = {
    "convolution": lambda: conv(),
    "bias, then norm": lambda: nn.Sequential(conv(), norm()),
    "no bias": lambda: nn.Sequential(conv(bias_attr=False), norm()),
    "norm before": lambda: nn.Sequential(conv(), nn.ReLU(), norm(), conv(20)),
    "norm first of all": lambda: nn.Sequential(norm(3), conv()),
    "norm twice": lambda: nn.Sequential(conv(), norm(), norm()),
    "norm behind relu": lambda: nn.Sequential(conv(), nn.ReLU(), norm()),
    "norm, then prelu": lambda: nn.Sequential(conv(), nn.ReLU(), norm(), slopes()),
    "norm, then relu": lambda: nn.Sequential(conv(), nn.ReLU(), norm(), nn.ReLU6()),
    "groups": lambda: conv(groups=1, outputs=24).__class__(3, 24, 3, 2, 1),
    "in groups": lambda: nn.Sequential(conv(outputs=24), conv(24, 48, groups=3)),
    "depthwise": lambda: nn.Sequential(conv(outputs=24), conv(24, 24, 5, 2, 2, groups=24), norm(24), nn.Hardswish()),
    "stride without padding": lambda: conv(stride=2, padding=0),
    "uneven padding": lambda: conv(padding=[0, 1, 2, 0]),
    "relu6": lambda: nn.Sequential(conv(), nn.ReLU6()),
    "hard_sigmoid": lambda: nn.Sequential(conv(), nn.Hardsigmoid()),
    "silu": lambda: nn.Sequential(conv(), nn.Silu()),
    "prelu": lambda: nn.Sequential(conv(), norm(), slopes()),
    "activation first of all": lambda: nn.Sequential(nn.ReLU(), conv()),
    "prelu first of all": lambda: nn.Sequential(slopes(3), conv()),
    "residual": residual,
    "residual, relu": lambda: residual(nn.ReLU()),
    "residual, prelu": lambda: residual(slopes()),
    "residual, norm": lambda: residual(norm(), conv(20)),
    "shortcut read again": shortcut_read_again,
    "shortcut on top": lambda: shortcut_on_top(nn.ReLU()),
    "the images as shortcut": lambda: Net(lambda net, x: net.first(x) + x, first=conv(outputs=3)),
    "twice itself": lambda: Net(lambda net, x: (lambda y: y + y)(net.first(x)), first=conv()),
    "gate": gated,
    "gate, relu": lambda: gated(nn.ReLU()),
    "gate, prelu": lambda: gated(slopes()),
    "two readers": two_readers,
    "max pooling": lambda: nn.Sequential(conv(), nn.MaxPool2D(3, 2, 1)),
    "mean pooling": lambda: nn.Sequential(conv(), nn.AvgPool2D(2, 2)),
    "pooling of images": lambda: nn.MaxPool2D(3, 2, 1),
    "linear": lambda: nn.Sequential(conv(), nn.Flatten(), nn.Linear(20 * 17 * 14, 7), nn.ReLU(), nn.Linear(7, 5)),
    "linear without bias": lambda: nn.Sequential(conv(), nn.Flatten(), nn.Linear(4760, 7, bias_attr=False)),
    "linear, norm": lambda: nn.Sequential(conv(), nn.Flatten(), nn.Linear(4760, 7), FixedScaleNorm(7)),
    "mean, norm": lambda: nn.Sequential(conv(), Net(lambda net, x: x.mean([2, 3])), nn.BatchNorm1D(20)),
    "flat": lambda: nn.Sequential(conv(), nn.Flatten()),
    "pooled at the end": lambda: grid_at_the_end(4, 5),
    "pooled to more at the end": lambda: grid_at_the_end(18, 15),
    "pooled to more, linear": lambda: to_grid(18, 15),
    "pooled to less, linear": lambda: to_grid(5, 7),
    "dropout": lambda: nn.Sequential(conv(), nn.ReLU(), nn.Dropout(0.5), conv(20)),
    "to one": lambda: nn.Sequential(conv(), nn.AdaptiveAvgPool2D(1)),
}


def moved(net):
    """Evaluation mode, with running statistics and weights of norms that are not those of a new network."""
    generator = np.random.default_rng(0)
    for layer in net.sublayers(include_self=True):
        if isinstance(layer, nn.BatchNorm2D | nn.BatchNorm1D):
            for value in (layer.weight, layer.bias, layer._mean, layer._variance):
                value.set_value(generator.uniform(0.5, 2.0, value.shape).astype(np.float32))
    net.eval()
    return net


def computed(net, batch: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return net(paddle.to_tensor(batch)).numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sweep
def test_each_way_equals_eager(name):
    paddle.seed(3)
    net = moved(CASES[name]())
    fast = FoldedNet(folded(net.forward, SHAPE))
    for count in (2, CHUNK + 1):
        batch = images(count, SHAPE, seed=count)
        found = fast(batch)
        assert found.dtype == np.float32
        expected = computed(net, batch)
        close(found.reshape(expected.shape), expected)


def test_norms_and_activations_cost_no_pass_of_their_own():
    net = moved(nn.Sequential(conv(), norm(), nn.ReLU(), conv(20), norm(), slopes()))
    assert [op.kind for op in folded(net.forward, SHAPE).operations] == ["convolution", "convolution"]
    kinds = [op.kind for op in folded(moved(residual(nn.ReLU())).forward, SHAPE).operations]
    assert kinds == ["convolution"] * 3


def test_a_picture_does_not_depend_on_its_neighbours():
    net = moved(CASES["residual, relu"]())
    fast = FoldedNet(folded(net.forward, SHAPE))
    batch = images(2 * CHUNK + 3, SHAPE)
    whole = fast(batch)
    for place in (0, CHUNK - 1, CHUNK, 2 * CHUNK + 2):
        close(whole[place : place + 1], fast(batch[place : place + 1]))
    np.testing.assert_array_equal(whole, fast(batch))


def test_views_and_other_layouts_of_images():
    net = moved(conv())
    fast = FoldedNet(folded(net.forward, SHAPE))
    batch = images(4, SHAPE)
    np.testing.assert_array_equal(fast(batch[:, :, ::-1]), fast(batch[:, :, ::-1].copy()))


def test_weights_are_those_of_its_making():
    net = moved(conv())
    fast = FoldedNet(folded(net.forward, SHAPE))
    batch = images(2, SHAPE)
    before = computed(net, batch)
    net.weight.set_value(net.weight * 2)
    close(fast(batch), before)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2D(3, 4, 3, dilation=2),
        nn.Conv2D(3, 4, 3, padding="SAME"),
        nn.GELU(),
        nn.AvgPool2D(3, 2, 1, exclusive=False),
        nn.AdaptiveMaxPool2D(5),
        nn.Sequential(nn.AdaptiveAvgPool2D(5), nn.Conv2D(3, 4, 3)),
        nn.PReLU(1),
        Net(lambda net, x: x.mean([1])),
        Net(lambda net, x: x.flatten(2)),
        Net(lambda net, x: x * 2.0),
        Net(lambda net, x: x.reshape([-1, 7])),
    ],
)
def test_what_is_not_known_is_refused(layer):
    layer.eval()
    with pytest.raises(OneDnnError):
        FoldedNet(folded(layer.forward, SHAPE))(images(1, SHAPE))


def gamma(net, x):
    x = net.first(x)
    return net.second(nn.functional.adaptive_avg_pool2d(x, 1)) + x


@pytest.mark.parametrize(
    "make",
    [
        lambda: Net(gamma, first=conv(), second=conv(20, 20, 1, 1, 0)),
        lambda: nn.Sequential(conv(3, 4), nn.Flatten(), nn.BatchNorm1D(4 * 17 * 14), nn.Linear(4 * 17 * 14, 5)),
        lambda: Net(lambda net, x: net.first(x) * net.norm.weight.reshape([1, -1, 1, 1]), first=conv(), norm=norm()),
    ],
)
def test_what_is_not_known_is_left_to_paddles_engine(make):
    net = make()
    net.eval()
    predictor = Predictor(net, SHAPE, "float32")
    batch = images(CHUNK + 1, SHAPE)
    expected = eager(net, batch)
    np.testing.assert_allclose(predictor(batch), expected, atol=1e-4 * np.abs(expected).max())
    assert "engine" in predictor.way
