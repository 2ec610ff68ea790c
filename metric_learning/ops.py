"""Tensor operations whose gradients stay finite where the plain ones do not; arrays that share a tensor's memory."""

from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor
from paddle.autograd import PyLayer

SMALLEST_NORM = 1e-12


def _safe_root(square: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Root of `square`, 1 where it is not above `floor`, and the mask (1 or 0) of where it is above.

    The square is replaced, not only masked, where it vanishes: where() and products leak NaN from the other branch.
    """
    alive = (square > floor).astype("float32").detach()
    return paddle.sqrt(square * alive + (1.0 - alive)), alive


def norms_of(x: Tensor) -> Tensor:
    """x (..., D) -> |x| (...), float32; a zero vector has norm 0 and gradient 0."""
    x = x.astype("float32")
    return root_of((x * x).sum(axis=-1))


def root_of(square: Tensor) -> Tensor:
    """Square root of values of at least 0, same shape; 0 with gradient 0 (instead of infinite) at 0."""
    root, alive = _safe_root(square, SMALLEST_NORM**2)
    return root * alive


def l2_normalize(x: Tensor) -> Tensor:
    """x (..., D) -> x / |x| along the last axis, in float32; a zero vector stays zero and gets a zero gradient.

    F.normalize has a gradient of 1e12 at zero, which turns one dead feature into a lost run.
    """
    x = x.astype("float32")
    root, alive = _safe_root((x * x).sum(axis=-1, keepdim=True), SMALLEST_NORM**2)
    return x * alive / root


ROWS_AT_ONCE = 2**14


class _Cosines(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        inverse = paddle.concat([_inverse_norms(rows) for rows in _pieces(weight)])
        cosine = paddle.matmul(x, weight, transpose_y=True)
        cosine.multiply_(inverse)
        ctx.save_for_backward(x, weight, inverse, cosine)
        ctx.fixed = x.stop_gradient, weight.stop_gradient
        return cosine

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight, inverse, cosine = ctx.saved_tensor()
        turned = slope * inverse
        to_x = None if ctx.fixed[0] else paddle.matmul(turned, weight)
        if ctx.fixed[1]:
            return to_x, None
        # What would only make a row longer is taken off; a piece at a time, for a second (C, D) may not fit.
        along = (slope * cosine).sum(axis=0) * inverse * inverse
        back = paddle.matmul(turned, x, transpose_x=True)
        for start in range(0, back.shape[0], ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            back[rows] = back[rows] - weight[rows] * along[rows].unsqueeze(1)
        return to_x, back


def cosines(x: Tensor, weight: Tensor) -> Tensor:
    """x (B, D) of length 1, weight (C, D) of any lengths -> cosines (B, C) float32; 0, with gradient 0, for a zero row.

    The normalised weight, which is as large as the weight itself, is never made.
    """
    return _Cosines.apply(x, weight)


def _pieces(weight: Tensor) -> list[Tensor]:
    return [weight[start : start + ROWS_AT_ONCE] for start in range(0, weight.shape[0], ROWS_AT_ONCE)]


def _inverse_norms(rows: Tensor) -> Tensor:
    """rows (R, D) -> 1 / |row| (R,), 0 for a row of 0."""
    norms = norms_of(rows)
    alive = (norms > SMALLEST_NORM).astype("float32")
    return alive / (norms + (1.0 - alive))


def sine_of(cosine: Tensor) -> Tensor:
    """sqrt(1 - c^2) of cosines in -1..1, same shape; 0 with gradient 0 (instead of infinite) at c = +-1 and beyond."""
    root, inside = _safe_root(1.0 - cosine * cosine, 0.0)
    return root * inside


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """x (A, D), y (B, D) -> squared Euclidean distances (A, B), float32, not below 0."""
    x, y = x.astype("float32"), y.astype("float32")
    # Distances do not change when all points move; near the origin |x|^2 + |y|^2 - 2xy cancels the fewest digits.
    middle = y.detach().mean(axis=0)
    x, y = x - middle, y - middle
    square = (x * x).sum(axis=1, keepdim=True) + (y * y).sum(axis=1) - 2.0 * paddle.matmul(x, y, transpose_y=True)
    # A clamp by relu has gradient 0 where rounding made the square negative, which is where the points coincide.
    return paddle.nn.functional.relu(square)


def softmax_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """logits (B, C), wanted (B,) the target's logit, or the mean of several targets' -> cross-entropy (B,), at least 0.

    Paddle's own cross_entropy and log_softmax cannot exceed 64 on the CPU: they cut the logits there, in silence.
    """
    # With the largest logit taken off first, a sample that is certain loses no digits.
    top = logits.detach().max(axis=1)
    return paddle.logsumexp(logits - top.unsqueeze(1), axis=1) - (wanted - top)


class _Lent:
    """What NumPy makes an array of, without a copy: a tensor's memory, which lives as long as the array does."""

    def __init__(self, x: Tensor) -> None:
        self.tensor = x
        place = x.data_ptr(), True  # for reading only
        self.__array_interface__ = {"data": place, "shape": tuple(x.shape), "typestr": "<f4", "version": 3}


def as_array(x: Tensor) -> NDArray[Any]:
    """x on the CPU -> its values, for reading only: by the same memory where they are float32 in one piece.

    Not by DLPack: with Paddle 3.3.1 a training stopped for ever in from_dlpack, now and then.
    """
    x = x.detach()
    if x.dtype == paddle.float32 and x.is_contiguous() and x.numel().item():
        return np.asarray(_Lent(x))
    values: NDArray[Any] = x.numpy()
    return values
