"""What pair losses on a CPU compare: points, who is whose positive, and pieces of the matrix between them.

A anchors, R references, of which the first A are the anchors; K other samples of the largest class; a piece has t
anchors. All is float32 in NumPy. d are squared distances.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metric_learning.losses.base import Labels
from metric_learning.ops import SMALLEST_NORM

Floats = NDArray[np.float32]
Places = NDArray[np.int64]
Marks = NDArray[np.bool_]


class Piece(NamedTuple):
    """Some anchors: near (t, K) has what they have to their positives, far (t, R) to their negatives; `positives` and
    `negatives` (t,) say how many. All other entries are as easy as can be: of distances near -inf and far inf, of
    cosines near inf and far -inf. What is made of an anchor that has no positive or no negative is not looked at."""

    near: Floats
    far: Floats
    positives: Floats
    negatives: Floats


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
            self.inverse[~np.isfinite(self.norms)] = np.nan  # else an overflow would look like a row of 0
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
