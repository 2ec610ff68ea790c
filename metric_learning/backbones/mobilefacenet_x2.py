"""The `mbf` of InsightFace's arcface_torch: MobileFaceNet (arXiv 1804.07573) at twice the width, 512-d."""

from paddle import Tensor, nn

from metric_learning.backbones.activations import PReLU
from metric_learning.backbones.base import Backbone
from metric_learning.backbones.shapes import Shape, check_sides, halved

BLOCKS = (4, 6, 2)  # residual units behind each stride
SCALE = 2  # width of the maps, by the paper's; the depthwise layers in between keep about the paper's width
HALVINGS = 4


class _Layers(nn.Layer):
    """A chain of layers under the name `layers`, as arcface_torch's weights have it."""

    def __init__(self, *layers: nn.Layer) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Residual(_Layers):
    """x + layers(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _linear(
    inputs: int, outputs: int, kernel: int | tuple[int, int] = 1, stride: int = 1, padding: int = 0, groups: int = 1
) -> tuple[nn.Layer, nn.Layer]:
    """Convolution and BN without an activation."""
    conv = nn.Conv2D(inputs, outputs, kernel, stride, padding, groups=groups, bias_attr=False)
    return conv, nn.BatchNorm2D(outputs)


def _block(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, padding: int = 0, groups: int = 1) -> _Layers:
    return _Layers(*_linear(inputs, outputs, kernel, stride, padding, groups), PReLU(outputs))


def _bottleneck(inputs: int, outputs: int, wide: int, stride: int) -> tuple[nn.Layer, ...]:
    """1x1 to `wide` channels, depthwise 3x3, linear 1x1."""
    return _block(inputs, wide), _block(wide, wide, 3, stride, 1, wide), _Layers(*_linear(wide, outputs))


def _stage(channels: int, blocks: int, wide: int) -> _Layers:
    return _Layers(*(Residual(*_bottleneck(channels, channels, wide, 1)) for _ in range(blocks)))


class MobileFaceNetX2(Backbone):
    """images (B, channels, H, W) of the one size `shape` -> features (B, 512), batch-normalised.

    Names are those of arcface_torch (`layers`, `conv_sep`, `features`), so its weights fit. As in MobileFaceNet the
    global depthwise convolution ties the weights to one picture size. Raises UserError for pictures below 16 pixels.
    """

    feature_size = 512

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        check_sides("MobileFaceNetX2", shape, 16)
        small, large = 64 * SCALE, 128 * SCALE
        self.layers = nn.Sequential(
            _block(shape[0], small, 3, 2, 1),
            _block(small, small, 3, 1, 1, groups=64),
            _Layers(*_bottleneck(small, small, 128, 2)),
            _stage(small, BLOCKS[0], 128),
            _Layers(*_bottleneck(small, large, 256, 2)),
            _stage(large, BLOCKS[1], 256),
            _Layers(*_bottleneck(large, large, 512, 2)),
            _stage(large, BLOCKS[2], 256),
        )
        self.conv_sep = _block(large, 512)
        whole = _Layers(*_linear(512, 512, halved(shape[1:], HALVINGS), groups=512))
        size = self.feature_size
        norm = nn.BatchNorm1D(size)
        self.features = _Layers(whole, nn.Flatten(), nn.Linear(512, size, bias_attr=False), norm)

    def to_map(self, images: Tensor) -> Tensor:
        return self.conv_sep(self.layers(images))

    def from_map(self, last: Tensor) -> Tensor:
        return self.features(last)
