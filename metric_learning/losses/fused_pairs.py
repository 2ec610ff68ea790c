"""Pair losses on a CPU: value and gradient of all that has the size A x R at once, in NumPy, over pieces of its rows.

Paddle's elementwise kernels are slow on a CPU, and a graph keeps a matrix for each step of a formula. Here one matrix
(A, R) is filled by a product, turned into slopes where it lies, a piece that fits the cache at a time, and given to a
second product; a loss that looks at one pair of each anchor only needs no matrix at all. What a loss adds is a method:
its `rows` (every pair counts) or its `hardest` (see PairLoss). Its `compute` says the same in Paddle, for GPUs.

A anchors, R references, K other samples of the largest class; a piece has t anchors. d are squared distances.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

from metric_learning.losses.compared import Compared, Floats, Marks, Piece, Places

IN_CACHE = 2**18  # entries of a piece that several passes go over
AT_ONCE = 2**21  # entries of a piece that is made by a product and gone through once


class Hardest(NamedTuple):
    """Of each anchor d_ap (A,) of its farthest positive, -inf without one, and d_an (A,) of its nearest negative, inf
    without one; how many have both."""

    d_ap: Floats
    d_an: Floats
    both: int


# -> the value and whether it still pulls (t,); near and far become the slopes of these values.
Rows = Callable[[Piece], tuple[Floats, Marks]]
# -> the value and the active share of all anchors together, and the value's slopes (A,) in d_ap and in d_an.
Hard = Callable[[Hardest], tuple[float, float, Floats, Floats]]


class Found(NamedTuple):
    """What a batch gives. slope (A, D) is the gradient of the value in the anchors, None where none was asked for."""

    value: float
    active_share: float
    slope: Floats | None


def all_rows(compared: Compared, rows: Rows, learns: bool) -> Found:
    """The mean of `rows` over the anchors that have both."""
    both, at = compared.classes.both, compared.at
    slopes = compared.product(slice(0, compared.anchors))
    total, active = 0.0, 0
    for part in compared.pieces(IN_CACHE):
        piece, columns, there = compared.piece(slopes[part], part)
        value, pulls = rows(piece)
        kept = both[part]
        total, active = total + float(value[kept].sum(dtype=np.float64)), active + int(pulls[kept].sum())
        np.put_along_axis(piece.far, columns, np.where(there, piece.near, np.float32(0.0)), 1)
        piece.far[~kept] = 0.0
    count = int(both.sum())
    if not learns:
        return Found(total / count, active / count, None)
    _add_transposed(slopes)
    slope = slopes @ at
    if not compared.cosines:
        slope -= slopes.sum(axis=1, keepdims=True) * at[: len(slope)]
    slope *= np.float32((1.0 if compared.cosines else -2.0) / count)
    return Found(total / count, active / count, compared.points.back(slope))


def hardest_pairs(compared: Compared, hard: Hard, learns: bool) -> Found:
    """`hard` of each anchor's farthest positive and nearest negative."""
    d_ap, d_an = np.empty((2, compared.anchors), np.float32)
    farthest, nearest = np.empty((2, compared.anchors), np.int64)
    for part in compared.pieces(AT_ONCE):
        piece, columns, _ = compared.piece(compared.product(part), part)
        line = np.arange(len(columns))
        last, nearest[part] = piece.near.argmax(axis=1), piece.far.argmin(axis=1)
        farthest[part], d_ap[part] = columns[line, last], piece.near[line, last]
        d_an[part] = piece.far[line, nearest[part]]
    value, active, slope_ap, slope_an = hard(Hardest(d_ap, d_an, int(compared.classes.both.sum())))
    if not learns:
        return Found(value, active, None)
    slope = np.zeros((compared.anchors, compared.at.shape[1]), np.float32)
    _pull(slope, compared.at, farthest, slope_ap)
    _pull(slope, compared.at, nearest, slope_an)
    return Found(value, active, compared.points.back(slope))


def _pull(slope: Floats, at: Floats, partner: Places, slopes: Floats) -> None:
    """Add the gradient (A, D) of sum(slopes d) over anchors (A,) and a partner (A,) of each, d squared distances."""
    rows = np.flatnonzero(slopes)
    steps = at[rows] - at[partner[rows]]
    steps *= np.float32(2.0) * slopes[rows, None]
    slope[rows] += steps
    # A plain loop: ufunc.at and reduceat are several times slower on rows.
    for place, step in zip(partner[rows].tolist(), steps, strict=True):
        if place < len(slope):  # past references have no gradient
            own = slope[place]
            np.subtract(own, step, out=own)


def _add_transposed(slopes: Floats) -> None:
    """G (A, R) -> G + its transposed on the first A columns, in place: an anchor is another one's reference too."""
    count, step = len(slopes), 512
    for first in range(0, count, step):
        rows = slice(first, min(first + step, count))
        for start in range(first, count, step):
            columns = slice(start, min(start + step, count))
            summed = slopes[rows, columns] + slopes[columns, rows].T
            slopes[rows, columns] = summed
            slopes[columns, rows] = summed.T


class _Known(PyLayer):
    """A value that was found with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: float, slope: Floats | None) -> Tensor:
        ctx.slope, ctx.rows = slope, x.shape[0]
        return paddle.to_tensor(np.asarray(value, np.float32))

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> Tensor:
        slope = ctx.slope * up.numpy() if up.item() != 1.0 else ctx.slope
        if len(slope) < ctx.rows:  # past references have no gradient
            slope = np.concatenate([slope, np.zeros((ctx.rows - len(slope), slope.shape[1]), np.float32)])
        return paddle.to_tensor(slope)


def with_gradient(x: Tensor, value: float, slope: Floats | None) -> Tensor:
    """The value as a scalar Tensor; its gradient in the first rows of x is `slope`."""
    return _Known.apply(x, value, slope)


# ---- pieces of formulas


def exponentials(values: Floats, sign: float = 1.0) -> tuple[Floats, Floats]:
    """values (t, n) become exp(sign values - top), top each row's largest -> log of the sum of exp(sign values), and
    1 over the sum of what is there now, (t,) both. Times it, a row is the slope of the first, but for the sign."""
    top = values.max(axis=1, keepdims=True) if sign > 0 else values.min(axis=1, keepdims=True)
    np.subtract(values, top, out=values) if sign > 0 else np.subtract(top, values, out=values)
    np.exp(values, out=values)
    total = values.sum(axis=1)
    return sign * top[:, 0] + np.log(total), 1.0 / total


def softplus(x: Floats) -> Floats:
    found: Floats = np.logaddexp(x, np.float32(0.0))
    return found


def sigmoid(x: Floats) -> Floats:
    found: Floats = np.exp(-np.logaddexp(-x, np.float32(0.0)))
    return found
