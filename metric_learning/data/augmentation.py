"""What training changes in a picture beside its crop, in what order, and how much: docs/augmentation.md shows each.

All of it is drawn from the given generator, and nothing is drawn for what is off.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import check_range
from metric_learning.data.windows import Picture

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in cv2's RGB to gray


@dataclass(frozen=True)
class Augmentation:
    """How much a training picture is changed; by default nothing is. In the order in which it happens:

    rotation: turned by up to so many degrees either way, 0..180, as it is cropped; beyond its edge it is mirrored.
    vertical_flip: half of the pictures are turned upside down (after TrainTransform's own flip, left to right).
    brightness, contrast, saturation x: multiplied by a number in 1 - x .. 1 + x, 0..1; None: as --color_jitter says.
    gray_rate: share of the pictures that lose their colour, 0..1.
    blur: Gaussian with a standard deviation in 0..blur, in pixels of the input, 0..100.
    noise: Gaussian, a number a value, with a standard deviation in 0..noise, where white is 1, 0..1.
    salt_pepper: a share in 0..salt_pepper of the pixels becomes black or white, half and half, 0..1.
    cutout: a square is covered whose side is this share of the picture's shorter one, 0..1; its middle may be any
    pixel, so a part of it may lie outside. It is filled with the spec's mean, which the network sees as 0
    (DeVries and Taylor, arXiv 1708.04552, section 3).
    """

    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    gray_rate: float = 0.0
    rotation: float = 0.0
    vertical_flip: bool = False
    noise: float = 0.0
    salt_pepper: float = 0.0
    blur: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation", "gray_rate", "noise", "salt_pepper", "cutout"):
            check_range(name, getattr(self, name) or 0, 0, 1)
        check_range("rotation", self.rotation, 0, 180)
        check_range("blur", self.blur, 0, 100)

    def colours(self, color_jitter: float) -> NDArray[np.float64]:
        """The shares (3,) of brightness, contrast and saturation; color_jitter stands for those that are not said."""
        said = (self.brightness, self.contrast, self.saturation)
        return np.array([color_jitter if share is None else share for share in said])

    def degrade(self, picture: Picture, mean: Sequence[float], rng: np.random.Generator) -> Picture:
        """A picture (H, W, C) of the input's size and channels, blurred, noisy, covered. mean: (C,) in 0..1."""
        if self.blur > 0:
            picture = blurred(picture, rng.uniform(0, self.blur))
        if self.noise > 0:
            picture = noisy(picture, rng.uniform(0, self.noise), rng)
        if self.salt_pepper > 0:
            picture = speckled(picture, rng.uniform(0, self.salt_pepper), rng)
        if self.cutout > 0:
            side = max(1, round(self.cutout * min(picture.shape[:2])))
            middle = rng.integers(picture.shape[0]), rng.integers(picture.shape[1])
            picture = covered(picture, side, (int(middle[0]), int(middle[1])), mean)
        return picture


# ---- colour


def recoloured(picture: Picture, factors: Sequence[float] | NDArray[np.float64]) -> Picture:
    """Brightness, contrast about the mean luma, saturation about each pixel's luma; clipped to 0..255 after each."""
    brightness, contrast, saturation = (np.float32(factor) for factor in factors)
    weights = np.array(LUMA, np.float32)
    values = np.clip(picture.astype(np.float32) * brightness, 0, 255)
    if contrast != 1:
        middle = (values @ weights).mean(dtype=np.float64).astype(np.float32)
        values = np.clip(middle + (values - middle) * contrast, 0, 255)
    if saturation != 1:
        gray = (values @ weights)[:, :, None]
        values = gray + (values - gray) * saturation
    made: Picture = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return made


def grayed(picture: Picture) -> Picture:
    """Each pixel's luma in all three channels."""
    gray: Picture = cv2.cvtColor(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return gray


# ---- blur, noise, covering


def blurred(picture: Picture, sigma: float) -> Picture:
    """Gaussian of sigma pixels, cut off behind 3 sigma, mirrored at the edges without their last row."""
    if sigma <= 0:
        return picture
    made: Picture = cv2.GaussianBlur(picture, (0, 0), sigma).reshape(picture.shape)  # OpenCV drops a single channel
    return made


def noisy(picture: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """Plus Gaussian noise of standard deviation sigma, 1 being white, drawn for every value; clipped to 0..255."""
    values = rng.standard_normal(picture.shape, np.float32)
    values *= np.float32(255 * sigma)
    values += picture
    made: Picture = np.clip(np.rint(values, out=values), 0, 255, out=values).astype(np.uint8)
    return made


def speckled(picture: Picture, share: float, rng: np.random.Generator) -> Picture:
    """Each pixel black with a chance of share / 2, white with the same."""
    chance = rng.random(picture.shape[:2], np.float32)
    made = picture.copy()
    made[chance < share / 2] = 0
    made[chance >= 1 - share / 2] = 255
    return made


def covered(picture: Picture, side: int, middle: tuple[int, int], mean: Sequence[float]) -> Picture:
    """A square of `side` pixels about the row and column `middle`, as far as it is inside, filled with mean (C,)."""
    top, left = (place - side // 2 for place in middle)
    made = picture.copy()
    made[max(top, 0) : top + side, max(left, 0) : left + side] = np.clip(np.rint(255 * np.array(mean)), 0, 255)
    return made
