"""ViT-S/16 (arXiv 2010.11929, equations 1 to 4; the small size of DeiT, arXiv 2012.12877, table 1), 384-d.

Names are those of timm (vit_small_patch16_224, deit_small_patch16_224), so its weights fit.
"""

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import ParamAttr, Tensor, nn

from metric_learning.backbones.activations import gelu
from metric_learning.backbones.base import Backbone
from metric_learning.backbones.shapes import Shape, check_sides

PATCH, WIDTH, DEPTH, HEADS = 16, 384, 12, 6
GRID = 14  # places a side that pos_embed has: 224 pixels
EPSILON = 1e-6


def _linear(inputs: int, outputs: int) -> nn.Linear:
    start = nn.initializer.TruncatedNormal(std=0.02)
    return nn.Linear(inputs, outputs, weight_attr=ParamAttr(initializer=start))


class PatchEmbed(nn.Layer):
    """images (B, channels, H, W) -> patches (B, 384, H/16, W/16) (equation 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2D(channels, WIDTH, PATCH, PATCH)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images)


class Attention(nn.Layer):
    """tokens (B, T, 384) -> (B, T, 384): six heads of softmax(q k' / 8) v (appendix A, equations 5 to 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = _linear(WIDTH, 3 * WIDTH)
        self.proj = _linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        # Neither reshape, flatten nor paddle.matmul: in the static graphs that oneDNN training needs, Paddle 3.3 loses
        # the shape of the gradient behind the first two and can't trace the third.
        q, k, v = (self._heads(part) for part in paddle.split(self.qkv(x), 3, axis=-1))
        weights = nn.functional.softmax((q * (WIDTH // HEADS) ** -0.5) @ k.transpose([0, 1, 3, 2]), axis=-1)
        return self.proj(paddle.concat(paddle.unbind(weights @ v, axis=1), axis=-1))

    @staticmethod
    def _heads(x: Tensor) -> Tensor:
        """(B, T, 384) -> (B, heads, T, 64)."""
        return paddle.stack(paddle.split(x, HEADS, axis=-1), axis=1)


class MLP(nn.Layer):
    """Two linear layers with GELU in between, four times as wide inside."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = _linear(WIDTH, 4 * WIDTH)
        self.fc2 = _linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


class Block(nn.Layer):
    """x + attention(norm(x)), then x + MLP(norm(x)): equations 2 and 3."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, EPSILON)
        self.attn = Attention()
        self.norm2 = nn.LayerNorm(WIDTH, EPSILON)
        self.mlp = MLP()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def resize_matrix(source: int, target: int) -> NDArray[np.float32]:
    """(target, source): bicubic interpolation (a = -0.5) of a row of values, each row of the matrix summing to 1.

    Where it shrinks, the kernel is stretched over all that a place covers ("antialias"), as timm does.
    """
    scale = max(source / target, 1.0)
    centres = (np.arange(target) + 0.5) * source / target
    away = np.abs(np.arange(source)[None, :] + 0.5 - centres[:, None]) / scale
    near = 1.5 * away**3 - 2.5 * away**2 + 1
    far = -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
    weights = np.where(away < 1, near, np.where(away < 2, far, 0.0))
    rows: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return rows


class ViTS16(Backbone):
    """images (B, channels, H, W) of the one size `shape` -> the normalised class token (B, 384), equation 4.

    Every size has the same weights: `pos_embed` belongs to the 14x14 patches of 224x224 pixels, and the network
    interpolates it to its own. Raises UserError unless height and width are multiples of 16.

    Its map is that of the embedded patches, before their places are added: a patch that is covered there reaches no
    block, while the tokens of the last block have all been mixed into the class token already.
    """

    feature_size = WIDTH

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        check_sides("ViTS16", shape, PATCH, PATCH)
        start = nn.initializer.TruncatedNormal(std=0.02)
        self.cls_token = self.create_parameter([1, 1, WIDTH], default_initializer=start)
        self.pos_embed = self.create_parameter([1, 1 + GRID * GRID, WIDTH], default_initializer=start)
        self.patch_embed = PatchEmbed(shape[0])
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        rows, columns = (resize_matrix(GRID, side // PATCH) for side in shape[1:])
        self.resize = np.kron(rows, columns)  # (places here, places of pos_embed): not a weight

    def positions(self) -> Tensor:
        """(1, T, 384): the class token's, then those of this size's patches."""
        patches = paddle.to_tensor(self.resize) @ self.pos_embed[:, 1:]
        return paddle.concat([self.pos_embed[:, :1], patches], axis=1)

    def to_map(self, images: Tensor) -> Tensor:
        return self.patch_embed(images)

    def from_map(self, last: Tensor) -> Tensor:
        patches = last.flatten(2).transpose([0, 2, 1])  # (B, H/16 x W/16, 384), row by row
        first = paddle.zeros_like(patches[:, :1]) + self.cls_token  # one for each picture, however many there are
        x = paddle.concat([first, patches], axis=1) + self.positions()
        return self.norm(self.blocks(x)[:, 0])
