"""Class centres: which vectors W_j an embedding is compared with, and where its own class stands among them.

Several processes divide the classes: process r of N holds rows C r / N .. C (r + 1) / N and no others, as in Partial FC
(An et al., arXiv 2010.05222, section 3.1). One process holds all of them.
"""

import math
from typing import NamedTuple

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, nn

from metric_learning import dist
from metric_learning.checks import UserError, check_range

OUT = -1e9  # a logit that takes no part: its share of the softmax is 0 to the bit
DRAWN_AT_ONCE = 2**14  # rows; even, so that the pieces are, bit for bit, what one drawing of all rows would give


class Columns(NamedTuple):
    """The classes of this process that take part in one batch: weight (C', D), bias (C',) or None.

    target (B,) int64: the column of each sample's class, 0 where another process has it; here (B,) float32: 1 where
    this one has it, else 0; None where this one has them all. idle: none takes part; the one column counts nowhere.
    """

    weight: Tensor
    bias: Tensor | None
    target: Tensor
    here: Tensor | None = None
    idle: bool = False

    def own(self, entries: Tensor) -> Tensor:
        """entries (B, C') of all processes -> that of each sample's class (B,), whoever has it."""
        found = paddle.take_along_axis(entries, self.target.unsqueeze(1), 1).squeeze(1)
        return found if self.here is None else dist.sum_with_gradient(found * self.here)

    def with_own(self, entries: Tensor, value: Tensor) -> Tensor:
        """entries (B, C') with that of each sample's class replaced by value (B,); no one-hot matrix is built."""
        if self.idle:
            return paddle.full_like(entries, OUT)
        if self.here is not None:
            kept = paddle.take_along_axis(entries, self.target.unsqueeze(1), 1).squeeze(1)
            value = paddle.where(self.here > 0.5, value, kept)
        return paddle.put_along_axis(entries, self.target.unsqueeze(1), value.unsqueeze(1), 1)

    def nearest(self, cosine: Tensor) -> Tensor:
        """cosine (B, C') -> the largest of all processes (B,)."""
        return dist.all_max((paddle.full_like(cosine, OUT) if self.idle else cosine).max(axis=1))


class Centers(nn.Layer):
    """labels (B,) int64 in 0..num_classes-1 -> Columns. A kind of centres that samples classes remaps the target."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        check_range("num_classes", num_classes, 1)
        check_range("dim (the embedding's size)", dim, 1)
        if num_classes < dist.size():
            raise UserError(f"{num_classes} classes can't be divided among {dist.size()} processes. Start fewer.")
        self.num_classes, self.dim = num_classes, dim
        self.first, self.last = dist.shard(num_classes)  # this process's rows: first .. last - 1

    def forward(self, labels: Tensor) -> Columns:
        raise NotImplementedError

    def sharded(self) -> list[str]:
        """Names of the parameters and buffers of which this process holds rows first .. last - 1 only."""
        return []

    def _place(self, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """labels (B,) -> row of each in this process's share (0 where it is not in it), and `here` as in Columns."""
        if dist.size() == 1:
            return labels, None
        inside = (labels >= self.first).logical_and(labels < self.last)
        return (labels - self.first) * inside.astype("int64"), inside.astype("float32")


def sharded_names(loss: nn.Layer) -> list[str]:
    """The names, as in the loss's state_dict, of what each process holds its own rows of."""
    found = [(prefix, layer) for prefix, layer in loss.named_sublayers(include_self=True) if isinstance(layer, Centers)]
    return [f"{prefix}.{name}" if prefix else name for prefix, layer in found for name in layer.sharded()]


class AllCenters(Centers):
    """One learned vector a class, and all of them take part: weight (C, D), and bias (C,) where asked for.

    The weight starts as Xavier's normal, sqrt(2 / (C + D)), from Paddle's seeded generator; the bias at 0.
    """

    def __init__(self, num_classes: int, dim: int, bias: bool = False) -> None:
        super().__init__(num_classes, dim)
        rows, zero = self.last - self.first, nn.initializer.Constant(0.0)
        self.weight = self.create_parameter([rows, dim], default_initializer=zero)
        draw_rows(self.weight, self.first, num_classes)
        self.bias = self.create_parameter([rows], is_bias=True) if bias else None

    def forward(self, labels: Tensor) -> Columns:
        return Columns(self.weight, self.bias, *self._place(labels))

    def sharded(self) -> list[str]:
        return ["weight"] if self.bias is None else ["weight", "bias"]

    def point_at(self, directions: NDArray[np.floating]) -> None:
        """Turn each centre to its row of directions (C', D), C' <= C; a row of 0 and what is behind stay as they are.

        A centre keeps its length, so that the steps of the optimizer turn it as far as one that starts at random. To
        start at the mean direction of a class is weight imprinting, Qi et al., arXiv 1712.07136.
        """
        directions = directions[self.first : self.last]
        weight = self.weight.numpy()
        lengths = np.linalg.norm(directions, axis=1)
        rows = np.flatnonzero(lengths)
        own = np.linalg.norm(weight[rows], axis=1)
        weight[rows] = directions[rows] * (own / lengths[rows])[:, None]
        self.weight.set_value(weight)


class ReferenceCenters(AllCenters):
    """AllCenters with a bias, whose first row and bias stay 0, so that its logit is 0: with two classes one is left.

    The row of zeros is stored and divided among processes as any other. It gets no gradient, so no optimizer moves it.
    """

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__(num_classes, dim, bias=True)
        learns = (np.arange(self.first, self.last) > 0).astype(np.float32)
        self.register_buffer("_learns", paddle.to_tensor(learns), persistable=False)
        self.weight.set_value(self.weight * self._learns.unsqueeze(1))

    def forward(self, labels: Tensor) -> Columns:
        weight, bias = self.weight * self._learns.unsqueeze(1), self.bias * self._learns
        return Columns(weight, bias, *self._place(labels))


def draw_rows(weight: Tensor, first: int, total: int) -> None:
    """Fill weight (rows, D), which are rows first, first + 1, ... of (total, D), with Xavier's normal.

    All rows are drawn, a piece at a time, and only the own ones kept: so they do not depend on the number of processes.
    """
    rows, dim = weight.shape
    std = math.sqrt(2.0 / (total + dim))
    with paddle.no_grad():
        for start in range(0, total, DRAWN_AT_ONCE):
            piece = paddle.normal(0.0, std, [min(DRAWN_AT_ONCE, total - start), dim])
            low, high = max(start, first), min(start + len(piece), first + rows)
            if low < high:
                weight[low - first : high - first] = piece[low - start : high - start]
