"""AM-Softmax, also known as CosFace: a number taken off the true class's cosine."""

import paddle
from paddle import Tensor

from metric_learning.checks import check_range
from metric_learning.losses.margins.base import Margin


class AmSoftmax(Margin):
    """s (c_y - m) for the true class, s c_j for the others: Wang et al., arXiv 1801.05599, equations 5 and 6; the same
    as CosFace, Wang et al., arXiv 1801.09414, equation 4.

    `easy_margin` (in neither paper): the margin only where c_y > m, s c_y elsewhere; the logit jumps there.

    scale > 0, margin in 0..2, the width of the cosine. Faces are usually trained with 64 and 0.4. extra is added to m
    as it is; it may be of either sign.
    """

    def __init__(self, scale: float = 30.0, margin: float = 0.35, easy_margin: bool = False) -> None:
        super().__init__()
        check_range("scale", scale, above=0.0)
        check_range("margin of amsoftmax (taken off a cosine)", margin, 0.0, 2.0)
        self.scale = scale
        self.margin = margin
        self.easy_margin = easy_margin

    def moved(self, own: Tensor, norms: Tensor, extra: Tensor | None) -> Tensor:
        margin = self.margin if extra is None else self.margin + extra
        moved = own - margin
        if self.easy_margin:
            moved = paddle.where(own > margin, moved, own)
        return moved
