"""CurricularFace: wrong classes that come too near weigh more as training advances."""

import math

import paddle
from paddle import Tensor

from metric_learning.checks import check_range
from metric_learning.losses.margins.angles import arc, plus, turned
from metric_learning.losses.margins.base import Logits, Margin, moving_average


class CurricularFace(Margin):
    """ArcFace for the true class; for another class s c_j (t + c_j) where c_j > cos(theta_y + m), else s c_j: Huang et
    al., arXiv 2004.00288, section 3.2.

    t starts at 0 and is a moving average of the batch's mean c_y, t <- rate mean + (1 - rate) t, moved before it is
    used, as in the authors' code; no gradient goes through it. It is a buffer. Past theta_y = pi - m ArcFace's line
    stands for the true class, but the others are still compared with cos(theta_y + m), also as the authors do.

    scale > 0, margin in 0..pi radians, ema_rate in 0..1. m + extra is kept within 0..pi.
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.5, ema_rate: float = 0.01) -> None:
        super().__init__()
        check_range("scale", scale, above=0.0)
        check_range("margin of curricularface (an angle in radians)", margin, 0.0, math.pi)
        check_range("ema_rate", ema_rate, 0.0, 1.0)
        self.scale = scale
        self.margin = margin
        self.ema_rate = ema_rate
        self.register_buffer("t", paddle.zeros([1]))

    def logits(self, cosine: Tensor, own: Tensor, norms: Tensor, extra: Tensor | None) -> Logits:
        if self.training:
            moving_average(self.t, own.mean().reshape([1]), self.ema_rate)
        margin = plus(self.margin, extra)
        hard = cosine > turned(own, margin).unsqueeze(1)
        weighed = paddle.where(hard, cosine * (self.t + cosine), cosine)
        return Logits(weighed * self.scale, arc(own, margin) * self.scale)
