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
from metric_learning.ops import SMALLEST_NORM

Floats = NDArray[np.float32]
Places = NDArray[np.int64]
Marks = NDArray[np.bool_]
IN_CACHE = 2**18  # entries of a piece that several passes go over
AT_ONCE = 2**21  # entries of a piece that is made by a product and gone through once


class Piece(NamedTuple):
    """Some anchors, each with a positive and a negative: near (t, K) has what they have to their positives, far (t, R)
    to their negatives; `positives` and `negatives` (t,) say how many. All other entries are as easy as can be: of
    distances near -inf and far inf, of cosines near inf and far -inf."""

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
    """labels (R,), the first A those of anchors -> who is whose positive."""

    def __init__(self, names: Labels, anchors: int) -> None:
        _, inverse, counts = np.unique(names, return_inverse=True, return_counts=True)
        self.of: Places = inverse.reshape(-1).astype(np.int64)
        self.order: Places = np.argsort(self.of, kind="stable")
        self.starts: Places = np.cumsum(counts) - counts
        self.counts: Places = counts.astype(np.int64)
        own = self.counts[self.of[:anchors]]
        self.both: Marks = (own > 1) & (own < len(names))

    def own(self, rows: Places) -> tuple[Places, Marks]:
        """Anchors (t,) -> columns (t, K) of their positives, and which of them are; the rest is the anchor itself."""
        own = self.of[rows]
        counts = self.counts[own][:, None]
        place = np.arange(counts.max())
        columns = self.order[self.starts[own][:, None] + np.minimum(place, counts - 1)]
        there = (place < counts) & (columns != rows[:, None])
        return np.where(there, columns, rows[:, None]), there


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


def all_rows(points: Points, classes: Classes, rows: Rows, cosines: bool, learns: bool) -> Found:
    """The mean of `rows` over the anchors that have both, of cosines or of distances."""
    at = points.at if cosines else points.centred
    both = np.flatnonzero(classes.both)
    slopes = np.empty((len(classes.both), len(at)), np.float32)
    total, active = 0.0, 0
    np.matmul(at[: len(slopes)] if cosines else -2.0 * at[: len(slopes)], at.T, out=slopes)
    square = None if cosines else np.einsum("ij,ij->i", at, at)
    for part in _parts(both, len(at), IN_CACHE):
        # A view where no anchor between the first and the last is left out.
        whole = part[-1] - part[0] == len(part) - 1
        values = slopes[part[0] : part[-1] + 1] if whole else slopes[part]
        if square is not None:
            _to_distances(values, square[part], square)
        value, pulls = _in_place(values, part, classes, rows, np.float32(-np.inf if cosines else np.inf))
        total, active = total + float(value.sum(dtype=np.float64)), active + int(pulls.sum())
        if not whole:
            slopes[part] = values
    if not learns:
        return Found(total / len(both), active / len(both), None)
    slopes[~classes.both] = 0.0
    _add_transposed(slopes)
    slope = slopes @ at
    if not cosines:
        slope = 2.0 * (slopes.sum(axis=1, keepdims=True) * at[: len(slope)] - slope)
    slope /= len(both)
    return Found(total / len(both), active / len(both), points.back(slope))


def _in_place(values: Floats, part: Places, classes: Classes, rows: Rows, easy: np.float32) -> tuple[Floats, Marks]:
    """values (t, R) of these anchors to all references -> `rows` of them; values become the slopes."""
    columns, there = classes.own(part)
    near = np.take_along_axis(values, columns, 1)
    near[~there] = -easy
    np.put_along_axis(values, columns, easy, 1)
    values[np.arange(len(part)), part] = easy
    positives = there.sum(axis=1).astype(np.float32)
    found = rows(Piece(near, values, positives, np.float32(values.shape[1] - 1) - positives))
    np.put_along_axis(values, columns, np.where(there, near, np.float32(0.0)), 1)
    return found


def hardest_pairs(points: Points, classes: Classes, hard: Hard, learns: bool) -> Found:
    """`hard` of each anchor's farthest positive and nearest negative."""
    at, anchors = points.centred, np.arange(len(classes.both))
    square = np.einsum("ij,ij->i", at, at)
    d_ap, d_an = np.empty((2, len(anchors)), np.float32)
    farthest, nearest = np.empty((2, len(anchors)), np.int64)
    for part in _parts(anchors, len(at), AT_ONCE):
        line, values = part - part[0], np.float32(-2.0) * at[part] @ at.T
        _to_distances(values, square[part], square)
        columns, there = classes.own(part)
        near = np.where(there, np.take_along_axis(values, columns, 1), np.float32(-np.inf))
        np.put_along_axis(values, columns, np.float32(np.inf), 1)
        values[line, part] = np.inf
        last, nearest[part] = near.argmax(axis=1), values.argmin(axis=1)
        farthest[part], d_ap[part], d_an[part] = columns[line, last], near[line, last], values[line, nearest[part]]
    value, active, slope_ap, slope_an = hard(Hardest(d_ap, d_an, int(classes.both.sum())))
    if not learns:
        return Found(value, active, None)
    slope = _pulled(at, len(anchors), np.tile(anchors, 2), np.r_[farthest, nearest], np.r_[slope_ap, slope_an])
    return Found(value, active, points.back(slope))


def _parts(rows: Places, width: int, entries: int) -> list[Places]:
    """The rows in pieces of about so many entries."""
    return np.array_split(rows, max(1, -(-len(rows) * width // entries)))


def _to_distances(values: Floats, anchors: Floats, references: Floats) -> None:
    """values (t, R) = -2 x.y -> d, in place, by |x|^2 (t,) and |y|^2 (R,)."""
    values += references
    values += anchors[:, None]
    np.maximum(values, 0.0, out=values)


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


def _pulled(at: Floats, anchors: int, rows: Places, columns: Places, slopes: Floats) -> Floats:
    """The gradient (A, D) of sum(slopes d) over pairs (rows, columns) of points `at`, d squared distances."""
    some = np.flatnonzero(slopes)
    rows, columns = rows[some], columns[some]
    steps = (2.0 * slopes[some, None]) * (at[rows] - at[columns])
    slope = np.zeros((anchors, at.shape[1]), np.float32)
    _add_at(slope, rows, steps)
    moving = columns < anchors
    _add_at(slope, columns[moving], -steps[moving])
    return slope


def _add_at(table: Floats, rows: Places, steps: Floats) -> None:
    """table[rows] += steps, also where a row is there several times, which are added up in their order."""
    if len(rows):
        order = np.argsort(rows, kind="stable")
        places, starts = np.unique(rows[order], return_index=True)
        table[places] += np.add.reduceat(steps[order], starts, axis=0)


def mean_distances(points: Points, classes: Classes) -> tuple[float, float]:
    """Mean d over all positive and over all negative pairs; 0 where there is none. By sums over classes: no matrix."""
    at, anchors = points.centred, len(classes.both)
    square = np.einsum("ij,ij->i", at, at).astype(np.float64)
    sums, squares, counts = _class_sums(at, square, classes, len(at))
    if anchors == len(at):
        mine, my_squares, my_counts = sums, squares, counts
    else:
        mine, my_squares, my_counts = _class_sums(at[:anchors], square[:anchors], classes, anchors)
    own = _pair_sum(mine, my_squares, my_counts, sums, squares, counts)
    every = _pair_sum(
        *(table.sum(axis=0, keepdims=True) for table in (mine, my_squares, my_counts, sums, squares, counts))
    )
    positives = float(my_counts @ counts) - anchors
    negatives = float(anchors * len(at)) - positives - anchors
    return max(own, 0.0) / max(positives, 1.0), max(every - own, 0.0) / max(negatives, 1.0)


def _class_sums(at: Floats, square: Any, classes: Classes, rows: int) -> tuple[Any, Any, Any]:
    """Of each class, over the first so many rows: the sum of the points, of their squares, and how many there are."""
    size, of = len(classes.counts), classes.of[:rows]
    order = classes.order if rows == len(classes.of) else np.argsort(of, kind="stable")
    present, starts = np.unique(of[order], return_index=True)
    sums = np.zeros((size, at.shape[1]), np.float64)
    sums[present] = np.add.reduceat(at[order], starts, axis=0)
    return sums, np.bincount(of, square, size), np.bincount(of, minlength=size).astype(np.float64)


def _pair_sum(mine: Any, my_squares: Any, my_counts: Any, sums: Any, squares: Any, counts: Any) -> float:
    """Sum of |x - y|^2 over pairs of one class, from sums over classes."""
    return float(counts @ my_squares + my_counts @ squares - 2.0 * np.einsum("ij,ij->", mine, sums))


class _Known(PyLayer):
    """A value that was found with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: float, slope: Floats | None) -> Tensor:
        ctx.slope, ctx.rows = slope, x.shape[0]
        return paddle.to_tensor(np.asarray(value, np.float32))

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> Tensor:
        slope = ctx.slope * up.numpy()
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
