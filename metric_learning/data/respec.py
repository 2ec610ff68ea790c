"""Pictures that were made ready for one network, made ready for another."""

import cv2
import numpy as np
from numpy.typing import NDArray

from metric_learning.data.transforms import LUMA, PictureSpec

Images = NDArray[np.float32]


def respec(images: Images, source: PictureSpec, target: PictureSpec) -> Images:
    """images (B, C, H, W) as `source` says -> float32 (B, C', H', W') as `target` says.

    Size, channels, mean, std and the order of the channels may differ. The whole picture is resized, so another aspect
    stretches it. Colour becomes gray by its luma; gray becomes three equal channels. Where both are alike the images
    come back as they are.
    """
    looks = ("shape", "mean", "std", "color_order")
    if all(getattr(source, name) == getattr(target, name) for name in looks):
        return images
    values = _with_channels(_ordered(images, source) * _column(source.std) + _column(source.mean), target.shape[0])
    values = _resized(values.astype(np.float32), target.shape[1], target.shape[2])
    values = (values - _column(target.mean)) / _column(target.std)
    return np.ascontiguousarray(_ordered(values, target), dtype=np.float32)


def _ordered(images: Images, spec: PictureSpec) -> Images:
    """From the spec's order of channels to RGB, or back."""
    return images if spec.color_order == "RGB" else images[:, ::-1]


def _column(numbers: tuple[float, ...]) -> Images:
    return np.array(numbers, np.float32).reshape(1, -1, 1, 1)


def _with_channels(values: Images, channels: int) -> Images:
    if values.shape[1] == channels:
        return values
    if channels == 1:
        gray: Images = (values * _column(LUMA)).sum(axis=1, keepdims=True)
        return gray
    return np.repeat(values, channels, axis=1)


def _resized(values: Images, height: int, width: int) -> Images:
    h, w = values.shape[2:]
    if (h, w) == (height, width):
        return values
    how = cv2.INTER_AREA if height * width < h * w else cv2.INTER_LINEAR
    planes = [cv2.resize(plane, (width, height), interpolation=how) for plane in values.reshape(-1, h, w)]
    return np.stack(planes).reshape(*values.shape[:2], height, width)
