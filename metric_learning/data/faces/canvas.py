"""Outlines and a canvas to draw them on: smooth curves, strokes, a head that turns, antialiased fills and soft washes.

A head is an ellipsoid; features are outlines on it, in half-widths of the head (x to the right, y down, the eyes near
y = 0, the chin near y = 1.2), turned and projected, and filled with antialiasing at twice the picture's size.
"""

from collections.abc import Sequence
from functools import cache, cached_property
from itertools import accumulate, pairwise
from math import cos, sin, sqrt
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

SIDE = 112  # pixels
FINE = 2  # drawn at this many times the side
CENTRE = (56.0, 57.0)  # of the head, pixels
HALF_WIDTH = 33.5  # of a head, pixels

Points = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
Colour = npt.NDArray[np.float64]
Polygon = npt.NDArray[np.int32]
Box = tuple[slice, slice]
Outlines = Points | Sequence[Points]


@cache
def basis(knots: int, closed: bool, each: int) -> Points:
    """(samples, knots) weights of a Catmull-Rom curve through the knots, `each` samples a piece."""
    rows = []
    for piece in range(knots if closed else knots - 1):
        for t in np.arange(each) / each:
            row = np.zeros(knots)
            weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
            for offset, weight in enumerate(weights):
                knot = piece + offset - 1
                row[knot % knots if closed else min(max(knot, 0), knots - 1)] += weight / 2
            rows.append(row)
    if not closed:
        rows.append(np.eye(knots)[-1])
    return np.array(rows)


def curve(knots: Any, closed: bool = False, each: int = 4) -> Points:
    """A smooth curve through the knots (K, 2) -> (samples, 2)."""
    knots = np.asarray(knots, dtype=np.float64)
    smooth: Points = basis(len(knots), closed, each) @ knots
    return smooth


def mirror(half: Any) -> Points:
    """The right half of an outline, top to bottom -> the closed outline."""
    half = np.asarray(half, dtype=np.float64)
    return np.concatenate([half, half[::-1] * (-1.0, 1.0)])


@cache
def _circle(samples: int) -> Points:
    angle = np.arange(samples) * (2 * np.pi / samples)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def ellipse(x: float, y: float, a: float, b: float, tilt: float = 0.0, samples: int = 16) -> Points:
    """An ellipse's outline; tilt in radians."""
    c, s = cos(tilt), sin(tilt)
    outline: Points = _circle(samples) @ np.array(((a * c, a * s), (-b * s, b * c))) + (x, y)
    return outline


def stroke(line: Points, width: Any) -> Points:
    """The outline (..., 2n, 2) of lines (..., n, 2) of the given full width: a number, or one a point (n,)."""
    along = np.empty_like(line)
    along[..., 1:-1, :] = line[..., 2:, :] - line[..., :-2, :]
    along[..., 0, :], along[..., -1, :] = line[..., 1, :] - line[..., 0, :], line[..., -1, :] - line[..., -2, :]
    x, y = along[..., 0], along[..., 1]
    scale = 0.5 * width / (np.sqrt(x * x + y * y) + 1e-9)
    normal = np.stack([-y * scale, x * scale], axis=-1)
    return np.concatenate([line + normal, (line - normal)[..., ::-1, :]], axis=-2)


def both_sides(outline: Points) -> list[Points]:
    """An outline on the right side of the face and its mirror image."""
    return [outline, outline * _MIRROR]


@cache
def taper(samples: int, start: float = 0.3, end: float = 0.3) -> Points:
    """Widths (samples,) that swell from `start` to 1 in the middle and fall to `end`."""
    t = np.linspace(0.0, 1.0, samples)
    bump = np.sin(np.pi * t)
    widths: Points = (start * (1 - t) + end * t) * (1 - bump) + bump
    return widths


def soften(mask: Pixels, blur: float) -> Pixels:
    """Two box filters, near a Gaussian of standard deviation `blur` pixels and several times as quick."""
    width = round(sqrt(6 * blur * blur + 1)) | 1
    soft: Pixels = cv2.blur(cv2.blur(mask, (width, width)), (width, width))
    return soft


def lowered(points: Points, by: float) -> Points:
    """Points moved down the face."""
    low: Points = np.add(points, (0.0, by))
    return low


_CURVATURE = np.array((1 / 1.05**2, 1 / 1.6**2))
_MIRROR = np.array((-1.0, 1.0))


def surface(points: Points) -> Points:
    """The depth (n,) of points (n, 2) on the front of the head."""
    inside = 1.0 - (points * points) @ _CURVATURE
    depth: Points = 0.95 * np.sqrt(np.maximum(inside, 0.0))
    return depth


class Pose(NamedTuple):
    """Where the head is and how it is turned: radians, and pixels of the fine canvas."""

    yaw: float
    pitch: float
    roll: float
    x: float
    y: float
    scale: float

    def matrix(self) -> Points:
        """(4, 2): what x, y, depth and 1 of a point on the head become, in pixels."""
        cy, sy, cp, sp = cos(self.yaw), sin(self.yaw), cos(self.pitch), sin(self.pitch)
        turned = np.array(((cy, -sy * sp), (0.0, cp), (sy, cy * sp)))
        c, s = cos(self.roll), sin(self.roll)
        return np.concatenate([self.scale * turned @ np.array(((c, s), (-s, c))), [(self.x, self.y)]])


def _corner(box: Box) -> tuple[int, int]:
    """What brings a box's left top corner to the origin, in sixteenths of a pixel."""
    return -(box[1].start << 4), -(box[0].start << 4)


class Canvas:
    """A fine canvas (uint8, RGB) and the head's pose; all outlines are given on the head.

    `depth` sets outlines at a depth of their own, one number or one a point; else they lie `lift` above the surface.
    """

    def __init__(self, pixels: Pixels, pose: Pose) -> None:
        self.pixels, self.pose = pixels, pose

    @cached_property
    def _matrix(self) -> Points:
        return self.pose.matrix()

    def project(self, points: Points, depth: Any = None, lift: float = 0.0) -> Points:
        """Points (n, 2) on the head -> pixels (n, 2)."""
        whole = np.ones((len(points), 4))
        whole[:, :2] = points
        whole[:, 2] = surface(points) + lift if depth is None else depth
        pixels: Points = whole @ self._matrix
        return pixels

    def _polygons(self, outlines: Outlines, depth: Any, lift: float) -> list[Polygon]:
        """Outlines -> polygons in sixteenths of a pixel, as OpenCV takes them."""
        if isinstance(outlines, np.ndarray):
            return [(self.project(outlines, depth, lift) * 16 + 0.5).astype(np.int32)]
        points = (self.project(np.concatenate(outlines), depth, lift) * 16 + 0.5).astype(np.int32)
        ends = list(accumulate(len(outline) for outline in outlines))
        return [points[start:end] for start, end in pairwise([0, *ends])]

    def fill(self, outlines: Outlines, colour: Colour, depth: Any = None, lift: float = 0.0) -> None:
        """Fill one outline, or several at once, with an opaque colour."""
        rgb = colour.tolist()
        for polygon in self._polygons(outlines, depth, lift):
            cv2.fillPoly(self.pixels, [polygon], rgb, cv2.LINE_AA, 4)

    def wash(
        self, outlines: Outlines, colour: Colour, alpha: float, blur: float = 0.0, depth: Any = None, lift: float = 0.0
    ) -> None:
        """Lay a colour thinly over one outline or several, the edge softened over `blur` pixels."""
        polygons = self._polygons(outlines, depth, lift)
        box = self._box(polygons, int(2 * blur) + 2)
        if box is None:
            return
        part = self.pixels[box]
        if blur:
            layer = np.full_like(part, np.minimum(colour, 255))
            self.put(layer, self._cut(polygons, box, blur), box, alpha)
        else:
            layer, rgb, corner = part.copy(), colour.tolist(), _corner(box)
            for polygon in polygons:
                cv2.fillPoly(layer, [polygon], rgb, cv2.LINE_AA, 4, corner)
            self.pixels[box] = cv2.addWeighted(layer, alpha, part, 1 - alpha, 0)

    def mask(self, outlines: Outlines, depth: Any = None, lift: float = 0.0) -> tuple[Any, Any]:
        """A mask (uint8) of outlines and its box on the canvas; (None, None) where nothing of it lies there."""
        polygons = self._polygons(outlines, depth, lift)
        box = self._box(polygons, 2)
        return (None, None) if box is None else (self._cut(polygons, box, 0.0), box)

    def _box(self, polygons: list[Polygon], pad: int) -> Box | None:
        """The part of the canvas, `pad` pixels wider than the polygons; None where they lie outside."""
        left, top, width, height = cv2.boundingRect(polygons[0] if len(polygons) == 1 else np.concatenate(polygons))
        right, bottom, side = ((left + width) >> 4) + pad + 1, ((top + height) >> 4) + pad + 1, self.pixels.shape[0]
        left, top = (left >> 4) - pad, (top >> 4) - pad
        if left >= side or top >= side or right <= 0 or bottom <= 0:
            return None
        return slice(max(top, 0), min(bottom, side)), slice(max(left, 0), min(right, side))

    def _cut(self, polygons: list[Polygon], box: Box, blur: float) -> Pixels:
        """The polygons' mask within a box."""
        mask = np.zeros((box[0].stop - box[0].start, box[1].stop - box[1].start), np.uint8)
        for polygon in polygons:
            cv2.fillPoly(mask, [polygon], 255, cv2.LINE_AA, 4, _corner(box))
        return soften(mask, blur) if blur else mask

    def put(self, layer: Pixels, mask: Any, box: Any, alpha: float = 1.0) -> None:
        """Blend a layer of the box's size in, as far as the mask says."""
        weight = mask * np.float32(alpha / 255)
        self.pixels[box] = cv2.blendLinear(self.pixels[box], layer, 1 - weight, weight)
