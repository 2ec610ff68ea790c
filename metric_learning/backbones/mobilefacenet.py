"""MobileFaceNet (arXiv 1804.07573, table 1): 128-d face features from a million parameters."""

from collections.abc import Callable

from paddle import Tensor, nn

from metric_learning.backbones.activations import PReLU
from metric_learning.backbones.base import Backbone
from metric_learning.backbones.shapes import Shape, check_sides, halved

# Expansion, channels, repeats, stride of the first: table 1 of the paper.
BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
HALVINGS = 4

Activation = Callable[[int], nn.Layer]  # channels -> layer


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2D:
    return nn.Conv2D(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias_attr=False)


def _block(activation: Activation, outputs: int, *conv: int, **how: int) -> nn.Sequential:
    return nn.Sequential(_conv(conv[0], outputs, *conv[1:], **how), nn.BatchNorm2D(outputs), activation(outputs))


class DepthwiseSeparable(nn.Layer):
    """Depthwise 3x3, BN, activation, 1x1, BN, activation; channels and size stay.

    The paper's table names the depthwise layer alone; the weights that are about have the 1x1 convolution as well.
    """

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__()
        self.depthwise = _conv(channels, channels, 3, groups=channels)
        self.bn1 = nn.BatchNorm2D(channels)
        self.act1 = activation(channels)
        self.pointwise = _conv(channels, channels, 1)
        self.bn2 = nn.BatchNorm2D(channels)
        self.act2 = activation(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act2(self.bn2(self.pointwise(self.act1(self.bn1(self.depthwise(x))))))


class InvertedResidual(nn.Layer):
    """1x1 expansion, depthwise 3x3, linear 1x1; + the input where the shapes are alike (arXiv 1801.04381, figure 4)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, activation: Activation) -> None:
        super().__init__()
        wide = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            _block(activation, wide, inputs, 1),
            _block(activation, wide, wide, 3, stride, groups=wide),
            _conv(wide, outputs, 1),
            nn.BatchNorm2D(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class GlobalDepthwise(nn.Layer):
    """map (B, C, h, w) -> (B, C, 1, 1): a weighted sum of each channel over all places (GDConv), then BN."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.depthwise = nn.Conv2D(channels, channels, size, groups=channels, bias_attr=False)
        self.bn = nn.BatchNorm2D(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.depthwise(x))


class MobileFaceNet(Backbone):
    """images (B, channels, H, W) of the one size `shape` -> features (B, 128), batch-normalised.

    `relu6`: ReLU6 where the paper has PReLU, and ReLU in the first depthwise unit, as in foamliu/MobileFaceNet, whose
    weights fit. The global depthwise convolution has the size of the last map (7x7 at 112x112 pixels), so weights
    belong to one picture size. Raises UserError for pictures below 16 pixels.
    """

    feature_size = 128

    def __init__(self, shape: Shape, relu6: bool = False) -> None:
        super().__init__()
        check_sides("MobileFaceNetReLU6" if relu6 else "MobileFaceNet", shape, 16)
        activation: Activation = (lambda channels: nn.ReLU6()) if relu6 else PReLU
        first: Activation = (lambda channels: nn.ReLU()) if relu6 else PReLU
        self.conv1 = _block(activation, 64, shape[0], 3, 2)
        self.dw_conv = DepthwiseSeparable(64, first)
        blocks, inputs = [], 64
        for expansion, outputs, repeats, stride in BOTTLENECKS:
            for number in range(repeats):
                step = stride if number == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, step, expansion, activation))
                inputs = outputs
        self.features = nn.Sequential(*blocks)
        self.conv2 = _block(activation, 512, inputs, 1)
        self.gdconv = GlobalDepthwise(512, halved(shape[1:], HALVINGS))
        self.conv3 = nn.Conv2D(512, self.feature_size, 1)
        self.bn = nn.BatchNorm2D(self.feature_size)
        self.flatten = nn.Flatten()

    def to_map(self, images: Tensor) -> Tensor:
        return self.conv2(self.features(self.dw_conv(self.conv1(images))))

    def from_map(self, last: Tensor) -> Tensor:
        return self.flatten(self.bn(self.conv3(self.gdconv(last))))
