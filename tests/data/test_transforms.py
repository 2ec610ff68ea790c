import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.data.samplers import AUGMENT, keyed_rng
from metric_learning.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PictureSpec,
    TestTransform,
    TrainTransform,
    to_batch,
)


def picture(h: int, w: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def rng(slot: int = 0) -> np.random.Generator:
    return keyed_rng(AUGMENT, 1, 2, slot)


# ---- PictureSpec


@pytest.mark.parametrize(
    "spec",
    [
        PictureSpec(),
        PictureSpec((1, 28, 30)),
        PictureSpec((3, 112, 96), (0.5, 0.5, 0.5), (0.25, 0.5, 1.0), "BGR", 1.0),
    ],
)
def test_spec_survives_json(spec: PictureSpec) -> None:
    assert PictureSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_spec_defaults() -> None:
    assert (PictureSpec().mean, PictureSpec().std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert PictureSpec((1, 8, 8)).mean == pytest.approx((0.299 * 0.485 + 0.587 * 0.456 + 0.114 * 0.406,), abs=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"shape": (2, 8, 8)},
        {"shape": (3, 0, 8)},
        {"shape": (3, 8)},
        {"shape": (3, 8.5, 8)},
        {"mean": (0.5,)},
        {"mean": (0.5, 0.5, math.nan)},
        {"std": (0.5, 0.5, 0.0)},
        {"std": (0.5, -0.5, 0.5)},
        {"color_order": "rgb"},
        {"test_crop": 0.0},
        {"test_crop": 1.1},
        {"test_crop": math.nan},
    ],
)
def test_bad_specs_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(UserError):
        PictureSpec(**arguments)


def test_spec_with_missing_or_unknown_names_is_refused() -> None:
    values = PictureSpec().to_dict()
    with pytest.raises(UserError, match="unknown: crop"):
        PictureSpec.from_dict({**values, "crop": 1})
    del values["std"]
    with pytest.raises(UserError, match="unknown: std"):
        PictureSpec.from_dict(values)


# ---- TestTransform


SHAPES = [(1, 1), (1, 5000), (5000, 1), (7, 9), (64, 64), (64, 48), (300, 200), (56, 80)]


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 64, 48), (3, 31, 80)])
@pytest.mark.parametrize("crop", [0.875, 1.0])
def test_every_size_comes_out_right(size: tuple[int, int], shape: tuple[int, int, int], crop: float) -> None:
    spec = PictureSpec(shape, test_crop=crop)
    for transform in (TestTransform(spec), lambda x: TrainTransform(spec, color_jitter=0.5)(x, rng())[0]):
        out = transform(picture(*size))
        assert out.shape == (*shape[1:], shape[0])
        assert out.dtype == np.uint8


def test_the_right_size_is_not_touched() -> None:
    x = picture(32, 32)
    assert np.array_equal(TestTransform(PictureSpec((3, 32, 32), test_crop=1.0))(x), x)
    assert np.array_equal(TestTransform(PictureSpec((3, 28, 28), test_crop=0.875))(x), x[2:30, 2:30])


def test_the_short_side_is_resized_and_the_centre_kept() -> None:
    x = np.zeros((64, 128, 3), np.uint8)
    x[:, 32:96] = 200
    assert (TestTransform(PictureSpec((3, 32, 32), test_crop=1.0))(x) == 200).all()
    x = np.zeros((128, 128, 3), np.uint8)
    x[8:120, 8:120] = 99
    assert (TestTransform(PictureSpec((3, 56, 56), test_crop=0.875))(x) == 99).all()


def test_shrinking_averages() -> None:
    x = picture(64, 64)
    out = TestTransform(PictureSpec((3, 16, 16), test_crop=1.0))(x)
    assert np.abs(out - x.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))).max() <= 1


def test_growing_interpolates() -> None:
    x = np.zeros((4, 4, 3), np.uint8)
    x[:, 2:] = 240
    row = TestTransform(PictureSpec((3, 16, 16), test_crop=1.0))(x)[0, :, 0]
    assert (np.diff(row.astype(int)) >= 0).all()
    assert len(set(row.tolist())) > 3


def test_gray_is_luma() -> None:
    x = np.zeros((4, 4, 3), np.uint8)
    x[..., 0] = 200
    out = TestTransform(PictureSpec((1, 4, 4), test_crop=1.0))(x)
    assert np.abs(out.astype(float) - 0.299 * 200).max() <= 0.5


# ---- TrainTransform


@pytest.mark.parametrize(
    "arguments", [{"min_crop_area": 0}, {"min_crop_area": 1.1}, {"color_jitter": -0.1}, {"color_jitter": 2}]
)
def test_bad_augmentation_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(UserError):
        TrainTransform(PictureSpec(), **arguments)


def test_area_one_without_flip_is_the_test_transform() -> None:
    for crop in (1.0, 0.875):
        spec = PictureSpec((3, 32, 32), test_crop=crop)
        x = picture(50, 70)
        plain = TestTransform(spec)(x)
        assert np.array_equal(TrainTransform(spec, min_crop_area=1, flip=False)(x, rng())[0], plain)
        flipped = [TrainTransform(spec, min_crop_area=1)(x, rng(slot))[0] for slot in range(40)]
        mirrored = [np.array_equal(out, plain[:, ::-1]) for out in flipped]
        assert all(mirror or np.array_equal(out, plain) for mirror, out in zip(mirrored, flipped, strict=True))
        assert 8 < sum(mirrored) < 32


@pytest.mark.parametrize("least", [0.08, 0.5])
def test_crops_have_the_area_and_aspect_asked_for(least: float) -> None:
    # Row and column are coded in the colours, so the crop can be read off the result.
    x = np.zeros((256, 256, 3), np.uint8)
    x[..., 0], x[..., 1] = np.arange(256)[:, None], np.arange(256)[None]
    transform = TrainTransform(PictureSpec((3, 64, 64)), min_crop_area=least, flip=False)
    areas = []
    for slot in range(200):
        out = transform(x, rng(slot))[0].astype(float)
        high, wide = np.ptp(out[..., 0]) * 64 / 63, np.ptp(out[..., 1]) * 64 / 63
        areas.append(high * wide / 65536)
        assert 0.7 < wide / high < 1.45
    assert min(areas) > least * 0.85
    assert min(areas) < least + 0.1
    assert max(areas) > 0.85


def test_the_generator_alone_decides() -> None:
    transform = TrainTransform(PictureSpec((3, 32, 32)), color_jitter=0.3)
    x = picture(60, 60)
    assert np.array_equal(transform(x, rng(5))[0], transform(x, rng(5))[0])
    assert not np.array_equal(transform(x, rng(5))[0], transform(x, rng(6))[0])


def test_jitter_against_plain_loops() -> None:
    spec = PictureSpec((3, 6, 5), test_crop=1.0)
    x = picture(6, 5)
    out, _ = TrainTransform(spec, min_crop_area=1, flip=False, color_jitter=0.4)(x, rng())
    brightness, contrast, saturation = 1 + 0.4 * rng().uniform(-1, 1, size=3)

    def luma(pixel: list[float]) -> float:
        return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]

    def clip(value: float) -> float:
        return min(max(value, 0.0), 255.0)

    values = [[[clip(float(v) * brightness) for v in pixel] for pixel in row] for row in x]
    mean = sum(luma(pixel) for row in values for pixel in row) / 30
    for i, row in enumerate(values):
        for j, pixel in enumerate(row):
            contrasted = [clip(mean + (v - mean) * contrast) for v in pixel]
            gray = luma(contrasted)
            for c in range(3):
                assert abs(out[i, j, c] - clip(gray + (contrasted[c] - gray) * saturation)) <= 0.51


# ---- to_batch


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_batch_against_plain_loops(order: str) -> None:
    spec = PictureSpec((3, 3, 4), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), order)
    pictures = [picture(3, 4, seed) for seed in range(2)]
    batch = to_batch(pictures, spec)
    assert batch.shape == (2, 3, 3, 4)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    for b in range(2):
        for c in range(3):
            source = c if order == "RGB" else 2 - c
            for i in range(3):
                for j in range(4):
                    expected = (pictures[b][i, j, source] / 255 - spec.mean[source]) / spec.std[source]
                    assert batch[b, c, i, j] == pytest.approx(expected, abs=1e-6)


def test_batch_of_gray_of_one_and_of_nothing() -> None:
    spec = PictureSpec((1, 3, 4))
    x = picture(3, 4)[..., :1]
    assert to_batch([x, x], spec).shape == (2, 1, 3, 4)
    assert np.array_equal(to_batch([x, x], spec)[1:], to_batch([x], spec))
    assert to_batch([], spec).shape == (0, 1, 3, 4)


@pytest.mark.parametrize(
    "other", [np.zeros((9, 8, 3), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8)]
)
def test_a_batch_is_made_of_pictures_of_one_size_and_type(other: np.ndarray) -> None:
    good = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="is needed, uint8; got"):
        to_batch([good, other], PictureSpec((3, 8, 8)))
