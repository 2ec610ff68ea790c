"""Class scores and their softmax on a CPU: one matrix (B, C), filled by a product and gone over where it lies.

In Paddle each step of the formula leaves a matrix behind, for the way back, and a pass of its own over memory. Here a
batch goes `scores` -> a margin, of the true class's score only, in Paddle -> `entropies`; and back the same way, with
the matrix, which then holds slopes, as the hidden passenger between the two. A batch goes back once: no PyLayer of
Paddle can go back twice.

B samples, C classes, all of which this process has.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor
from paddle.autograd import PyLayer

from metric_learning.losses.compared import Floats, Points
from metric_learning.losses.fused_pairs import IN_CACHE
from metric_learning.ops import SMALLEST_NORM, as_array


class Scores:
    """What is kept of a batch: `matrix` (B, C) is first scores, then exponentials of logits, then slopes.

    nearest (B,): the largest score of each sample. share (B,): times it a row of exponentials is the softmax.
    """

    def __init__(self, target: NDArray[np.int64], cosines: bool) -> None:
        self.target, self.cosines = target, cosines
        self.line = np.arange(len(target))
        self.matrix: Floats
        self.points: Points
        self.inverse: Floats | None = None
        self.nearest: Floats = np.empty(len(target), np.float32)
        self.share: Floats
        self.pull: Floats | None = None  # (B,) what the exponentials are to be multiplied by, once that is known

    def pieces(self) -> Iterator[tuple[slice, Floats]]:
        step = max(1, IN_CACHE // self.matrix.shape[1])
        for start in range(0, len(self.matrix), step):
            rows = slice(start, start + step)
            yield rows, self.matrix[rows]

    def fill(self, x: Floats, weight: Floats, bias: Floats | None) -> Floats:
        """-> the score of each sample's own class (B,)."""
        self.points = Points(x, self.cosines)
        if self.cosines:
            norms = np.sqrt(np.einsum("ij,ij->i", weight, weight))
            dead = norms <= SMALLEST_NORM
            self.inverse = np.where(dead, 0.0, 1.0 / np.where(dead, 1.0, norms)).astype(np.float32)
        self.matrix = self.points.at @ weight.T
        for rows, part in self.pieces():
            if self.inverse is not None:
                part *= self.inverse
            if bias is not None:
                part += bias
            part.max(axis=1, out=self.nearest[rows])
        own: Floats = self.matrix[self.line, self.target]
        return own

    def to_exponentials(self, true: Floats, scale: float) -> Floats:
        """Logits are scale times the scores, and `true` (B,) for the own class -> the cross-entropies (B,)."""
        self.matrix[self.line, self.target] = true / np.float32(scale)
        entropy, self.share = np.empty((2, len(true)), np.float32)
        for rows, part in self.pieces():
            top = part.max(axis=1)
            part -= top[:, None]
            part *= np.float32(scale)
            np.exp(part, out=part)
            total = part.sum(axis=1)
            entropy[rows] = np.log(total) - (true[rows] - np.float32(scale) * top)
            self.share[rows] = 1.0 / total
        return entropy

    def to_slopes(self, own: Floats) -> Floats:
        """-> the matrix as slopes of the loss in the plain products, by the slope (B,) in the own class's score."""
        pull = np.zeros_like(own) if self.pull is None else self.pull
        matrix = self.matrix
        for rows, part in self.pieces():
            part *= pull[rows, None]
        matrix[self.line, self.target] = own
        return matrix


class _Scores(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, scores: Scores) -> Tensor:
        ctx.weight, ctx.scores = as_array(weight), scores
        ctx.fixed = [each.stop_gradient for each in (x, weight, bias) if each is not None]
        own = scores.fill(as_array(x), ctx.weight, None if bias is None else as_array(bias))
        return paddle.to_tensor(own)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        scores, weight = ctx.scores, ctx.weight
        with np.errstate(all="ignore"):
            slopes = scores.to_slopes(slope.numpy())
            found = [None if ctx.fixed[2] else slopes.sum(axis=0)] if len(ctx.fixed) == 3 else []
            if scores.inverse is not None:
                for _, part in scores.pieces():
                    part *= scores.inverse
            to_weight = None if ctx.fixed[1] else _to_weight(slopes, scores, weight)
            to_x = None if ctx.fixed[0] else scores.points.back(slopes @ weight)
        del scores.matrix
        given = [None if each is None else paddle.to_tensor(each) for each in (to_x, to_weight, *found)]
        return tuple(given)


def _to_weight(slopes: Floats, scores: Scores, weight: Floats) -> Floats:
    """slopes (B, C) in the products -> the gradient (C, D), without what would only make a normalised row longer."""
    back: Floats = slopes.T @ scores.points.at
    if scores.inverse is not None:
        along = np.einsum("ij,ij->i", weight, back) * scores.inverse**2
        for start in range(0, len(back), 1024):
            rows = slice(start, start + 1024)
            back[rows] -= weight[rows] * along[rows, None]
    return back


class _Entropies(PyLayer):
    @staticmethod
    def forward(ctx: Any, own: Tensor, true: Tensor, scores: Scores, scale: float) -> Tensor:
        ctx.scores, ctx.scale = scores, np.float32(scale)
        with np.errstate(all="ignore"):
            entropy = scores.to_exponentials(true.numpy(), scale)
            ctx.probability = scores.matrix[scores.line, scores.target] * scores.share
        return paddle.to_tensor(entropy)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        up = slope.numpy()
        ctx.scores.pull = up * ctx.scale * ctx.scores.share
        # What stands in the own class's column is `true`, not `own`; that own goes in puts this before _Scores.
        return paddle.zeros_like(slope), paddle.to_tensor(up * (ctx.probability - np.float32(1.0)))


def scores(x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, cosines: bool) -> tuple[Tensor, Scores]:
    """x (B, D), weight (C, D), bias (C,) or None, target (B,) int64 -> the score of the own class (B,), cosines or
    x.w + b, with its gradient and that of what `entropies` makes of the others."""
    made = Scores(target.numpy(), cosines)
    with np.errstate(all="ignore"):
        return _Scores.apply(x, weight, bias, made), made


def entropies(own: Tensor, true: Tensor, made: Scores, scale: float) -> Tensor:
    """true (B,), the own class's logit -> cross-entropies (B,) over it and scale times all other scores."""
    return _Entropies.apply(own, true, made, scale)
