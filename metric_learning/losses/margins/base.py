"""What a margin is."""

from typing import NamedTuple

import paddle
from paddle import Tensor, nn

from metric_learning.checks import UserError


class Logits(NamedTuple):
    """What a margin makes of the cosines: others (B, C'), each column as that of a wrong class, and true (B,)."""

    others: Tensor
    true: Tensor


class Margin(nn.Layer):
    """cosine (B, C'), own (B,) that of the true class, norms (B,) of the embeddings -> Logits.

    The true class's column need not be in `cosine`: classes may be spread over processes. Where it is there, its entry
    of `others` is not looked at.

    `normalized`: the margin wants cosines in -1..1; False: the products x.W_j + b. A margin may hold buffers (they are
    saved with the loss and change in training mode only).

    extra (B,) float32 or None is added to the margin m of each sample, e.g. one value for each group of people.
    `takes_extra`: whether that has a meaning here; where it has not, giving one is a UserError.

    Most margins leave the others' cosines as they are but for a `scale`: those are `plain` and have `moved`, of the
    true class's alone. Others have `logits`.
    """

    normalized = True
    takes_extra = True
    scale: float = 1.0

    def __init__(self) -> None:  # its parameters are a margin's settings, and Layer's own are none
        super().__init__()

    @property
    def plain(self) -> bool:
        return type(self).moved is not Margin.moved and type(self).logits is Margin.logits

    def forward(self, cosine: Tensor, own: Tensor, norms: Tensor, extra: Tensor | None = None) -> Logits:
        self._check(extra)
        return self.logits(cosine, own, norms, extra)

    def true(self, own: Tensor, norms: Tensor, extra: Tensor | None = None) -> Tensor:
        """The logit of the true class (B,) alone, of a margin that is `plain`; the others' are scale times theirs."""
        self._check(extra)
        return self.moved(own, norms, extra) * self.scale

    def logits(self, cosine: Tensor, own: Tensor, norms: Tensor, extra: Tensor | None) -> Logits:
        true = self.moved(own, norms, extra)
        return Logits(cosine, true) if self.scale == 1.0 else Logits(cosine * self.scale, true * self.scale)

    def moved(self, own: Tensor, norms: Tensor, extra: Tensor | None) -> Tensor:
        """own (B,) -> what stands in its place, before the scale (B,)."""
        raise NotImplementedError

    def _check(self, extra: Tensor | None) -> None:
        if extra is not None and not self.takes_extra:
            able = "arcmargin, amsoftmax, magface, curricularface or adaface"
            raise UserError(f"{type(self).__name__} has no margin that can differ between samples. Choose {able}.")

    def penalty(self, norms: Tensor) -> Tensor:
        """norms (B,) -> what each sample adds to the loss beside its cross-entropy (B,)."""
        return paddle.zeros_like(norms)


def moving_average(buffer: Tensor, value: Tensor, rate: float) -> None:
    """buffer <- rate value + (1 - rate) buffer, both of shape (1,), in place and outside the graph."""
    with paddle.no_grad():
        paddle.assign(rate * value.detach() + (1.0 - rate) * buffer, buffer)
