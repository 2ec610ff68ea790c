"""Margins: what is done to the cosines (or, for softmax, to the plain products) before the cross-entropy.

B batch, C' classes that take part (all, or a sample of them), s scale, m margin, c_j cosine to class j, y true class.
"""

import math

import paddle
from paddle import Tensor, nn

from metric_learning.checks import check_range
from metric_learning.ops import sine_of


class Margin(nn.Layer):
    """cosine (B, C'), target (B,) int64 in 0..C'-1, norms (B,) of the embeddings -> logits (B, C').

    `normalized`: the margin wants cosines in -1..1; False: the products x.W_j + b. A margin may hold buffers (they are
    saved with the model) and may change other columns than the target's.
    """

    normalized = True

    def forward(self, cosine: Tensor, target: Tensor, norms: Tensor) -> Tensor:
        raise NotImplementedError


def target_column(logits: Tensor, target: Tensor) -> Tensor:
    """logits (B, C'), target (B,) -> the entry of each row's target (B,)."""
    return paddle.take_along_axis(logits, target.unsqueeze(1), 1).squeeze(1)


def with_target(logits: Tensor, target: Tensor, value: Tensor) -> Tensor:
    """logits (B, C') with the entry of each row's target (B,) replaced by value (B,); no one-hot matrix is built."""
    return paddle.put_along_axis(logits, target.unsqueeze(1), value.unsqueeze(1), 1)


class Softmax(Margin):
    """No margin and no normalisation: logits x.W_j + b_j as they come."""

    normalized = False

    def forward(self, cosine: Tensor, target: Tensor, norms: Tensor) -> Tensor:
        return cosine


class ArcMargin(Margin):
    """s cos(theta_y + m) for the true class, s c_j for the others: Deng et al., arXiv 1801.07698, equation 3.

    Past theta_y = pi - m, where cos(theta_y + m) turns upwards again, s (c_y - m sin m) takes over (not in the paper;
    the authors' code and PaddleCV have it). `easy_margin`: the margin only where c_y > 0, s c_y elsewhere.

    scale > 0, margin in 0..pi radians. Faces are usually trained with 64 and 0.5.
    """

    def __init__(self, scale: float = 80.0, margin: float = 0.15, easy_margin: bool = False) -> None:
        super().__init__()
        check_range("scale", scale, above=0.0)
        check_range("margin of arcmargin (an angle in radians)", margin, 0.0, math.pi)
        self.scale = scale
        self.margin = margin
        self.easy_margin = easy_margin

    def forward(self, cosine: Tensor, target: Tensor, norms: Tensor) -> Tensor:
        return with_target(cosine, target, self._moved(target_column(cosine, target))) * self.scale

    def _moved(self, cosine: Tensor) -> Tensor:
        """The true class's cosine (B,), moved by the margin."""
        moved = cosine * math.cos(self.margin) - sine_of(cosine) * math.sin(self.margin)
        if self.easy_margin:
            return paddle.where(cosine > 0.0, moved, cosine)
        # Both branches have finite gradients everywhere, so where() has nothing to leak.
        return paddle.where(cosine > -math.cos(self.margin), moved, cosine - self.margin * math.sin(self.margin))
