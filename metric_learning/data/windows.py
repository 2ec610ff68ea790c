"""Which part of a picture becomes the network's input: the centre or a random crop, maybe turned; its pixels."""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from metric_learning.data.pictures import Picture as Picture

Points = NDArray[np.float64]
MOST = 1.25  # pixels of the picture between two points of linear interpolation


class Window(NamedTuple):
    """The part of a picture that became the network's input: left, top, width, height in pixels of the picture.

    Edges, not centres: a whole picture is 0, 0, w, h. size: (h, w) of the picture. mirrored: left and right changed
    places; upended: top and bottom did. angle: before it was cut out, the picture was turned round the middle of the
    window, in degrees against the clock.
    """

    left: float
    top: float
    width: float
    height: float
    size: tuple[int, int]
    mirrored: bool = False
    upended: bool = False
    angle: float = 0.0

    def place(self, points: Points) -> Points:
        """points (N, 2), x and y in pixels of the picture, (0, 0) the middle of its first -> in 0..1 of the input.

        Points that the input does not show come out below 0 or above 1.
        """
        points = points + 0.5
        if self.angle:
            middle = self.middle
            points = (points - middle) @ turn(self.angle).T + middle
        placed: Points = (points - (self.left, self.top)) / (self.width, self.height)
        if self.mirrored:
            placed[:, 0] = 1 - placed[:, 0]
        if self.upended:
            placed[:, 1] = 1 - placed[:, 1]
        return placed

    def smaller(self, by: int, size: tuple[int, int]) -> "Window":
        """The same part of the picture at 1 / by of its size, which is `size` (h, w) then."""
        left, top, width, height = (value / by for value in self[:4])
        return self._replace(left=left, top=top, width=width, height=height, size=size)

    @property
    def middle(self) -> Points:
        """x, y of its middle."""
        return np.array([self.left + self.width / 2, self.top + self.height / 2])


def turn(angle: float) -> NDArray[np.float64]:
    """(2, 2): where x to the right and y down go when all is turned by `angle` degrees against the clock."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array([[cos, sin], [-sin, cos]])


class Cut(NamedTuple):
    """A window, and how its pixels are taken: a region of the picture is resized, and H x W of that are kept.

    region: top, left, height, width in whole pixels. resized: its height and width then. corner: top and left in that.
    """

    window: Window
    region: tuple[int, int, int, int]
    resized: tuple[int, int]
    corner: tuple[int, int] = (0, 0)

    def reduction(self) -> int:
        """How much smaller the picture may be decoded, 1, 2, 4 or 8, so that still nothing must grow."""
        h, w = self.region[2:]
        return next((by for by in (8, 4, 2) if h // by >= self.resized[0] and w // by >= self.resized[1]), 1)

    @property
    def bottom(self) -> int:
        """The first row of the picture below the region."""
        return self.region[0] + self.region[2]

    def reduced(self, by: int) -> "Cut":
        """The same of the picture at 1 / by of its size: moved to whole pixels of that, and the window with it."""
        if by == 1:
            return self
        top, left, h, w = self.region
        first, begin, last, end = (round(edge / by) for edge in (top, left, top + h, left + w))
        down, across = by * (last - first) / h, by * (end - begin) / w  # how much the region has been stretched
        x, y = by * begin + across * (self.window.left - left), by * first + down * (self.window.top - top)
        window = self.window._replace(left=x, top=y, width=across * self.window.width, height=down * self.window.height)
        return self._replace(window=window, region=(first, begin, last - first, end - begin))

    def pixels(self, picture: Picture, size: tuple[int, ...], quick: bool = False) -> Picture:
        """picture (h, w, 3) -> (H, W, 3); it may be a view of the picture. quick: nearly the same, sooner."""
        (top, left, h, w), (down, across) = self.region, self.corner
        resized = (_nearly if quick else _resize)(picture[top : top + h, left : left + w], *self.resized)
        return resized[down : down + size[0], across : across + size[1]]


def centre_cut(whole: tuple[int, int], size: tuple[int, ...], crop: float) -> Cut:
    """Of a picture of `whole` (h, w): resize so that H / crop x W / crop is just covered, keep the centre H x W."""
    height, width = size
    first, begin, h, w = _trim(*whole, height / width)
    scale = max(height / crop / h, width / crop / w)
    high, wide = max(height, round(h * scale)), max(width, round(w * scale))
    top, left = (high - height) // 2, (wide - width) // 2
    down, across = h / high, w / wide  # pixels of the picture in one of the resized
    window = Window(begin + left * across, first + top * down, width * across, height * down, whole)
    return Cut(window, (first, begin, h, w), (high, wide), (top, left))


def _trim(h: int, w: int, aspect: float) -> tuple[int, int, int, int]:
    """(top, left, height, width) of what is kept of h x w, whose far ends are cut off where it is very long.

    A strip of 1 x 10,000 resized whole would fill the memory.
    """
    high, wide = min(h, math.ceil(4 * w * aspect)), min(w, math.ceil(4 * h / aspect))
    return (h - high) // 2, (w - wide) // 2, high, wide


def random_cut(
    whole: tuple[int, int], size: tuple[int, ...], least: float, squeeze: float, rng: np.random.Generator
) -> Cut:
    """A crop of an area in [least, 1] of the picture and an aspect in 1 / squeeze .. squeeze of that of H x W."""
    h, w = whole
    for _ in range(10):
        area = _uniform(rng, least, 1) * h * w
        aspect = size[1] / size[0] * math.exp(_uniform(rng, -math.log(squeeze), math.log(squeeze)))
        wide, high = max(1, round(math.sqrt(area * aspect))), max(1, round(math.sqrt(area / aspect)))
        if wide <= w and high <= h:
            top, left = int(rng.integers(h - high + 1)), int(rng.integers(w - wide + 1))
            return Cut(Window(left, top, wide, high, whole), (top, left, high, wide), (size[0], size[1]))
    return centre_cut(whole, size, 1.0)


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """rng.uniform(low, high), bit for bit, in a fifth of the time."""
    return low + (high - low) * rng.random()


def turned(picture: Picture, window: Window, size: tuple[int, ...]) -> Picture:
    """What the window shows (H, W, 3) of the picture turned by its angle; beyond the picture's edge it is mirrored.

    One linear resampling. Where it shrinks, whole pixels are averaged first, so that nothing finer than the result is
    left in it: linear interpolation alone would pick single ones.
    """
    height, width = size
    cos, sin = np.abs(turn(window.angle)[0])
    reach = np.array([cos * window.width + sin * window.height, sin * window.width + cos * window.height]) / 2 + 2
    left, top = np.maximum(np.floor(window.middle - reach), 0).astype(int)
    right, bottom = np.minimum(np.ceil(window.middle + reach), window.size[::-1]).astype(int)
    near = picture[top:bottom, left:right]  # OpenCV warps no side above 32,767
    h, w = near.shape[:2]
    fewer_w, fewer_h = max(1, int(window.width / width)), max(1, int(window.height / height))
    if fewer_h > 1 or fewer_w > 1:
        near = _scaled(near, math.ceil(h / fewer_h), math.ceil(w / fewer_w), cv2.INTER_AREA)
    # A pixel's middle in the result -> in the turned picture -> in the picture -> in `near`, all from the upper left.
    shrink = np.array([near.shape[1] / w, near.shape[0] / h])
    linear = shrink[:, None] * turn(-window.angle) * (window.width / width, window.height / height)
    origin = shrink * (window.middle - (left, top)) - linear @ np.array([width / 2, height / 2])
    shift = origin + linear @ np.array([0.5, 0.5]) - 0.5  # of the pixels' middles, as OpenCV counts
    result: Picture = cv2.warpAffine(
        near,
        np.column_stack([linear, shift]),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    return result


def _resize(picture: Picture, height: int, width: int) -> Picture:
    """The mean over the area of each new pixel where it shrinks, linear interpolation where it grows."""
    h, w = picture.shape[:2]
    if (h, w) == (height, width):
        return picture
    return _scaled(picture, height, width, cv2.INTER_AREA if height * width < h * w else cv2.INTER_LINEAR)


def _nearly(picture: Picture, height: int, width: int) -> Picture:
    """What _resize gives within about 0.3 of 255, in half of the time where it shrinks to between 1/2 and 4/5.

    Linear interpolation at points that are at most MOST pixels apart, and the mean of each 1, 2 or 4 of them.
    """
    h, w = picture.shape[:2]
    if h > 2 * MOST * height or w > 2 * MOST * width:
        return _resize(picture, height, width)
    high, wide = height * (1 + (h > MOST * height)), width * (1 + (w > MOST * width))
    if (h, w) != (high, wide):
        picture = _scaled(picture, high, wide, cv2.INTER_LINEAR)
    return picture if (high, wide) == (height, width) else _scaled(picture, height, width, cv2.INTER_AREA)


def _scaled(picture: Picture, height: int, width: int, how: int) -> Picture:
    scaled: Picture = cv2.resize(picture, (width, height), interpolation=how)
    return scaled
