"""A sweep over every registered backbone: a new one is tested by being in the table."""

import functools
import math

import numpy as np
import paddle
import pytest
from small_runs import images

from metric_learning.backbones import BACKBONES, backbone
from metric_learning.checks import UserError
from metric_learning.config import names

SMALL = ("ResNet18", "ResNet50")
SIZES = {"ResNet18": 512, "ResNet34": 512, "ResNet50": 2048, "ResNet101": 2048, "ResNet152": 2048}
# Of paddle.vision and the paper's table 1, without the classifier.
PARAMETERS = {
    "ResNet18": 11_176_512,
    "ResNet34": 21_284_672,
    "ResNet50": 23_508_032,
    "ResNet101": 42_500_160,
    "ResNet152": 58_143_808,
}


@functools.cache
def made(name: str, channels: int = 3) -> paddle.nn.Layer:
    paddle.seed(0)
    return backbone(name, channels)


@pytest.mark.filterwarnings("ignore:When training")
@pytest.mark.parametrize(("name", "channels"), [*((name, 3) for name in BACKBONES), ("ResNet18", 1)])
def test_forward_and_backward(name, channels):
    net = made(name, channels)
    net.train()
    features = net(paddle.to_tensor(images(2, (channels, 32, 32))))
    assert features.shape == [2, net.feature_size] and features.dtype == paddle.float32
    weights = paddle.to_tensor(images(2, (net.feature_size,)))
    (features * weights).sum().backward()
    for path, parameter in net.named_parameters():
        if parameter.stop_gradient:
            assert path.endswith(("_mean", "_variance")), path
            continue
        assert parameter.grad is not None, path
        gradient = parameter.grad.numpy()
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, path


@pytest.mark.parametrize("name", BACKBONES)
def test_sizes(name):
    net = made(name)
    assert net.feature_size == SIZES[name]
    assert sum(math.prod(p.shape) for p in net.parameters() if not p.stop_gradient) == PARAMETERS[name]


def test_every_backbone_has_a_known_size():
    assert BACKBONES.keys() == SIZES.keys() and tuple(BACKBONES) == names.MODELS


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("side", [(8, 8), (33, 47), (1, 65), (40, 17)])
def test_odd_picture_sizes(name, side):
    net = made(name)
    net.eval()
    with paddle.no_grad():
        features = net(paddle.to_tensor(images(1, (3, *side)))).numpy()
    assert features.shape == (1, net.feature_size) and np.isfinite(features).all()


@pytest.mark.parametrize("name", ["ResNet18", pytest.param("ResNet50", marks=pytest.mark.slow)])
def test_features_are_the_mean_over_all_places(name):
    """Equal to paddle.vision's own network with its pooling."""
    net = made(name)
    theirs = getattr(paddle.vision.models, name.lower())(num_classes=0)
    theirs.set_state_dict(net.state_dict())
    net.eval()
    theirs.eval()
    given = paddle.to_tensor(images(2, (3, 64, 48)))
    with paddle.no_grad():
        expected = theirs(given).numpy().reshape(2, -1)
        np.testing.assert_allclose(net(given).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(UserError, match=r"--model .*ResNet50"):
        backbone("resnet-50")
