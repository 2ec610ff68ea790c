"""A sweep over every registered backbone: a new one is tested by being in the table."""

import math

import numpy as np
import paddle
import pytest
from PIL import Image
from small_runs import images

from metric_learning.backbones import BACKBONES, backbone, iresnet, mobilefacenet, vargfacenet
from metric_learning.backbones.activations import PReLU
from metric_learning.backbones.vit import resize_matrix
from metric_learning.checks import UserError
from metric_learning.config import names
from metric_learning.engine import Predictor, eager
from metric_learning.onednn.forward import training_forward
from metric_learning.runtime import onednn_works

pytestmark = pytest.mark.filterwarnings("ignore:When training")

DEEP = {"ResNet101", "ResNet152", "IR101", "IR152", "VGG16", "VGG16BN"}
DEEP |= {"IRSE34", "IRSE50", "IRSE101", "IRSE152"}
ALL = [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in BACKBONES]
FAMILIES = ("ResNet18", "IR18", "IRSE18", "MobileNetV1", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small")
FAMILIES += ("MobileFaceNet", "MobileFaceNetReLU6", "MobileFaceNetX2", "VarGFaceNet", "VGG16", "VGG16BN", "ViTS16")
FAMILIES += ("SmallCNN", "DeeperCNN")
MULTIPLES_OF_16 = {"ViTS16"}
LEAST = {"VGG16": 32, "VGG16BN": 32, "SmallCNN": 32, "DeeperCNN": 32} | {
    name: 16 for name in BACKBONES if name.startswith(("IR", "MobileFaceNet", "VarG", "ViT"))
}


# ---- how many parameters there must be, counted without Paddle


def conv(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> int:
    return inputs // groups * outputs * kernel**2


def ir(depth: int, squeeze: bool, places: int = 49) -> int:
    """Those that learn: the weight of the last normalisation does not."""
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 101: (3, 13, 30, 3), 152: (3, 8, 36, 3)}[depth]
    total, inputs = conv(3, 64, 3) + 3 * 64, 64
    for count, c in zip(blocks, (64, 128, 256, 512), strict=True):
        for number in range(count):
            total += 2 * inputs + conv(inputs, c, 3) + 3 * c + conv(c, c, 3) + 2 * c
            total += 2 * conv(c, c // 16) * squeeze + (number == 0) * (conv(inputs, c) + 2 * c)
            inputs = c
    return total + 2 * 512 + 512 * places * 512 + 512 + 512


def mobile_face_net(prelu: bool, places: int = 49) -> int:
    total = conv(3, 64, 3) + conv(64, 64, 3, 64) + conv(64, 64) + 3 * (2 + prelu) * 64
    inputs = 64
    for t, c, n in ((2, 64, 5), (4, 128, 1), (2, 128, 6), (4, 128, 1), (2, 128, 2)):
        for _ in range(n):
            wide = t * inputs
            total += conv(inputs, wide) + wide * 9 + conv(wide, c) + 2 * (2 + prelu) * wide + 2 * c
            inputs = c
    return total + conv(128, 512) + (2 + prelu) * 512 + 512 * places + 2 * 512 + conv(512, 128) + 128 + 2 * 128


def mobile_face_net_x2(places: int = 49) -> int:
    def unit(inputs: int, wide: int, outputs: int) -> int:
        return conv(inputs, wide) + 3 * wide + conv(wide, wide, 3, wide) + 3 * wide + conv(wide, outputs) + 2 * outputs

    total = conv(3, 128, 3) + 3 * 128 + conv(128, 128, 3, 64) + 3 * 128
    total += unit(128, 128, 128) * 5 + unit(128, 256, 256) + unit(256, 256, 256) * 8 + unit(256, 512, 256)
    return total + conv(256, 512) + 3 * 512 + 512 * places + 2 * 512 + conv(512, 512) + 2 * 512


def varg_face_net(places: int = 49) -> int:
    def unit(inputs: int, outputs: int, factor: int, activation: bool) -> int:
        wide = inputs * factor
        return 8 * wide * 9 + 3 * wide + conv(wide, outputs) + (2 + activation) * outputs

    def normal(c: int, factor: int) -> int:
        squeeze = 2 * conv(c, c // 4) + c // 4 + c // 4 + c
        return unit(c, c, factor, True) + unit(c, c, factor, False) + squeeze + c

    total = conv(3, 40, 3) + 3 * 40 + normal(40, 1) + unit(40, 40, 1, False)
    for i, o, n in ((40, 80, 3), (80, 160, 7), (160, 320, 4)):
        total += 3 * unit(i, o, 2, False) + o + unit(o, o, 2, False) + o + (n - 1) * normal(o, 2)
    total += conv(320, 1024) + 3 * 1024 + 8 * 1024 * places + 2 * 1024
    return total + conv(1024, 512) + 3 * 512 + conv(512, 512) + 2 * 512


def vit(patches: int = 196, width: int = 384) -> int:
    block = 4 * width + conv(width, 3 * width) + 3 * width + conv(width, width) + width
    block += 2 * conv(width, 4 * width) + 5 * width
    return conv(3, width, 16) + width + (2 + patches) * width + 12 * block + 2 * width


def plain(*widths: int) -> int:
    return sum(conv(i, o, 3) + 2 * o for i, o in zip((3, *widths), widths, strict=False))


# Without the classifier: of paddle.vision and torchvision as published, or counted above from the papers' tables.
PARAMETERS = {
    "ResNet18": 11_176_512,
    "ResNet34": 21_284_672,
    "ResNet50": 23_508_032,
    "ResNet101": 42_500_160,
    "ResNet152": 58_143_808,
    **{f"IR{depth}": ir(depth, False) for depth in iresnet.DEPTHS},
    **{f"IRSE{depth}": ir(depth, True) for depth in iresnet.DEPTHS},
    "MobileNetV1": 4_231_976 - 1_025_000,
    "MobileNetV2": 3_504_872 - 1_281_000,
    "MobileNetV3Large": 5_483_032 - (961 * 1280 + 1_281_000),
    "MobileNetV3Small": 2_542_856 - (577 * 1024 + 1_025_000),
    "MobileFaceNet": mobile_face_net(True),
    "MobileFaceNetReLU6": mobile_face_net(False),
    "MobileFaceNetX2": mobile_face_net_x2(),
    "VarGFaceNet": varg_face_net(),
    "VGG16": 138_357_544 - 4_097_000,
    "VGG16BN": 138_365_992 - 4_097_000,
    "ViTS16": vit(),
    "SmallCNN": plain(32, 64, 128, 128),
    "DeeperCNN": plain(32, 32, 64, 64, 128, 128, 256, 256),
}
SIZES = dict.fromkeys(BACKBONES, 512) | {
    "ResNet50": 2048,
    "ResNet101": 2048,
    "ResNet152": 2048,
    "MobileNetV1": 1024,
    "MobileNetV2": 1280,
    "MobileNetV3Large": 960,
    "MobileNetV3Small": 576,
    "MobileFaceNet": 128,
    "MobileFaceNetReLU6": 128,
    "VGG16": 4096,
    "VGG16BN": 4096,
    "ViTS16": 384,
    "SmallCNN": 16 * 128,
    "DeeperCNN": 16 * 256,
}


def made(name: str, *shape: int) -> paddle.nn.Layer:
    paddle.seed(0)
    return backbone(name, shape)


def learning(net: paddle.nn.Layer) -> dict:
    return {path: value for path, value in net.named_parameters() if not value.stop_gradient}


# ---- the sweep


def test_every_backbone_is_known_to_the_options_and_to_this_test():
    assert tuple(BACKBONES) == names.MODELS
    assert BACKBONES.keys() == PARAMETERS.keys() == SIZES.keys()


def test_the_counts_are_those_that_others_publish():
    """In millions: arcface_torch's r18 to r100 and mbf, timm's ViT-S/16 less its head; VarGFaceNet is 20 MB."""
    published = {"IR18": 24.03, "IR34": 34.14, "IR50": 43.59, "IR101": 65.15, "MobileFaceNetX2": 2.05, "ViTS16": 21.67}
    for name, millions in published.items():
        assert abs(PARAMETERS[name] / 1e6 - millions) < 0.015, name
    assert 0.95e6 < PARAMETERS["MobileFaceNetReLU6"] < 1.01e6
    assert 4.9e6 < PARAMETERS["VarGFaceNet"] < 5.3e6


@pytest.mark.parametrize("name", ALL)
@pytest.mark.sweep
def test_forward_and_backward(name):
    """A gradient that is finite and not zero for every parameter."""
    net = made(name, 3, 32, 32)
    net.train()
    features = net(paddle.to_tensor(images(4)))
    assert features.shape == [4, net.feature_size] and features.dtype == paddle.float32
    (features * paddle.to_tensor(images(4, (net.feature_size,)))).sum().backward()
    still = {path for path, value in net.named_parameters() if value.stop_gradient}
    still = {path for path in still if not path.endswith(("_mean", "_variance"))}
    assert still == ({"features.weight"} if name.startswith("IR") else set())
    for path, parameter in learning(net).items():
        assert parameter.grad is not None, path
        gradient = parameter.grad.numpy()
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, path


@pytest.mark.parametrize("name", ALL)
@pytest.mark.sweep
def test_sizes_at_112_pixels(name):
    net = made(name, 3, 112, 112)
    assert sum(math.prod(value.shape) for value in learning(net).values()) == PARAMETERS[name]
    features = eager(net, images(1, (3, 112, 112)))
    assert features.shape == (1, SIZES[name]) and net.feature_size == SIZES[name]
    assert np.isfinite(features).all() and features.std() > 0


@pytest.mark.parametrize("name", ALL)
@pytest.mark.sweep
def test_gray_pictures_of_an_odd_size(name):
    sides = (48, 32) if name in MULTIPLES_OF_16 else (47, 33)
    net = made(name, 1, *sides)
    features = eager(net, images(2, (1, *sides)))
    assert features.shape == (2, SIZES[name]) and np.isfinite(features).all()
    assert np.abs(features[0] - features[1]).max() > 1e-3 * np.abs(features).max()


@pytest.mark.parametrize("name", sorted(BACKBONES.keys() - LEAST.keys() - DEEP))
@pytest.mark.parametrize("sides", [(8, 8), (1, 65)])
@pytest.mark.sweep
def test_where_the_places_are_averaged_any_size_will_do(name, sides):
    net = made(name, 3, 64, 64)
    features = eager(net, images(1, (3, *sides)))
    assert features.shape == (1, net.feature_size) and np.isfinite(features).all()


@pytest.mark.parametrize("name", LEAST)
def test_a_picture_that_is_too_small_is_one_line(name):
    least = LEAST[name]
    with pytest.raises(UserError, match=rf"^--model={name} needs .*{least}.*--image_shape=3,{least},64 or") as caught:
        backbone(name, (3, least - 1, 64))
    assert "\n" not in str(caught.value)


def test_a_picture_that_does_not_divide_into_patches_is_one_line():
    with pytest.raises(UserError, match=r"multiples of 16; got 112x100\. Take --image_shape=1,112,96 or"):
        backbone("ViTS16", (1, 112, 100))


@pytest.mark.parametrize("shape", [(3,), (3, 112), (3, 0, 112)])
def test_a_shape_that_is_none(shape):
    with pytest.raises(UserError, match="channels,height,width"):
        backbone("IR18", shape)


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(UserError, match=r"--model .*Did you mean 'ResNet50'"):
        backbone("resnet-50")


# ---- the ways through Paddle


def smooth(net: paddle.nn.Layer) -> paddle.nn.Layer:
    """Without kinks, at which the last bit of the output decides on a share of the gradient, and without chance."""
    for layer in net.sublayers():
        if isinstance(layer, PReLU):
            layer.weight.set_value(paddle.ones_like(layer.weight))
        if isinstance(layer, paddle.nn.Dropout):
            layer.p = 0.0
        for name, below in list(layer._sub_layers.items()):
            if isinstance(below, paddle.nn.ReLU | paddle.nn.ReLU6 | paddle.nn.Hardswish):
                layer._sub_layers[name] = paddle.nn.Silu()
            if isinstance(below, paddle.nn.MaxPool2D):
                layer._sub_layers[name] = paddle.nn.AvgPool2D(2, 2)
    return net


@pytest.mark.skipif(not onednn_works(), reason="this build trains through eager convolutions")
@pytest.mark.parametrize("name", [n if n == "IRSE18" else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES])
@pytest.mark.slow
@pytest.mark.sweep
def test_the_gradient_of_onednn_training_is_that_of_the_eager_network(name):
    net = smooth(made(name, 3, 64, 64))
    net.train()
    batch, weights = paddle.to_tensor(images(8, (3, 64, 64))), paddle.to_tensor(images(8, (net.feature_size,)))
    found = []
    for forward in (net, training_forward(net, 3, onednn=True)):
        features = forward(batch)
        (features * weights).sum().backward()
        found.append((features.numpy(), {path: value.grad.numpy() for path, value in learning(net).items()}))
        net.clear_gradients()
    (a, wanted), (b, given) = found
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(a).max())
    largest = max(np.linalg.norm(value) for value in wanted.values())
    for path, value in wanted.items():
        apart = np.linalg.norm(value - given[path])
        assert apart <= 1e-3 * np.linalg.norm(value) + 1e-5 * largest, (path, apart)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.sweep
def test_the_predictor_equals_the_eager_network(name):
    net = made(name, 3, 32, 48)
    net.train()
    batch = images(4, (3, 32, 48))
    with paddle.no_grad():
        for _ in range(20):  # running statistics as after training; with those of a new network all is rounding
            net(paddle.to_tensor(batch))
    expected = eager(net, batch)
    found = Predictor(net, (3, 32, 48), "float32")(batch)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


# ---- architecture by architecture


@pytest.mark.parametrize(("name", "convolutions"), [("SmallCNN", 4), ("DeeperCNN", 8)])
def test_plain_networks_take_every_size_with_the_same_weights(name, convolutions):
    net = made(name, 3, 64, 64)
    assert sum(isinstance(layer, paddle.nn.Conv2D) for layer in net.sublayers()) == convolutions
    with paddle.no_grad():
        assert net.to_map(paddle.to_tensor(images(1, (3, 112, 67)))).shape == [1, net.feature_size // 16, 14, 8]
    other = made(name, 3, 32, 48)
    other.set_state_dict(net.state_dict())
    given = images(2, (3, 40, 50))
    np.testing.assert_array_equal(eager(other, given), eager(net, given))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("ResNet18", "resnet18"),
        pytest.param("ResNet50", "resnet50", marks=pytest.mark.slow),
        ("MobileNetV1", "mobilenet_v1"),
        ("MobileNetV2", "mobilenet_v2"),
        ("MobileNetV3Large", "mobilenet_v3_large"),
        ("MobileNetV3Small", "mobilenet_v3_small"),
    ],
)
@pytest.mark.sweep
def test_the_pooled_feature_is_that_of_paddle_vision(name, theirs):
    net = made(name, 3, 64, 48)
    other = getattr(paddle.vision.models, theirs)(num_classes=0)
    assert {k: v.shape for k, v in other.state_dict().items()} == {k: v.shape for k, v in net.state_dict().items()}
    other.set_state_dict(net.state_dict())
    given = images(2, (3, 64, 48))
    expected = eager(other, given).reshape(2, -1)
    np.testing.assert_allclose(eager(net, given), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", [False, True])
def test_the_feature_of_vgg16_is_what_its_last_layer_sees(norm):
    net = made("VGG16BN" if norm else "VGG16", 3, 64, 64)
    other = paddle.vision.models.vgg16(batch_norm=norm, num_classes=4096)
    own = net.state_dict()
    more = {"classifier.6.weight": paddle.eye(4096), "classifier.6.bias": paddle.zeros([4096])}
    assert other.state_dict().keys() == own.keys() | more.keys()
    other.set_state_dict({**own, **more})
    given = images(1, (3, 64, 64))
    np.testing.assert_allclose(eager(net, given), eager(other, given), rtol=1e-4, atol=1e-5)


def test_ir_has_the_layout_and_the_names_of_arcface():
    net = made("IRSE18", 3, 32, 32)
    state = net.state_dict()
    assert {"conv1.weight", "bn1.weight", "prelu.weight", "layer4.1.bn3._mean", "fc.bias", "features.bias"} <= set(
        state
    )
    block = {"bn1", "conv1", "bn2", "prelu", "conv2", "bn3"}
    assert {name.split(".")[2] for name in state if name.startswith("layer2.1.")} == block | {"se"}
    assert {name.split(".")[2] for name in state if name.startswith("layer2.0.")} == block | {"se", "downsample"}
    assert state["layer2.0.downsample.0.weight"].shape == [128, 64, 1, 1]
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        assert [conv._stride for conv in (layer[0].conv1, layer[0].conv2)] == [[1, 1], [2, 2]]
    assert all(layer._epsilon == 1e-5 for layer in net.sublayers() if hasattr(layer, "_epsilon"))


def test_the_fixed_weight_stays_and_normalises():
    net = made("IR18", 3, 32, 32)
    net.train()
    optimizer = paddle.optimizer.Momentum(0.1, parameters=net.parameters(), weight_decay=0.1)
    features = net(paddle.to_tensor(images(16)))
    plain = features.numpy()
    assert np.abs(plain.mean(axis=0)).max() < 1e-3 and np.abs(plain.std(axis=0) - 1).max() < 1e-2
    (features * paddle.to_tensor(images(16, (512,)))).sum().backward()
    optimizer.step()
    assert (net.features.weight.numpy() == 1).all() and np.abs(net.features.bias.numpy()).max() > 0


def test_mobile_face_net_has_the_names_of_the_weights_that_are_about():
    state = {name: value.shape for name, value in made("MobileFaceNetReLU6", 3, 112, 112).state_dict().items()}
    assert len(state) == 256  # 307 tensors less 51 times torch's num_batches_tracked
    assert state["dw_conv.pointwise.weight"] == [64, 64, 1, 1] and state["dw_conv.bn2._variance"] == [64]
    assert state["features.5.conv.1.0.weight"] == [256, 1, 3, 3] and state["features.14.conv.3.bias"] == [128]
    assert state["gdconv.depthwise.weight"] == [512, 1, 7, 7] and state["conv3.bias"] == state["bn.weight"] == [128]
    assert made("MobileFaceNet", 3, 32, 32).state_dict()["features.0.conv.0.2.weight"].shape == [128]
    assert [s for _, _, _, s in mobilefacenet.BOTTLENECKS] == [2, 2, 1, 2, 1]
    kinds = {type(layer).__name__ for layer in made("MobileFaceNetReLU6", 3, 32, 32).dw_conv.children()}
    assert "ReLU" in kinds and not {"ReLU6", "PReLU"} & kinds


def test_mobile_face_net_x2_has_the_names_of_arcface():
    state = {name: value.shape for name, value in made("MobileFaceNetX2", 3, 112, 112).state_dict().items()}
    assert state["layers.0.layers.0.weight"] == [128, 3, 3, 3] and state["layers.1.layers.0.weight"] == [128, 2, 3, 3]
    assert state["layers.3.layers.3.layers.1.layers.0.weight"] == [128, 1, 3, 3]
    assert state["conv_sep.layers.2.weight"] == [512] and state["features.layers.0.layers.0.weight"] == [512, 1, 7, 7]
    assert state["features.layers.2.weight"] == [512, 512] and state["features.layers.3.bias"] == [512]


def test_varg_face_net_has_groups_of_eight_channels():
    net = made("VarGFaceNet", 3, 32, 32)
    grouped = [c for c in net.sublayers() if isinstance(c, paddle.nn.Conv2D) and c._groups > 1]
    assert len(grouped) == 3 + 3 * 4 + 2 * (2 + 6 + 3) + 1
    assert all(conv.weight.shape[1] == 8 for conv in grouped)
    squeezes = [layer for layer in net.sublayers() if isinstance(layer, vargfacenet.SqueezeExcite)]
    assert len(squeezes) == 1 + 2 + 6 + 3


@pytest.mark.parametrize("sizes", [(14, 7), (14, 2), (14, 20), (4, 3), (5, 5)])
def test_positions_are_interpolated_as_pillow_does(sizes):
    source, target = sizes
    grid = np.random.default_rng(0).normal(size=(source, 14)).astype(np.float32)
    expected = np.asarray(Image.fromarray(grid).resize((14, target), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(resize_matrix(source, target) @ grid, expected, rtol=0, atol=2e-5)


def naive_vit(state: dict, picture: np.ndarray, resize: np.ndarray) -> np.ndarray:
    """One picture (C, H, W) -> its class token, in float64 and loops over patches and heads."""
    state = {name: value.numpy().astype(np.float64) for name, value in state.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6)
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ state[f"{name}.weight"] + state[f"{name}.bias"]

    kernel = state["patch_embed.proj.weight"].reshape(384, -1)
    rows = [state["cls_token"][0, 0] + state["pos_embed"][0, 0]]
    places = resize.astype(np.float64) @ state["pos_embed"][0, 1:]
    for y in range(0, picture.shape[1], 16):
        for x in range(0, picture.shape[2], 16):
            patch = picture[:, y : y + 16, x : x + 16].reshape(-1)
            rows.append(kernel @ patch + state["patch_embed.proj.bias"] + places[len(rows) - 1])
    tokens = np.stack(rows)
    for number in range(12):
        qkv = linear(norm(tokens, f"blocks.{number}.norm1"), f"blocks.{number}.attn.qkv")
        heads = []
        for head in range(6):
            q, k, v = (qkv[:, part * 384 + head * 64 :][:, :64] for part in range(3))
            weights = np.exp(q @ k.T / 8)
            heads.append(weights / weights.sum(axis=1, keepdims=True) @ v)
        tokens = tokens + linear(np.concatenate(heads, axis=1), f"blocks.{number}.attn.proj")
        inside = linear(norm(tokens, f"blocks.{number}.norm2"), f"blocks.{number}.mlp.fc1")
        inside = inside * 0.5 * (1 + np.vectorize(math.erf)(inside / math.sqrt(2)))
        tokens = tokens + linear(inside, f"blocks.{number}.mlp.fc2")
    return norm(tokens[0], "norm")


@pytest.mark.slow
def test_vit_equals_its_twin_and_its_weights_fit_every_size():
    net = made("ViTS16", 3, 32, 48)
    for parameter in net.parameters():  # far from the start, where attention is all but even
        parameter.set_value(parameter + 0.03 * paddle.randn(parameter.shape))
    batch = images(2, (3, 32, 48))
    expected = np.stack([naive_vit(net.state_dict(), picture, net.resize) for picture in batch])
    np.testing.assert_allclose(eager(net, batch), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    other = made("ViTS16", 3, 224, 224)
    assert {k: v.shape for k, v in other.state_dict().items()} == {k: v.shape for k, v in net.state_dict().items()}
    np.testing.assert_allclose(other.resize, np.eye(196), atol=1e-6)
