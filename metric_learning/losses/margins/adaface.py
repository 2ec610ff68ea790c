"""AdaFace: hard samples weigh more where the picture is good, easy ones where it is bad."""

import math

import paddle
from paddle import Tensor

from metric_learning.checks import check_range
from metric_learning.losses.margins.angles import turned
from metric_learning.losses.margins.base import Margin, moving_average

SHORTEST, LONGEST = 0.001, 100.0  # the norms that count; the authors' code's
SMALLEST_STD = 1e-3  # added to the deviation, as in the authors' code
FIRST_MEAN, FIRST_STD = 20.0, 100.0


class AdaFace(Margin):
    """s (cos(theta_y - m z) - (m + m z)) for the true class, s c_j for the others; z = clip((n - mean) / std h, -1, 1)
    with n = |x| clipped to [0.001, 100]: Kim et al., arXiv 2204.00964, section 3.3.

    mean and std are moving averages of the batch's (rate ema_rate, first 20 and 100), moved before they are used; they
    are buffers, and no gradient goes through z. A batch of one has no deviation and leaves std as it is. As in the
    authors' code, and not in the paper, std + 0.001 divides, and theta_y - m z is cut at 0 and pi: without that a good
    picture would be pushed away from its own centre. (They cut cosines at +-0.999 as well, which is not needed here.)

    scale > 0, margin in 0..pi/2, h >= 0, ema_rate in 0..1. m + extra stands for m in both places; it may be negative.
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.4, h: float = 0.333, ema_rate: float = 0.01) -> None:
        super().__init__()
        check_range("scale", scale, above=0.0)
        check_range("margin of adaface", margin, 0.0, math.pi / 2)
        check_range("h", h, 0.0)
        check_range("ema_rate", ema_rate, 0.0, 1.0)
        self.scale = scale
        self.margin = margin
        self.h = h
        self.ema_rate = ema_rate
        self.register_buffer("mean", paddle.full([1], FIRST_MEAN))
        self.register_buffer("std", paddle.full([1], FIRST_STD))

    def moved(self, own: Tensor, norms: Tensor, extra: Tensor | None) -> Tensor:
        z = self.quality(norms)
        margin = self.margin if extra is None else self.margin + extra
        return _kept_turn(own, -margin * z) - (margin + margin * z)

    def quality(self, norms: Tensor) -> Tensor:
        """norms (B,) -> z (B,), in -1..1, without a gradient; in training mode the averages move first."""
        norms = paddle.clip(norms.detach(), SHORTEST, LONGEST)
        if self.training:
            moving_average(self.mean, norms.mean().reshape([1]), self.ema_rate)
            if norms.shape[0] > 1:
                moving_average(self.std, norms.std().reshape([1]), self.ema_rate)
        return paddle.clip((norms - self.mean) / (self.std + SMALLEST_STD) * self.h, -1.0, 1.0)


def _kept_turn(cosine: Tensor, by: Tensor) -> Tensor:
    """cosine (B,) of theta -> the cosine of theta + by, that angle cut at 0 and pi."""
    moved = turned(cosine, by)
    over = paddle.cos(by)
    moved = paddle.where((by < 0.0) & (cosine > over), paddle.ones_like(moved), moved)
    return paddle.where((by > 0.0) & (cosine < -over), -paddle.ones_like(moved), moved)
