"""Face networks in PyTorch, written after their papers with the layer names of the projects whose weights are read."""

from collections.abc import Callable

from torch import Tensor, nn

Active = Callable[[int], nn.Module]  # channels -> activation
IRESNETS = {"r18": (2, 2, 2, 2), "r34": (3, 4, 6, 3), "r50": (3, 4, 14, 3), "r100": (3, 13, 30, 3)}
MOBILEFACENET = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, padding: int | None = None):
    padding = kernel // 2 if padding is None else padding
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)


class IBlock(nn.Module):
    """The residual unit of arXiv 1801.07698, section 3.1."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, 3)
        self.bn2, self.prelu = nn.BatchNorm2d(outputs), nn.PReLU(outputs)
        self.conv2, self.bn3 = conv(outputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        if stride == 2:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, 2), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return out + (self.downsample(x) if hasattr(self, "downsample") else x)


class IResNet(nn.Module):
    """arcface_torch's r18, r34, r50, r100: images (B, 3, 112, 112) -> (B, 512)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.conv1, self.bn1, self.prelu = conv(3, 64, 3), nn.BatchNorm2d(64), nn.PReLU(64)
        inputs = 64
        for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), IRESNETS[name], strict=True), start=1):
            units = [IBlock(inputs if i == 0 else width, width, 2 if i == 0 else 1) for i in range(blocks)]
            self.add_module(f"layer{stage}", nn.Sequential(*units))
            inputs = width
        self.bn2, self.fc, self.features = nn.BatchNorm2d(512), nn.Linear(512 * 49, 512), nn.BatchNorm1d(512)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.bn2(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
        return self.features(self.fc(x.flatten(1)))


class Chain(nn.Module):
    """Layers under the name `layers`; with `residual` the input is added."""

    def __init__(self, *layers: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.layers, self.residual = nn.Sequential(*layers), residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def unit(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Chain:
    return Chain(conv(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs), nn.PReLU(outputs))


def linear_unit(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> Chain:
    return Chain(conv(inputs, outputs, kernel, groups=groups, padding=0), nn.BatchNorm2d(outputs))


def depthwise(inputs: int, outputs: int, wide: int, stride: int = 2, residual: bool = False) -> Chain:
    middle = unit(wide, wide, 3, stride, wide)
    return Chain(unit(inputs, wide), middle, linear_unit(wide, outputs), residual=residual)


def residuals(width: int, blocks: int, wide: int) -> Chain:
    return Chain(*(depthwise(width, width, wide, 1, True) for _ in range(blocks)))


class MBF(nn.Module):
    """arcface_torch's mbf: MobileFaceNet (arXiv 1804.07573) at twice the width, (B, 3, 112, 112) -> (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        first, second = unit(3, 128, 3, 2), unit(128, 128, 3, 1, 64)
        down = depthwise(128, 128, 128), depthwise(128, 256, 256), depthwise(256, 256, 512)
        stay = residuals(128, 4, 128), residuals(256, 6, 256), residuals(256, 2, 256)
        self.layers = nn.ModuleList([first, second, down[0], stay[0], down[1], stay[1], down[2], stay[2]])
        self.conv_sep = unit(256, 512)
        last = nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512)
        self.features = Chain(linear_unit(512, 512, 7, 512), nn.Flatten(), *last)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.features(self.conv_sep(x))


class Separable(nn.Module):
    def __init__(self, active: Active) -> None:
        super().__init__()
        self.depthwise, self.bn1, self.act1 = conv(64, 64, 3, groups=64), nn.BatchNorm2d(64), active(64)
        self.pointwise, self.bn2, self.act2 = conv(64, 64), nn.BatchNorm2d(64), active(64)

    def forward(self, x: Tensor) -> Tensor:
        return self.act2(self.bn2(self.pointwise(self.act1(self.bn1(self.depthwise(x))))))


class Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, active: Active) -> None:
        super().__init__()
        wide, self.residual = inputs * expansion, stride == 1 and inputs == outputs
        first, middle = block(active, inputs, wide), block(active, wide, wide, 3, stride, wide)
        self.conv = nn.Sequential(first, middle, conv(wide, outputs), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def block(
    active: Active, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs), active(outputs))


class GDConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.bn = conv(512, 512, 7, groups=512, padding=0), nn.BatchNorm2d(512)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.depthwise(x))


class MobileFaceNet(nn.Module):
    """MobileFaceNet (B, 3, 112, 112) -> (B, 128): with PReLU as in the paper, or with ReLU6 as foamliu has it."""

    def __init__(self, relu6: bool = True) -> None:
        super().__init__()
        active: Active = (lambda channels: nn.ReLU6()) if relu6 else nn.PReLU
        self.conv1 = block(active, 3, 64, 3, 2)
        self.dw_conv = Separable((lambda channels: nn.ReLU()) if relu6 else nn.PReLU)
        blocks, inputs = [], 64
        for expansion, outputs, repeats, stride in MOBILEFACENET:
            for i in range(repeats):
                blocks.append(Inverted(inputs, outputs, stride if i == 0 else 1, expansion, active))
                inputs = outputs
        self.features, self.conv2, self.gdconv = nn.Sequential(*blocks), block(active, 128, 512), GDConv()
        self.conv3, self.bn = nn.Conv2d(512, 128, 1), nn.BatchNorm2d(128)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.features(self.dw_conv(self.conv1(x))))
        return self.bn(self.conv3(self.gdconv(x))).flatten(1)
