"""Recomputed blocks: the same embeddings, gradients and statistics, bit for bit, and the network still goes out."""

import numpy as np
import paddle
import pytest

from metric_learning.backbones import BACKBONES, backbone
from metric_learning.engine import Predictor, eager
from metric_learning.recompute import recompute_blocks

pytestmark = pytest.mark.filterwarnings("ignore:When training")
BLOCKS = {"ResNet18": 8, "IRSE18": 8, "MobileNetV1": 13, "MobileNetV2": 19, "MobileNetV3Small": 13, "ViTS16": 12}
BLOCKS |= {"MobileFaceNet": 15, "MobileFaceNetX2": 9, "VarGFaceNet": 15, "VGG16BN": 0, "SmallCNN": 4, "DeeperCNN": 4}


def trained(name: str, again: bool):
    paddle.seed(1)
    net = backbone(name, (3, 64, 64))
    count = recompute_blocks(net) if again else None
    x = np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32)
    paddle.seed(2)
    features = net(paddle.to_tensor(x))
    features.square().mean().backward()
    slopes = {n: p.grad.numpy() for n, p in net.named_parameters() if p.grad is not None}
    return count, features.numpy(), slopes, {n: v.numpy() for n, v in net.state_dict().items()}, net


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if not BLOCKS[n] else n for n in BLOCKS])
@pytest.mark.sweep
def test_nothing_but_the_memory_changes(name):
    _, features, slopes, state, _ = trained(name, False)
    count, found, again, after, _ = trained(name, True)
    assert count == pytest.approx(BLOCKS[name], abs=1)
    np.testing.assert_array_equal(found, features)
    assert again.keys() == slopes.keys()
    for n, slope in slopes.items():
        np.testing.assert_array_equal(again[n], slope, err_msg=n)
    for n, value in state.items():
        np.testing.assert_array_equal(after[n], value, err_msg=n)


def test_every_backbone_is_accounted_for():
    families = {name.rstrip("0123456789") for name in BACKBONES}
    known = {name.rstrip("0123456789") for name in BLOCKS} | {"IR", "MobileNetV", "MobileNetV3Large", "VGG"}
    assert families <= known | {"MobileFaceNetReLU", "ViTS", "VGG16BN"}


def test_the_inference_engine_takes_it():
    net = trained("ResNet18", True)[-1]
    x = np.random.default_rng(1).normal(size=(2, 3, 64, 64)).astype(np.float32)
    np.testing.assert_allclose(Predictor(net, (3, 64, 64), "float32")(x), eager(net, x), rtol=1e-3, atol=1e-3)


def test_what_goes_into_a_block_is_all_that_it_keeps():
    """The backward pass asks for the inside again: each block runs twice, and once where no gradient is wanted."""
    paddle.seed(1)
    net, runs = backbone("ResNet18", (3, 32, 32)), []
    block = net.layer3[1]
    block.register_forward_pre_hook(lambda layer, given: runs.append("whole"))
    block.conv1.register_forward_pre_hook(lambda layer, given: runs.append("inner"))
    recompute_blocks(net)
    net(paddle.randn([2, 3, 32, 32])).mean().backward()
    assert runs == ["whole", "inner", "inner"]
    runs.clear()
    with paddle.no_grad():
        net(paddle.randn([2, 3, 32, 32]))
    assert runs == ["whole", "inner"]
