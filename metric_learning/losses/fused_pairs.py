"""Pair losses on a CPU: value and gradient of all that has the size A x R at once, in NumPy, over pieces of its rows.

Paddle's elementwise kernels are slow on a CPU, and a graph keeps a matrix for each step of a formula. Here one matrix
(A, R) is filled by a product, turned into slopes where it lies, a piece that fits the cache at a time, and given to a
second product; a loss that looks at one pair of each anchor only needs no matrix at all. What a loss adds is a method:
its `rows` (every pair counts) or its `hardest` (see PairLoss). Its `compute` says the same in Paddle, for GPUs.

A anchors, R references, K other samples of the largest class; a piece has t anchors. All is float32. d are squared
distances, of points as they are or of length 1.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor
from paddle.autograd import PyLayer

from metric_learning.losses.base import Labels
from metric_learning.ops import SMALLEST_NORM, as_tensor

Floats = NDArray[np.float32]
Places = NDArray[np.int64]
Marks = NDArray[np.bool_]
IN_CACHE = 2**18  # entries of a piece that several passes go over
AT_ONCE = 2**21  # entries of a piece that is made by a product and gone through once


class Piece(NamedTuple):
    """Some anchors: near (t, K) has what they have to their positives, far (t, R) to their negatives; `positives` and
    `negatives` (t,) say how many. All other entries are as easy as can be: of distances near -inf and far inf, of
    cosines near inf and far -inf. What is made of an anchor that has no positive or no negative is not looked at."""

    near: Floats
    far: Floats
    positives: Floats
    negatives: Floats


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


class Classes:
    """labels (R,), the first A those of anchors -> who is whose positive, and which anchors (A,) have both."""

    def __init__(self, names: Labels, anchors: int) -> None:
        _, inverse, counts = np.unique(names, return_inverse=True, return_counts=True)
        self.of: Places = inverse.reshape(-1)
        self.order: Places = np.argsort(self.of, kind="stable")
        self.counts: Places = counts
        self.starts: Places = np.cumsum(counts) - counts
        own = counts[self.of[:anchors]]
        self.both: Marks = (own > 1) & (own < len(names))

    def own(self, rows: slice) -> tuple[Places, Marks]:
        """Anchors (t,) -> columns (t, K) of their positives, and which of them are; the rest is the anchor itself."""
        own, itself = self.of[rows], np.arange(rows.start, rows.stop)[:, None]
        counts = self.counts[own][:, None]
        place = np.arange(counts.max())
        columns = self.order[self.starts[own][:, None] + np.minimum(place, counts - 1)]
        there = (place < counts) & (columns != itself)
        return np.where(there, columns, itself), there


class Points:
    """x (R, D) -> what is compared: `at`, x itself or of length 1 (a row of 0 stays 0); |x| of each row in `norms`."""

    def __init__(self, x: Floats, normalized: bool) -> None:
        self.norms: Floats = np.sqrt(np.einsum("ij,ij->i", x, x))
        self.inverse: Floats | None = None
        self.at = x
        if normalized:
            dead = self.norms <= SMALLEST_NORM
            self.inverse = np.where(dead, 0.0, 1.0 / np.where(dead, 1.0, self.norms)).astype(np.float32)
            self.at = x * self.inverse[:, None]

    @functools.cached_property
    def centred(self) -> Floats:
        """`at`, moved. Distances do not change by it, and near the origin |x|^2 + |y|^2 - 2xy cancels fewest digits."""
        moved: Floats = self.at - self.at.mean(axis=0)
        return moved

    def back(self, slope: Floats) -> Floats:
        """Gradient in the first rows of `at` -> in those of x, in place."""
        if self.inverse is not None:
            at = self.at[: len(slope)]
            slope -= at * np.einsum("ij,ij->i", at, slope)[:, None]
            slope *= self.inverse[: len(slope), None]
        return slope


class Compared:
    """Anchors against references, a piece of rows after the other. Adds up d of all pairs on the way, for figures."""

    def __init__(self, points: Points, classes: Classes, cosines: bool) -> None:
        self.points, self.classes, self.cosines = points, classes, cosines
        self.at = points.at if cosines else points.centred
        self.square: Floats = np.einsum("ij,ij->i", self.at, self.at)
        self.easy = np.float32(-np.inf if cosines else np.inf)
        self.anchors = len(classes.both)
        self.near, self.far = 0.0, 0.0

    def pieces(self, entries: int) -> list[slice]:
        """The anchors in pieces of about so many entries."""
        step = max(1, entries // len(self.at))
        return [slice(start, min(start + step, self.anchors)) for start in range(0, self.anchors, step)]

    def product(self, rows: slice) -> Floats:
        """x.y of these anchors and all references, times -2 where distances are wanted."""
        found: Floats = self.at[rows] @ self.at.T if self.cosines else np.multiply(self.at[rows], -2.0) @ self.at.T
        return found

    def piece(self, values: Floats, rows: slice) -> tuple[Piece, Places, Marks]:
        """values (t, R) = `product` of these rows, which become `far` -> the piece, columns (t, K) of `near`, and which
        of them are positives."""
        if not self.cosines:
            values += self.square
            values += self.square[rows, None]
            np.maximum(values, 0.0, out=values)
        columns, there = self.classes.own(rows)
        near = np.take_along_axis(values, columns, 1)
        self._add(values, near, columns, there, rows)
        near[~there] = -self.easy
        np.put_along_axis(values, columns, self.easy, 1)
        values[np.arange(len(values)), np.arange(rows.start, rows.stop)] = self.easy
        positives = there.sum(axis=1).astype(np.float32)
        return Piece(near, values, positives, np.float32(len(self.at) - 1) - positives), columns, there

    def _add(self, values: Floats, near: Floats, columns: Places, there: Marks, rows: slice) -> None:
        every, own = _sum(values), _sum(near * there)
        if self.cosines:
            mine = self.square[rows]
            every = len(self.at) * _sum(mine) + len(mine) * _sum(self.square) - 2.0 * every
            own = _sum((mine[:, None] + self.square[columns]) * there) - 2.0 * own
        self.near, self.far = self.near + own, self.far + every - own

    def mean_distances(self) -> tuple[float, float]:
        """Mean d over all positive and over all negative pairs of the pieces so far; 0 where there is none."""
        own = int(self.classes.counts[self.classes.of[: self.anchors]].sum())
        negatives = self.anchors * len(self.at) - own
        return max(self.near, 0.0) / max(own - self.anchors, 1), max(self.far, 0.0) / max(negatives, 1)


def _sum(values: Floats) -> float:
    return float(values.sum(axis=-1).sum(dtype=np.float64))


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
        return as_tensor(slope)


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
