"""VarGFaceNet (arXiv 1910.04985, sections 2.1 to 2.3; table 1): group convolutions of a fixed group size, 512-d."""

from paddle import Tensor, nn

from metric_learning.backbones.activations import PReLU, sigmoid
from metric_learning.backbones.base import Backbone
from metric_learning.backbones.shapes import Shape, check_sides, halved

GROUP = 8  # channels a group, whatever the width: "variable" is the number of groups
CHANNELS = (40, 80, 160, 320)  # 32, 64, 128, 256 by 1.25
UNITS = (3, 7, 4)  # blocks a stage, the first of which halves the map
REDUCTION = 4  # of squeeze-excite
HALVINGS = 4


def separable(inputs: int, outputs: int, stride: int, factor: int, activation: bool) -> nn.Sequential:
    """3x3 group convolution to factor x inputs channels, BN, PReLU, 1x1 to `outputs`, BN, PReLU where asked for."""
    wide = inputs * factor
    return nn.Sequential(
        nn.Conv2D(inputs, wide, 3, stride, 1, groups=inputs // GROUP, bias_attr=False),
        nn.BatchNorm2D(wide),
        PReLU(wide),
        nn.Conv2D(wide, outputs, 1, bias_attr=False),
        nn.BatchNorm2D(outputs),
        *([PReLU(outputs)] if activation else []),
    )


class SqueezeExcite(nn.Layer):
    """map (B, C, H, W) -> the map with every channel scaled by 0..1; with biases and PReLU, as VarGFaceNet has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.fc1 = nn.Conv2D(channels, channels // REDUCTION, 1)
        self.prelu = PReLU(channels // REDUCTION)
        self.fc2 = nn.Conv2D(channels // REDUCTION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * sigmoid(self.fc2(self.prelu(self.fc1(self.pool(x)))))


class NormalBlock(nn.Layer):
    """Two separable units and squeeze-excite, + the input (by a separable unit at a stride), PReLU: figure 1a, 1c."""

    def __init__(self, channels: int, stride: int = 1, factor: int = 2) -> None:
        super().__init__()
        self.unit1 = separable(channels, channels, stride, factor, activation=True)
        self.unit2 = separable(channels, channels, 1, factor, activation=False)
        self.se = SqueezeExcite(channels)
        self.shortcut = separable(channels, channels, stride, factor, activation=False) if stride != 1 else None
        self.prelu = PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.shortcut is None else self.shortcut(x)
        return self.prelu(self.se(self.unit2(self.unit1(x))) + short)


class DownBlock(nn.Layer):
    """Two parallel units of stride 2, summed, PReLU, a third unit, + a separable shortcut, PReLU: figure 1b."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branch1 = separable(inputs, outputs, 2, 2, activation=False)
        self.branch2 = separable(inputs, outputs, 2, 2, activation=False)
        self.prelu1 = PReLU(outputs)
        self.unit = separable(outputs, outputs, 1, 2, activation=False)
        self.shortcut = separable(inputs, outputs, 2, 2, activation=False)
        self.prelu2 = PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        merged = self.prelu1(self.branch1(x) + self.branch2(x))
        return self.prelu2(self.unit(merged) + self.shortcut(x))


class Embedding(nn.Layer):
    """map (B, 320, h, w) -> features (B, 512): 1x1, a group convolution of the whole map, 1x1, linear, BN: 1d."""

    def __init__(self, inputs: int, size: int, places: tuple[int, int], wide: int = 1024) -> None:
        super().__init__()
        narrow = wide // 2
        self.expand = nn.Sequential(nn.Conv2D(inputs, wide, 1, bias_attr=False), nn.BatchNorm2D(wide), PReLU(wide))
        self.whole = nn.Sequential(
            nn.Conv2D(wide, wide, places, groups=wide // GROUP, bias_attr=False), nn.BatchNorm2D(wide)
        )
        self.reduce = nn.Sequential(nn.Conv2D(wide, narrow, 1, bias_attr=False), nn.BatchNorm2D(narrow), PReLU(narrow))
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(narrow, size, bias_attr=False)
        self.bn = nn.BatchNorm1D(size)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.fc(self.flatten(self.reduce(self.whole(self.expand(x))))))


class VarGFaceNet(Backbone):
    """images (B, channels, H, W) of the one size `shape` -> features (B, 512), batch-normalised; 5.0 M parameters.

    The head keeps the full size through its first convolution. The last group convolution has the size of the last map
    (7x7 at 112x112 pixels), so weights belong to one picture size. Raises UserError for pictures below 16 pixels.
    """

    feature_size = 512

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        check_sides("VarGFaceNet", shape, 16)
        first = CHANNELS[0]
        self.head = nn.Sequential(
            nn.Conv2D(shape[0], first, 3, 1, 1, bias_attr=False),
            nn.BatchNorm2D(first),
            PReLU(first),
            NormalBlock(first, stride=2, factor=1),
        )
        blocks: list[nn.Layer] = []
        for inputs, outputs, units in zip(CHANNELS[:-1], CHANNELS[1:], UNITS, strict=True):
            blocks += [DownBlock(inputs, outputs), *(NormalBlock(outputs) for _ in range(units - 1))]
        self.body = nn.Sequential(*blocks)
        self.embedding = Embedding(CHANNELS[-1], self.feature_size, halved(shape[1:], HALVINGS))

    def to_map(self, images: Tensor) -> Tensor:
        return self.body(self.head(images))

    def from_map(self, last: Tensor) -> Tensor:
        return self.embedding(last)
