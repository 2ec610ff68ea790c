"""uint8 pictures (H, W, 3) RGB -> what the network takes, as its PictureSpec says, which travels with the weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError, check_choice, check_range
from metric_learning.data.augmentation import LUMA as LUMA
from metric_learning.data.augmentation import Augmentation, grayed, recoloured
from metric_learning.data.pictures import Opened
from metric_learning.data.windows import Cut, centre_cut, random_cut, turned
from metric_learning.data.windows import Picture as Picture
from metric_learning.data.windows import Points as Points
from metric_learning.data.windows import Window as Window

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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


class TestTransform:
    """picture (h, w, 3) -> (H, W, C): short side resized to size / test_crop, centre crop. No randomness."""

    __test__ = False  # the name is the field's; without this pytest takes it for a test

    def __init__(self, spec: PictureSpec) -> None:
        self.spec = spec

    def __call__(self, picture: Picture) -> Picture:
        size = self.spec.shape[1:]
        return _channels(centre_cut(_size(picture), size, self.spec.test_crop).pixels(picture, size), self.spec)


class TrainTransform:
    """picture (h, w, 3), rng -> (H, W, C) and its Window: crop, flips, colour, all drawn from `rng` alone.

    min_crop_area in (0, 1]: the crop has an area in [min_crop_area, 1] of the picture and an aspect in 1/a..a, a =
    max_crop_aspect >= 1, of that of H x W (Szegedy et al., arXiv 1409.4842, section 6: 0.08 and 4/3). a = 1 squeezes
    nothing, as faces want it. At min_crop_area 1 the picture is taken as TestTransform takes it.
    flip: half of the pictures are mirrored.
    color_jitter j in [0, 1]: brightness, contrast and saturation are each multiplied by a number in 1 - j .. 1 + j,
    but for those that `augmentation` says itself. augmentation: all that may be done beside.

    A JPEG that is not decoded yet is decoded at 1/2, 1/4 or 1/8 of its size where its crop is still as large as the
    input then, and resized the quick way. What is drawn from `rng` stays the same; the window moves to whole pixels of
    the smaller picture.
    """

    def __init__(
        self,
        spec: PictureSpec,
        min_crop_area: float = 0.08,
        flip: bool = True,
        color_jitter: float = 0.0,
        max_crop_aspect: float = 4 / 3,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 - it is frozen
    ) -> None:
        check_range("min_crop_area", min_crop_area, high=1, above=0)
        check_range("max_crop_aspect", max_crop_aspect, 1)
        check_range("color_jitter", color_jitter, 0, 1)
        self.spec = spec
        self.min_crop_area = min_crop_area
        self.flip = flip
        self.max_crop_aspect = max_crop_aspect
        self.augmentation = augmentation
        self.colours = augmentation.colours(color_jitter)

    def __call__(self, opened: Opened, rng: np.random.Generator) -> tuple[Picture, Window]:
        how = self.augmentation
        picture, window = self._cut(opened, rng)
        if self.flip and rng.random() < 0.5:
            picture, window = cv2.flip(picture, 1), window._replace(mirrored=True)
        if how.vertical_flip and rng.random() < 0.5:
            picture, window = cv2.flip(picture, 0), window._replace(upended=True)
        if self.colours.any():
            picture = recoloured(picture, 1 + self.colours * rng.uniform(-1, 1, size=3))
        if how.gray_rate > 0 and rng.random() < how.gray_rate:
            picture = grayed(picture)
        picture = _channels(np.ascontiguousarray(picture), self.spec)
        return how.degrade(picture, self.spec.mean, rng), window

    def _cut(self, opened: Opened, rng: np.random.Generator) -> tuple[Picture, Window]:
        size = self.spec.shape[1:]
        whole = _size(opened) if isinstance(opened, np.ndarray) else opened.size
        if self.min_crop_area < 1:
            cut = random_cut(whole, size, self.min_crop_area, self.max_crop_aspect, rng)
        else:
            cut = centre_cut(whole, size, self.spec.test_crop)
        if self.augmentation.rotation > 0:
            angle = float(self.augmentation.rotation * rng.uniform(-1, 1))
            return self._turned(opened, cut, angle)
        if isinstance(opened, np.ndarray):
            return cut.pixels(opened, size), cut.window
        by = cut.reduction()
        smaller = cut.reduced(by)
        return smaller.pixels(opened.pixels(by, by * smaller.bottom), size, quick=True), smaller.window

    def _turned(self, opened: Opened, cut: Cut, angle: float) -> tuple[Picture, Window]:
        by = 1 if isinstance(opened, np.ndarray) else cut.reduction()
        picture = opened if isinstance(opened, np.ndarray) else opened.pixels(by)
        window = cut.window._replace(angle=angle)
        return turned(picture, window.smaller(by, _size(picture)), self.spec.shape[1:]), window


def _size(picture: Picture) -> tuple[int, int]:
    return picture.shape[0], picture.shape[1]


def to_batch(pictures: Sequence[Picture], spec: PictureSpec) -> NDArray[np.float32]:
    """B pictures (H, W, C) of the spec's size -> (B, C, H, W) float32: (value / 255 - mean) / std, in its order."""
    batch = np.empty((len(pictures), *spec.shape), np.float32)
    planes = np.empty(spec.shape, np.uint8)
    turned_round = slice(None, None, 1 if spec.color_order == "RGB" else -1)
    scale = np.array([1 / (255 * std) for std in spec.std], np.float32)[turned_round, None, None]
    shift = np.array([mean / std for mean, std in zip(spec.mean, spec.std, strict=True)], np.float32)
    shift = shift[turned_round, None, None]
    for picture, values in zip(pictures, batch, strict=True):  # one after the other, while they are in the cache
        if picture.shape[:2] != spec.shape[1:] or picture.size != planes.size or picture.dtype != np.uint8:
            raise ValueError(f"a picture of {spec.shape} is needed, uint8; got {picture.shape}, {picture.dtype}.")
        cv2.split(picture, list(planes[turned_round]))
        np.multiply(planes, scale, out=values)
        np.subtract(values, shift, out=values)
    return batch


def _channels(picture: Picture, spec: PictureSpec) -> Picture:
    if spec.shape[0] == 3:
        return picture
    gray: Picture = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    return gray[:, :, None]
