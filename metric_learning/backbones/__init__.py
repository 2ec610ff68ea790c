"""Backbones: images (B, channels, H, W) -> features (B, feature_size). A file an architecture, one table."""

from collections.abc import Callable
from functools import partial

from paddle import nn

from metric_learning.backbones.resnet import DEPTHS, ResNet
from metric_learning.checks import check_choice

BACKBONES: dict[str, Callable[[int], nn.Layer]] = {f"ResNet{depth}": partial(ResNet, depth) for depth in DEPTHS}


def backbone(name: str, channels: int = 3) -> nn.Layer:
    """A new network with random weights. Raises UserError for an unknown name, with the nearest one."""
    return BACKBONES[check_choice("--model", name, BACKBONES)](channels)
