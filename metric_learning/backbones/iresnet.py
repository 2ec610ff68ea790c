"""IR 18..152 and IR-SE: the residual networks of face recognition (arXiv 1801.07698, section 3.1 and its code).

Names and layout are those of arcface_torch's iresnet, so its weights fit; IR101 is its r100. Weights start as He's
(arXiv 1502.01852, equation 10) and not from arcface_torch's N(0, 0.1), with which a new deep network overflows.
"""

from paddle import ParamAttr, Tensor, nn

from metric_learning.backbones.activations import PReLU, sigmoid
from metric_learning.backbones.base import Backbone
from metric_learning.backbones.shapes import Shape, check_sides, halved

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 101: (3, 13, 30, 3), 152: (3, 8, 36, 3)}
WIDTHS = (64, 128, 256, 512)
REDUCTION = 16  # of squeeze-excite, arXiv 1709.01507, section 6.1
HALVINGS = 4


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2D:
    return nn.Conv2D(inputs, outputs, kernel, stride, kernel // 2, bias_attr=False)


class SqueezeExcite(nn.Layer):
    """map (B, C, H, W) -> the map with every channel scaled by 0..1 (arXiv 1709.01507, equations 2 to 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.fc1 = nn.Conv2D(channels, channels // REDUCTION, 1, bias_attr=False)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2D(channels // REDUCTION, channels, 1, bias_attr=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * sigmoid(self.fc2(self.relu(self.fc1(self.avg_pool(x)))))


class IBlock(nn.Layer):
    """BN-conv-BN-PReLU-conv-BN, squeeze-excite where asked for, + the input (through a 1x1 convolution at a stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2D(inputs)
        self.conv1 = _conv(inputs, outputs, 3)
        self.bn2 = nn.BatchNorm2D(outputs)
        self.prelu = PReLU(outputs)
        self.conv2 = _conv(outputs, outputs, 3, stride)
        self.bn3 = nn.BatchNorm2D(outputs)
        self.se = SqueezeExcite(outputs) if squeeze else None
        project = stride != 1 or inputs != outputs
        self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2D(outputs)) if project else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        out = self.bn3(self.conv2(out))
        if self.se is not None:
            out = self.se(out)
        return out + (x if self.downsample is None else self.downsample(x))


class FixedScaleNorm(nn.BatchNorm1D):
    """Batch normalisation (B, D) -> (B, D) whose weight stays 1; only the bias learns."""

    def __init__(self, size: int) -> None:
        super().__init__(size, weight_attr=ParamAttr(trainable=False))

    def forward(self, x: Tensor) -> Tensor:
        # Paddle's static graph refuses a gradient of the bias without one of the weight, so it gets a weight that has
        # one, which goes nowhere.
        weight = self.weight + 0.0 * self.bias
        running, numbers = (self._mean, self._variance), (self._momentum, self._epsilon)
        frozen = self._use_global_stats  # as of any other normalisation, see freezing.py
        return nn.functional.batch_norm(x, *running, weight, self.bias, self.training, *numbers, "NC", frozen)


def _layer(inputs: int, outputs: int, blocks: int, squeeze: bool) -> nn.Sequential:
    first = IBlock(inputs, outputs, 2, squeeze)
    return nn.Sequential(first, *(IBlock(outputs, outputs, 1, squeeze) for _ in range(blocks - 1)))


class IResNet(Backbone):
    """images (B, channels, H, W) of the one size `shape` -> features (B, 512), batch-normalised.

    `fc` sees every place of the last map (7x7 at 112x112 pixels), so weights belong to one picture size. The weight of
    the last normalisation, `features`, stays at 1. Raises UserError for pictures below 16 pixels.
    """

    feature_size = 512

    def __init__(self, depth: int, shape: Shape, squeeze: bool = False) -> None:
        super().__init__()
        check_sides(f"IR{'SE' if squeeze else ''}{depth}", shape, 16)
        self.conv1 = _conv(shape[0], 64, 3)
        self.bn1 = nn.BatchNorm2D(64)
        self.prelu = PReLU(64)
        inputs = (64, *WIDTHS[:-1])
        for number, blocks in enumerate(DEPTHS[depth]):
            layer = _layer(inputs[number], WIDTHS[number], blocks, squeeze)
            self.add_sublayer(f"layer{number + 1}", layer)
        self.bn2 = nn.BatchNorm2D(WIDTHS[-1])
        height, width = halved(shape[1:], HALVINGS)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(WIDTHS[-1] * height * width, self.feature_size)
        self.features = FixedScaleNorm(self.feature_size)

    def to_map(self, images: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(images)))
        return self.bn2(self.layer4(self.layer3(self.layer2(self.layer1(x)))))

    def from_map(self, last: Tensor) -> Tensor:
        return self.features(self.fc(self.flatten(last)))
