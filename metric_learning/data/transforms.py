"""uint8 pictures (H, W, 3) RGB -> what the network takes, as its PictureSpec says, which travels with the weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError, check_choice, check_range

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in cv2's RGB to gray

Picture = NDArray[np.uint8]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class PictureSpec:
    """What a network takes: shape (C, H, W) with C 1 (gray) or 3, and how pixels become numbers.

    mean, std: one number a channel in 0..1 units, in the order RGB whatever `color_order` is; () stands for ImageNet's
    (for gray: its luma). color_order: "RGB" or "BGR", the order of the channels in the batch. test_crop: share in
    (0, 1] of the resized picture that a test keeps: 0.875 resizes the short side to size / 0.875 and crops the centre.
    """

    shape: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    color_order: str = "RGB"
    test_crop: float = 0.875

    def __post_init__(self) -> None:
        _check_shape(self.shape)
        for name, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            given = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, given or _default(default, self.shape[0]))
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.shape[0] or not all(math.isfinite(value) for value in values):
                raise UserError(f"{name} must be {self.shape[0]} finite numbers, one a channel; got {values}.")
        check_range("std", min(self.std), above=0)
        check_choice("color_order", self.color_order, ("RGB", "BGR"))
        check_range("test_crop", self.test_crop, high=1, above=0)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON; from_dict() gives an equal spec."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PictureSpec":
        """The reverse of to_dict(). An unknown or a missing name is a UserError: a guess would spoil the embedding."""
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            wrong, rule = ", ".join(sorted(set(values) ^ known)), ", ".join(sorted(known))
            raise UserError(f"the picture spec must have exactly {rule}; missing or unknown: {wrong}.")
        made: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**made)


def _check_shape(shape: Sequence[int]) -> None:
    whole = len(shape) == 3 and all(size == int(size) and size >= 1 for size in shape)
    if not whole or shape[0] not in (1, 3):
        raise UserError(f"image_shape must be channels,height,width with 1 or 3 channels, like 3,224,224; got {shape}.")


def _default(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    gray = sum(weight * value for weight, value in zip(LUMA, values, strict=True))
    return values if channels == 3 else (round(gray, 6),)


class Window(NamedTuple):
    """The part of a picture that became the network's input: left, top, width, height in pixels of the picture.

    Edges, not centres: a whole picture is 0, 0, w, h. size: (h, w) of the picture. mirrored: left and right changed
    places.
    """

    left: float
    top: float
    width: float
    height: float
    size: tuple[int, int]
    mirrored: bool = False

    def place(self, points: Points) -> Points:
        """points (N, 2), x and y in pixels of the picture, (0, 0) the middle of its first -> in 0..1 of the input.

        Points that the input does not show come out below 0 or above 1.
        """
        placed: Points = (points + 0.5 - (self.left, self.top)) / (self.width, self.height)
        if self.mirrored:
            placed[:, 0] = 1 - placed[:, 0]
        return placed


class TestTransform:
    """picture (h, w, 3) -> (H, W, C): short side resized to size / test_crop, centre crop. No randomness."""

    __test__ = False  # the name is the field's; without this pytest takes it for a test

    def __init__(self, spec: PictureSpec) -> None:
        self.spec = spec

    def __call__(self, picture: Picture) -> Picture:
        return _channels(_centre(picture, self.spec.shape[1:], self.spec.test_crop)[0], self.spec)


class TrainTransform:
    """picture (h, w, 3), rng -> (H, W, C) and its Window: a random area crop, a flip, colour jitter, all from `rng`.

    min_crop_area in (0, 1]: the crop has an area in [min_crop_area, 1] of the picture and an aspect in 1/a..a, a =
    max_crop_aspect >= 1, of that of H x W (Szegedy et al., arXiv 1409.4842, section 6: 0.08 and 4/3). a = 1 squeezes
    nothing, as faces want it. At min_crop_area 1 the picture is taken as TestTransform takes it.
    flip: half of the pictures are mirrored.
    color_jitter j in [0, 1]: brightness, contrast and saturation are each multiplied by a number in 1 - j .. 1 + j.
    """

    def __init__(
        self,
        spec: PictureSpec,
        min_crop_area: float = 0.08,
        flip: bool = True,
        color_jitter: float = 0.0,
        max_crop_aspect: float = 4 / 3,
    ) -> None:
        check_range("min_crop_area", min_crop_area, high=1, above=0)
        check_range("max_crop_aspect", max_crop_aspect, 1)
        check_range("color_jitter", color_jitter, 0, 1)
        self.spec = spec
        self.min_crop_area = min_crop_area
        self.flip = flip
        self.color_jitter = color_jitter
        self.max_crop_aspect = max_crop_aspect

    def __call__(self, picture: Picture, rng: np.random.Generator) -> tuple[Picture, Window]:
        size = self.spec.shape[1:]
        if self.min_crop_area < 1:
            picture, window = _random_crop(picture, size, self.min_crop_area, self.max_crop_aspect, rng)
        else:
            picture, window = _centre(picture, size, self.spec.test_crop)
        if self.flip and rng.random() < 0.5:
            picture, window = picture[:, ::-1], window._replace(mirrored=True)
        if self.color_jitter > 0:
            picture = _jitter(picture, 1 + self.color_jitter * rng.uniform(-1, 1, size=3))
        return _channels(np.ascontiguousarray(picture), self.spec), window


def to_batch(pictures: Sequence[Picture], spec: PictureSpec) -> NDArray[np.float32]:
    """B pictures (H, W, C) of the spec's size -> (B, C, H, W) float32: (value / 255 - mean) / std, in its order."""
    channels, height, width = spec.shape
    stack = np.stack(pictures) if pictures else np.empty((0, height, width, channels), np.uint8)
    batch = np.empty((len(stack), channels, height, width), np.float32)
    order = range(channels) if spec.color_order == "RGB" else range(channels - 1, -1, -1)
    for target, source in enumerate(order):
        scale, shift = 1 / (255 * spec.std[source]), spec.mean[source] / spec.std[source]
        np.multiply(stack[..., source], np.float32(scale), out=batch[:, target], dtype=np.float32)
        batch[:, target] -= np.float32(shift)
    return batch


# ---- geometry


def _centre(picture: Picture, size: tuple[int, ...], crop: float) -> tuple[Picture, Window]:
    """Resize so that H / crop x W / crop is just covered, then take the centre H x W."""
    height, width = size
    whole_h, whole_w = picture.shape[:2]
    first, begin, h, w = _trim(whole_h, whole_w, height / width)
    scale = max(height / crop / h, width / crop / w)
    high, wide = max(height, round(h * scale)), max(width, round(w * scale))
    resized = _resize(picture[first : first + h, begin : begin + w], high, wide)
    top, left = (high - height) // 2, (wide - width) // 2
    down, across = h / high, w / wide  # pixels of the picture in one of the resized
    window = Window(begin + left * across, first + top * down, width * across, height * down, (whole_h, whole_w))
    return resized[top : top + height, left : left + width], window


def _trim(h: int, w: int, aspect: float) -> tuple[int, int, int, int]:
    """(top, left, height, width) of what is kept of h x w, whose far ends are cut off where it is very long.

    A strip of 1 x 10,000 resized whole would fill the memory.
    """
    high, wide = min(h, math.ceil(4 * w * aspect)), min(w, math.ceil(4 * h / aspect))
    return (h - high) // 2, (w - wide) // 2, high, wide


def _random_crop(
    picture: Picture, size: tuple[int, ...], least: float, squeeze: float, rng: np.random.Generator
) -> tuple[Picture, Window]:
    h, w = picture.shape[:2]
    for _ in range(10):
        area = rng.uniform(least, 1) * h * w
        aspect = size[1] / size[0] * math.exp(rng.uniform(-math.log(squeeze), math.log(squeeze)))
        wide, high = max(1, round(math.sqrt(area * aspect))), max(1, round(math.sqrt(area / aspect)))
        if wide <= w and high <= h:
            top, left = int(rng.integers(h - high + 1)), int(rng.integers(w - wide + 1))
            cropped = _resize(picture[top : top + high, left : left + wide], *size)
            return cropped, Window(left, top, wide, high, (h, w))
    return _centre(picture, size, 1.0)


def _resize(picture: Picture, height: int, width: int) -> Picture:
    h, w = picture.shape[:2]
    if (h, w) == (height, width):
        return picture
    shrinks = height * width < h * w
    resized: Picture = cv2.resize(
        picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return resized


# ---- colour


def _jitter(picture: Picture, factors: NDArray[np.float64]) -> Picture:
    """Brightness, contrast about the mean luma, saturation about each pixel's luma; clipped to 0..255 after each."""
    brightness, contrast, saturation = (np.float32(factor) for factor in factors)
    weights = np.array(LUMA, np.float32)
    values = np.clip(picture.astype(np.float32) * brightness, 0, 255)
    middle = (values @ weights).mean(dtype=np.float64).astype(np.float32)
    values = np.clip(middle + (values - middle) * contrast, 0, 255)
    gray = (values @ weights)[:, :, None]
    jittered: Picture = np.clip(np.rint(gray + (values - gray) * saturation), 0, 255).astype(np.uint8)
    return jittered


def _channels(picture: Picture, spec: PictureSpec) -> Picture:
    if spec.shape[0] == 3:
        return picture
    gray: Picture = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    return gray[:, :, None]
