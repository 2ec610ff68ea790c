"""Class centres: which vectors W_j an embedding is compared with, and where its own class stands among them."""

from typing import NamedTuple

from paddle import Tensor, nn

from metric_learning.checks import check_range


class Columns(NamedTuple):
    """The classes that take part in one batch: weight (C', D), bias (C',) or None, target (B,) int64 in 0..C'-1."""

    weight: Tensor
    bias: Tensor | None
    target: Tensor


class Centers(nn.Layer):
    """labels (B,) int64 in 0..num_classes-1 -> Columns. A kind of centres that samples classes remaps the target."""

    num_classes: int

    def forward(self, labels: Tensor) -> Columns:
        raise NotImplementedError


class AllCenters(Centers):
    """One learned vector a class, and all of them take part: weight (C, D), and bias (C,) where asked for.

    The weight starts as Xavier's normal, sqrt(2 / (C + D)), from Paddle's seeded generator; the bias at 0.
    """

    def __init__(self, num_classes: int, dim: int, bias: bool = False) -> None:
        super().__init__()
        check_range("num_classes", num_classes, 1)
        check_range("dim (the embedding's size)", dim, 1)
        self.num_classes = num_classes
        self.weight = self.create_parameter([num_classes, dim], default_initializer=nn.initializer.XavierNormal())
        self.bias = self.create_parameter([num_classes], is_bias=True) if bias else None

    def forward(self, labels: Tensor) -> Columns:
        return Columns(self.weight, self.bias, labels)
