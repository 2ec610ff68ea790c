"""Pictures of one network made ready for another: the same as if they had been made for it from the start."""

import numpy as np
import pytest

from metric_learning.data.respec import respec
from metric_learning.data.transforms import PictureSpec, TestTransform, to_batch

COLOUR = PictureSpec((3, 12, 10))
OTHERS = [
    PictureSpec((3, 12, 10), color_order="BGR"),
    PictureSpec((3, 12, 10), (0.5, 0.4, 0.3), (0.5, 0.25, 0.125)),
    PictureSpec((3, 12, 10), (0.5, 0.4, 0.3), (0.5, 0.25, 0.125), "BGR"),
    PictureSpec((1, 12, 10), (0.5,), (0.25,)),
]


def pictures(count: int = 3) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 12, 10, 3), dtype=np.uint8))


def made_for(spec: PictureSpec) -> np.ndarray:
    transform = TestTransform(PictureSpec(spec.shape, spec.mean, spec.std, spec.color_order, 1.0))
    return to_batch([transform(picture) for picture in pictures()], spec)


@pytest.mark.parametrize("target", OTHERS)
@pytest.mark.parametrize("source", [COLOUR, OTHERS[2]])
def test_it_equals_the_pictures_made_for_the_other(source, target):
    found = respec(made_for(source), source, target)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    # Gray pictures are rounded to whole levels by OpenCV, and these are not.
    tolerance = 0.7 / 255 / 0.25 if target.shape[0] == 1 else 1e-5
    np.testing.assert_allclose(found, made_for(target), rtol=0, atol=tolerance)


def test_gray_becomes_three_equal_channels():
    gray, plain = OTHERS[3], PictureSpec((3, 12, 10), (0, 0, 0), (1, 1, 1))
    found = respec(made_for(gray), gray, plain)
    assert found.shape == (3, 3, 12, 10)
    np.testing.assert_array_equal(found[:, 0], found[:, 2])
    np.testing.assert_allclose(found[:, 0], made_for(gray)[:, 0] * 0.25 + 0.5, atol=1e-6)


@pytest.mark.parametrize("size", [(6, 5), (24, 20), (7, 9)])
def test_a_flat_picture_stays_flat_at_every_size(size):
    target = PictureSpec((3, *size), (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), "BGR")
    flat = np.broadcast_to(np.array([0.2, 0.5, 0.9], np.float32).reshape(1, 3, 1, 1), (2, 3, 12, 10))
    given = (flat - np.array(COLOUR.mean).reshape(1, 3, 1, 1)) / np.array(COLOUR.std).reshape(1, 3, 1, 1)
    found = respec(given.astype(np.float32), COLOUR, target)
    expected = np.array([(0.9 - 0.3) / 0.5, (0.5 - 0.2) / 0.5, (0.2 - 0.1) / 0.5]).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(found, np.broadcast_to(expected, (2, 3, *size)), atol=1e-5)


def test_halving_takes_the_mean_of_four():
    target = PictureSpec((3, 6, 5))
    given = made_for(COLOUR)
    expected = given.reshape(3, 3, 6, 2, 5, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(respec(given, COLOUR, target), expected, atol=1e-5)


def test_alike_means_untouched():
    given = made_for(COLOUR)
    assert respec(given, COLOUR, PictureSpec((3, 12, 10), test_crop=0.5)) is given
