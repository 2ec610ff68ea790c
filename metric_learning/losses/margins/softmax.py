"""No margin."""

from paddle import Tensor

from metric_learning.losses.margins.base import Logits, Margin


class Softmax(Margin):
    """No margin and no normalisation: logits x.W_j + b_j as they come."""

    normalized = False
    takes_extra = False

    def logits(self, cosine: Tensor, own: Tensor, norms: Tensor, extra: Tensor | None) -> Logits:
        return Logits(cosine, own)

    def moved(self, own: Tensor, norms: Tensor, extra: Tensor | None) -> Tensor:
        return own
