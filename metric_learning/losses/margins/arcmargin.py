"""ArcFace: an angle added to the true class's."""

import math

from paddle import Tensor

from metric_learning.checks import check_range
from metric_learning.losses.margins.angles import arc, plus
from metric_learning.losses.margins.base import Margin


class ArcMargin(Margin):
    """s cos(theta_y + m) for the true class, s c_j for the others: Deng et al., arXiv 1801.07698, equation 3.

    Past theta_y = pi - m, where cos(theta_y + m) turns upwards again, s (c_y - m sin m) takes over (not in the paper;
    the authors' code and PaddleCV have it). `easy_margin`: the margin only where c_y > 0, s c_y elsewhere.

    scale > 0, margin in 0..pi radians. Faces are usually trained with 64 and 0.5. m + extra is kept within 0..pi.
    """

    def __init__(self, scale: float = 80.0, margin: float = 0.15, easy_margin: bool = False) -> None:
        super().__init__()
        check_range("scale", scale, above=0.0)
        check_range("margin of arcmargin (an angle in radians)", margin, 0.0, math.pi)
        self.scale = scale
        self.margin = margin
        self.easy_margin = easy_margin

    def moved(self, own: Tensor, norms: Tensor, extra: Tensor | None) -> Tensor:
        return arc(own, plus(self.margin, extra), self.easy_margin)
