"""Angles without acos: its slope is infinite at c = +-1."""

import math

import paddle
from paddle import Tensor

from metric_learning.ops import sine_of


def turned(cosine: Tensor, by: Tensor | float) -> Tensor:
    """cosine (B,) of theta -> cos(theta + by), `by` in radians, a number or (B,); finite slopes everywhere."""
    cos, sin = _cos_sin(by)
    return cosine * cos - sine_of(cosine) * sin


def arc(cosine: Tensor, margin: Tensor | float, easy_margin: bool = False) -> Tensor:
    """cosine (B,) of the true class -> ArcFace's: cos(theta + m), and past pi - m the line c - m sin m.

    margin: a number or (B,), in 0..pi. easy_margin: cos(theta + m) where c > 0, else c.
    """
    moved = turned(cosine, margin)
    if easy_margin:
        return paddle.where(cosine > 0.0, moved, cosine)
    # Both branches have finite gradients everywhere, so where() has nothing to leak.
    cos, sin = _cos_sin(margin)
    return paddle.where(cosine > -cos, moved, cosine - margin * sin)


def plus(margin: Tensor | float, extra: Tensor | None) -> Tensor | float:
    """The angle m, or m + extra (B,) kept within 0..pi, where `arc` makes sense."""
    return margin if extra is None else paddle.clip(margin + extra, 0.0, math.pi)


def _cos_sin(angle: Tensor | float) -> tuple[Tensor | float, Tensor | float]:
    if isinstance(angle, int | float):
        return math.cos(angle), math.sin(angle)
    return paddle.cos(angle), paddle.sin(angle)
