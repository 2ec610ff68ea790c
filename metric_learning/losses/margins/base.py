"""What a margin is, and how the true class's entry of the logits is read and replaced."""

import paddle
from paddle import Tensor, nn

from metric_learning.checks import UserError


class Margin(nn.Layer):
    """cosine (B, C'), target (B,) int64 in 0..C'-1, norms (B,) of the embeddings -> logits (B, C').

    `normalized`: the margin wants cosines in -1..1; False: the products x.W_j + b. A margin may hold buffers (they are
    saved with the loss and change in training mode only) and may change other columns than the target's.

    extra (B,) float32 or None is added to the margin m of each sample, e.g. one value for each group of people.
    `takes_extra`: whether that has a meaning here; where it has not, giving one is a UserError.
    """

    normalized = True
    takes_extra = True

    def __init__(self) -> None:  # its parameters are a margin's settings, and Layer's own are none
        super().__init__()

    def forward(self, cosine: Tensor, target: Tensor, norms: Tensor, extra: Tensor | None = None) -> Tensor:
        if extra is not None and not self.takes_extra:
            able = "arcmargin, amsoftmax, magface, curricularface or adaface"
            raise UserError(f"{type(self).__name__} has no margin that can differ between samples. Choose {able}.")
        return self.logits(cosine, target, norms, extra)

    def logits(self, cosine: Tensor, target: Tensor, norms: Tensor, extra: Tensor | None) -> Tensor:
        raise NotImplementedError

    def penalty(self, norms: Tensor) -> Tensor:
        """norms (B,) -> what each sample adds to the loss beside its cross-entropy (B,)."""
        return paddle.zeros_like(norms)


def target_column(logits: Tensor, target: Tensor) -> Tensor:
    """logits (B, C'), target (B,) -> the entry of each row's target (B,)."""
    return paddle.take_along_axis(logits, target.unsqueeze(1), 1).squeeze(1)


def with_target(logits: Tensor, target: Tensor, value: Tensor) -> Tensor:
    """logits (B, C') with the entry of each row's target (B,) replaced by value (B,); no one-hot matrix is built."""
    return paddle.put_along_axis(logits, target.unsqueeze(1), value.unsqueeze(1), 1)


def moving_average(buffer: Tensor, value: Tensor, rate: float) -> None:
    """buffer <- rate value + (1 - rate) buffer, both of shape (1,), in place and outside the graph."""
    with paddle.no_grad():
        paddle.assign(rate * value.detach() + (1.0 - rate) * buffer, buffer)
