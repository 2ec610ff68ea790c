"""Torch twins: ResNet 18 and 50; our Embedder, of ResNet18 and what the recipe puts behind it. Same names and weights.

Not run by itself; pml_twin.py and training.py use them.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

# What torch calls the running statistics of a batch normalisation, by Paddle's name.
STATISTICS = {"_mean": "running_mean", "_variance": "running_var"}


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (arXiv 1512.03385, figure 2)."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.downsample = None
        if stride != 1 or inner != outer:
            self.downsample = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 to four times the width, and a shortcut (figure 5)."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer)
        self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.conv3, self.bn3 = nn.Conv2d(outer, 4 * outer, 1, bias=False), nn.BatchNorm2d(4 * outer)
        self.downsample = None
        if stride != 1 or inner != 4 * outer:
            short = nn.Conv2d(inner, 4 * outer, 1, stride, bias=False)
            self.downsample = nn.Sequential(short, nn.BatchNorm2d(4 * outer))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return torch.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """images (B, channels, H, W) -> pooled features (B, 512), of 50 layers (B, 2048)."""

    def __init__(self, depth: int, channels: int = 3) -> None:
        super().__init__()
        kind, wide, counts = {18: (Block, 1, (2, 2, 2, 2)), 50: (Bottleneck, 4, (3, 4, 6, 3))}[depth]
        self.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inner = 64
        for i, count in enumerate(counts, start=1):
            outer = 32 * 2**i
            blocks = [kind(inner, outer, 1 if i == 1 else 2)]
            blocks += [kind(wide * outer, outer, 1) for _ in range(count - 1)]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
            inner = wide * outer

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))


class Twin(nn.Module):
    """images (B, channels, H, W) -> embeddings (B, size or 512), as metric_learning.embedder.Embedder."""

    def __init__(self, channels: int, size: int, norm: bool) -> None:
        super().__init__()
        self.backbone = ResNet(18, channels)
        linear = [nn.Linear(512, size)] if size else []
        self.neck = nn.Sequential(*linear, *([nn.BatchNorm1d(size or 512)] if norm else []))

    def forward(self, images: Tensor) -> Tensor:
        return self.neck(self.backbone(images))

    def copy_from(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over Paddle's weights by name; a name too many or too few is an error. Its linear weights lie turned."""
        state = {}
        for name, value in arrays.items():
            stem, _, last = name.rpartition(".")
            turned = value.T if name == "neck.0.weight" else value
            state[f"{stem}.{STATISTICS.get(last, last)}"] = torch.from_numpy(np.array(turned, order="C"))
        missing, unexpected = self.load_state_dict(state, strict=False)
        left = [name for name in missing if not name.endswith("num_batches_tracked")]
        if left or unexpected:
            raise SystemExit(f"Weights don't fit the twin: missing {left}, unexpected {unexpected}.")
