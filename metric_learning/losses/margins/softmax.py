"""No margin."""

from paddle import Tensor

from metric_learning.losses.margins.base import Margin


class Softmax(Margin):
    """No margin and no normalisation: logits x.W_j + b_j as they come."""

    normalized = False
    takes_extra = False

    def moved(self, own: Tensor, norms: Tensor, extra: Tensor | None) -> Tensor:
        return own
