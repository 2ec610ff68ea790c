"""MobileNetV1 (arXiv 1704.04861, table 1), V2 (1801.04381, table 2) and V3 (1905.02244, tables 1 and 2), width 1.0.

Paddle's own layers and names up to the pooled feature, so the weights of paddle.vision fit. Any picture size.
"""

import paddle
from paddle import Tensor, nn
from paddle.vision import models

from metric_learning.backbones.base import Backbone
from metric_learning.backbones.shapes import Shape


class MobileNet(Backbone, nn.Sequential):
    """images (B, channels, H, W) -> the mean over all places of the last map (B, feature_size).

    `net` is a network of paddle.vision without pool and classifier, `first` its first block (convolution first).
    """

    def __init__(self, net: nn.Layer, first: nn.Sequential, feature_size: int, channels: int) -> None:
        if channels != 3:
            width = first[0].weight.shape[0]
            first[0] = nn.Conv2D(channels, width, kernel_size=3, stride=2, padding=1, bias_attr=False)
        super().__init__(*net.named_children())
        self.feature_size = feature_size

    def to_map(self, images: Tensor) -> Tensor:
        return nn.Sequential.forward(self, images)

    def from_map(self, last: Tensor) -> Tensor:
        return paddle.mean(last, axis=[2, 3])


def mobilenet_v1(shape: Shape) -> MobileNet:
    net = models.MobileNetV1(num_classes=0, with_pool=False)
    return MobileNet(net, net.conv1, 1024, shape[0])


def mobilenet_v2(shape: Shape) -> MobileNet:
    net = models.MobileNetV2(num_classes=0, with_pool=False)
    return MobileNet(net, net.features[0], 1280, shape[0])


def mobilenet_v3_large(shape: Shape) -> MobileNet:
    net = models.MobileNetV3Large(num_classes=0, with_pool=False)
    return MobileNet(net, net.conv, 960, shape[0])


def mobilenet_v3_small(shape: Shape) -> MobileNet:
    net = models.MobileNetV3Small(num_classes=0, with_pool=False)
    return MobileNet(net, net.conv, 576, shape[0])
