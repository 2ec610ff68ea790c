"""MagFace: the length of the embedding is the picture's quality; the margin grows with it."""

import math

import paddle
from paddle import Tensor

from metric_learning.checks import UserError, check_range
from metric_learning.losses.margins.angles import arc, plus
from metric_learning.losses.margins.base import Margin


class MagFace(Margin):
    """ArcFace with m(a) = (u_m - l_m) / (u_a - l_a) (a - l_a) + l_m, a = |x| clipped to [l_a, u_a]; and a penalty
    lambda_g (a / u_a^2 + 1 / a) on each sample: Meng et al., arXiv 2103.06627, section 3.2.

    The margin and the penalty pull at |x|; outside [l_a, u_a] neither does, as in the authors' code. The paper has no
    line past theta_y = pi - m(a); it is ArcFace's here, while the authors' code sets easy_margin by default.

    scale > 0; 0 < l_a < u_a, lengths; l_margin <= u_margin in 0..pi radians; lambda_g >= 0. m(a) + extra is kept
    within 0..pi.
    """

    def __init__(
        self,
        scale: float = 64.0,
        l_a: float = 10.0,
        u_a: float = 110.0,
        l_margin: float = 0.45,
        u_margin: float = 0.8,
        lambda_g: float = 35.0,
        easy_margin: bool = False,
    ) -> None:
        super().__init__()
        check_range("scale", scale, above=0.0)
        check_range("l_a (the shortest length)", l_a, above=0.0)
        check_range("u_a (the longest length)", u_a, above=l_a)
        check_range("l_margin (an angle in radians)", l_margin, 0.0, math.pi)
        check_range("u_margin (an angle in radians)", u_margin, 0.0, math.pi)
        check_range("lambda_g", lambda_g, 0.0)
        if u_margin < l_margin:
            raise UserError(f"u_margin must be at least l_margin; got {u_margin} and {l_margin}.")
        self.scale = scale
        self.l_a, self.u_a = l_a, u_a
        self.l_margin, self.u_margin = l_margin, u_margin
        self.lambda_g = lambda_g
        self.easy_margin = easy_margin

    def moved(self, own: Tensor, norms: Tensor, extra: Tensor | None) -> Tensor:
        return arc(own, plus(self.margin_of(norms), extra), self.easy_margin)

    def margin_of(self, norms: Tensor) -> Tensor:
        """norms (B,) -> m(a) (B,), in l_margin..u_margin."""
        slope = (self.u_margin - self.l_margin) / (self.u_a - self.l_a)
        return slope * (paddle.clip(norms, self.l_a, self.u_a) - self.l_a) + self.l_margin

    def penalty(self, norms: Tensor) -> Tensor:
        length = paddle.clip(norms, self.l_a, self.u_a)
        return self.lambda_g * (length / self.u_a**2 + 1.0 / length)
