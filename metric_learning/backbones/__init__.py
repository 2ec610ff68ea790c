"""Backbones: images (B, channels, H, W) -> features (B, feature_size). A file an architecture, one table."""

from collections.abc import Callable, Sequence
from functools import partial

from metric_learning.backbones import iresnet, resnet
from metric_learning.backbones.base import Backbone
from metric_learning.backbones.cnn import deeper_cnn, small_cnn
from metric_learning.backbones.iresnet import IResNet
from metric_learning.backbones.mobilefacenet import MobileFaceNet
from metric_learning.backbones.mobilefacenet_x2 import MobileFaceNetX2
from metric_learning.backbones.mobilenet import mobilenet_v1, mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small
from metric_learning.backbones.resnet import ResNet
from metric_learning.backbones.shapes import Shape
from metric_learning.backbones.vargfacenet import VarGFaceNet
from metric_learning.backbones.vgg import VGG16
from metric_learning.backbones.vit import ViTS16
from metric_learning.checks import UserError, check_choice

BACKBONES: dict[str, Callable[[Shape], Backbone]] = {
    **{f"ResNet{depth}": partial(ResNet, depth) for depth in resnet.DEPTHS},
    **{f"IR{depth}": partial(IResNet, depth) for depth in iresnet.DEPTHS},
    **{f"IRSE{depth}": partial(IResNet, depth, squeeze=True) for depth in iresnet.DEPTHS},
    "MobileNetV1": mobilenet_v1,
    "MobileNetV2": mobilenet_v2,
    "MobileNetV3Large": mobilenet_v3_large,
    "MobileNetV3Small": mobilenet_v3_small,
    "MobileFaceNet": MobileFaceNet,
    "MobileFaceNetReLU6": partial(MobileFaceNet, relu6=True),
    "MobileFaceNetX2": MobileFaceNetX2,
    "VarGFaceNet": VarGFaceNet,
    "VGG16": VGG16,
    "VGG16BN": partial(VGG16, batch_norm=True),
    "ViTS16": ViTS16,
    "SmallCNN": small_cnn,
    "DeeperCNN": deeper_cnn,
}


def backbone(name: str, shape: Sequence[int] = (3, 112, 112)) -> Backbone:
    """A new network with random weights for pictures of `shape` (channels, height, width); it has a `feature_size`.

    Raises UserError for an unknown name, with the nearest one, and for a picture size that the network can't take.
    """
    make = BACKBONES[check_choice("--model", name, BACKBONES)]
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"A backbone's shape must be channels,height,width, each at least 1; got {tuple(shape)}.")
    channels, height, width = shape
    return make((channels, height, width))
