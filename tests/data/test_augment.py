"""Each augmentation against plain loops, its statistics, where points go, and the sheet that shows them."""

import dataclasses
import itertools
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metric_learning.checks import UserError
from metric_learning.config import COMMANDS, names, parse
from metric_learning.data import augment, augmentation
from metric_learning.data.augmentation import Augmentation
from metric_learning.data.loader import BadPictures, train_batches
from metric_learning.data.samplers import AUGMENT, keyed_rng
from metric_learning.data.sources import PictureSet, Sample
from metric_learning.data.transforms import PictureSpec, TestTransform, TrainTransform
from metric_learning.data.windows import Window, turned

Array = NDArray[np.uint8]
EACH = {
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.9,
    "gray_rate": 0.5,
    "rotation": 40.0,
    "vertical_flip": True,
    "noise": 0.2,
    "salt_pepper": 0.2,
    "blur": 3.0,
    "cutout": 0.4,
}


def picture(h: int, w: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def soft(h: int, w: int, seed: int = 0) -> Array:
    return cv2.GaussianBlur(picture(h, w, seed), (0, 0), 3)


def rng(slot: int = 0) -> np.random.Generator:
    return keyed_rng(AUGMENT, 1, 2, slot)


def plain(h: int, w: int, channels: int = 3, **how: object) -> TrainTransform:
    """Nothing but one augmentation."""
    spec = PictureSpec((channels, h, w), test_crop=1.0)
    return TrainTransform(spec, 1, flip=False, augmentation=Augmentation(**how))


def luma(pixel: Array) -> float:
    return 0.299 * float(pixel[0]) + 0.587 * float(pixel[1]) + 0.114 * float(pixel[2])


# ---- off


def before(x: Array, spec: PictureSpec, least: float, flip: bool, jitter: float, rng: np.random.Generator) -> Array:
    """What TrainTransform did before there were other augmentations, draw for draw."""
    (h, w), (high, wide) = x.shape[:2], spec.shape[1:]
    for _ in range(10):
        area = rng.uniform(least, 1) * h * w
        aspect = wide / high * math.exp(rng.uniform(-math.log(4 / 3), math.log(4 / 3)))
        b, a = max(1, round(math.sqrt(area * aspect))), max(1, round(math.sqrt(area / aspect)))
        if b <= w and a <= h:
            top, left = int(rng.integers(h - a + 1)), int(rng.integers(w - b + 1))
            way = cv2.INTER_AREA if high * wide < a * b else cv2.INTER_LINEAR
            x = cv2.resize(x[top : top + a, left : left + b], (wide, high), interpolation=way)
            break
    else:
        raise AssertionError("choose a picture that a crop fits into")
    if flip and rng.random() < 0.5:
        x = x[:, ::-1]
    if jitter:
        brightness, contrast, saturation = np.float32(1 + jitter * rng.uniform(-1, 1, size=3))
        weights = np.array([0.299, 0.587, 0.114], np.float32)
        values = np.clip(x.astype(np.float32) * brightness, 0, 255)
        middle = (values @ weights).mean(dtype=np.float64).astype(np.float32)
        values = np.clip(middle + (values - middle) * contrast, 0, 255)
        gray = (values @ weights)[:, :, None]
        x = np.clip(np.rint(gray + (values - gray) * saturation), 0, 255).astype(np.uint8)
    x = np.ascontiguousarray(x)
    return x if spec.shape[0] == 3 else cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[:, :, None]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 40, 24)])
@pytest.mark.parametrize(("least", "flip", "jitter"), [(0.08, True, 0.0), (0.5, False, 0.4), (0.3, True, 1.0)])
def test_off_is_what_it_was_byte_for_byte(shape: tuple[int, int, int], least: float, flip: bool, jitter: float) -> None:
    spec, x = PictureSpec(shape), picture(60, 60)
    for slot in range(20):
        ours, twin = rng(slot), rng(slot)
        made = TrainTransform(spec, least, flip, jitter, augmentation=Augmentation())(x, ours)[0]
        assert np.array_equal(made, before(x, spec, least, flip, jitter, twin))
        assert ours.random() == twin.random()  # and not one draw more


def test_color_jitter_is_all_three_that_are_not_said() -> None:
    spec, x = PictureSpec((3, 32, 32)), picture(60, 60)

    def made(jitter: float, **how: float) -> Array:
        return TrainTransform(spec, color_jitter=jitter, augmentation=Augmentation(**how))(x, rng())[0]

    assert np.array_equal(made(0.3), made(0.0, brightness=0.3, contrast=0.3, saturation=0.3))
    assert np.array_equal(made(0.3, contrast=0.0), made(0.0, brightness=0.3, saturation=0.3))
    assert np.array_equal(made(0.3, brightness=0.7), made(0.9, brightness=0.7, contrast=0.3, saturation=0.3))
    assert not np.array_equal(made(0.3, brightness=0.7), made(0.3))


# ---- every one


def test_each_is_tried_here() -> None:
    assert list(EACH) == [field.name for field in dataclasses.fields(Augmentation)]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 24, 40), (3, 1, 1), (1, 1, 9)])
@pytest.mark.parametrize("how", [*({name: value} for name, value in EACH.items()), EACH], ids=lambda how: "-".join(how))
def test_every_size_comes_out_right_and_from_the_generator_alone(
    shape: tuple[int, int, int], how: dict[str, float]
) -> None:
    for (h, w), least in itertools.product([(1, 1), (1, 700), (700, 1), (7, 9), (64, 50), (*shape[1:],)], [1, 0.2]):
        x = picture(h, w)
        kept = x.copy()
        transform = TrainTransform(PictureSpec(shape, test_crop=1.0), least, augmentation=Augmentation(**how))
        made = [transform(x, rng(slot))[0] for slot in (3, 4, 3)]
        assert all(one.shape == (*shape[1:], shape[0]) and one.dtype == np.uint8 for one in made)
        assert all(one.flags.c_contiguous for one in made)
        assert np.array_equal(made[0], made[2])
        assert np.array_equal(x, kept)  # it may be shared: nothing is changed in place


@pytest.mark.parametrize("name", EACH)
def test_each_does_something(name: str) -> None:
    x = picture(32, 32)
    transform = plain(32, 32, **{name: EACH[name]})
    assert any(not np.array_equal(transform(x, rng(slot))[0], x) for slot in range(10))


@pytest.mark.parametrize("name", [name for name in EACH if name != "vertical_flip"])
@pytest.mark.parametrize("value", [-0.01, math.nan, math.inf, 180.1])
def test_ranges(name: str, value: float) -> None:
    with pytest.raises(UserError, match=name):
        Augmentation(**{name: value})


def test_any_number_of_workers_makes_the_same(tmp_path: Path) -> None:
    samples = []
    for number in range(8):
        Image.fromarray(soft(40, 48, number)).save(tmp_path / f"{number}.png")
        samples.append(Sample(str(tmp_path / f"{number}.png"), str(number % 2)))
    spec = PictureSpec((3, 24, 24))

    class Every:
        def batch(self, step: int) -> NDArray[np.int64]:
            return np.arange(8)

    def images(workers: int) -> NDArray[np.float32]:
        how = {"seed": 3, "start_step": 0, "stop_step": 4, "workers": workers, "bad": BadPictures(8)}
        transform = TrainTransform(spec, augmentation=Augmentation(**EACH))
        return np.stack([b.images for b in train_batches(PictureSet.of(samples), Every(), transform, spec, **how)])

    assert np.array_equal(images(0), images(3))


# ---- one against plain loops


def test_brightness_contrast_saturation() -> None:
    x = picture(6, 5)
    for k, name in enumerate(names.COLOURS):
        factor = 1 + 0.5 * rng().uniform(-1, 1, size=3)[k]
        out = plain(6, 5, **{name: 0.5})(x, rng())[0]
        mean = np.mean([luma(pixel) for row in x for pixel in row])
        for i, j, c in np.ndindex(6, 5, 3):
            about = {"brightness": 0.0, "contrast": mean, "saturation": luma(x[i, j])}[name]
            expected = min(max(about + (float(x[i, j, c]) - about) * factor, 0), 255)
            assert abs(out[i, j, c] - expected) <= 0.51, name


def test_gray_is_luma_in_all_channels_of_a_share_of_the_pictures() -> None:
    x, count = picture(4, 4), 0
    for slot in range(400):
        out = plain(4, 4, gray_rate=0.3)(x, rng(slot))[0]
        if np.array_equal(out, x):
            continue
        count += 1
        assert all(abs(float(value) - luma(x[i, j])) <= 0.51 for (i, j, _), value in np.ndenumerate(out))
    assert 85 < count < 155
    assert np.array_equal(plain(4, 4, 1, gray_rate=1.0)(x, rng())[0], plain(4, 4, 1)(x, rng())[0])


def test_vertical_flip_turns_half_of_them_upside_down() -> None:
    x = picture(8, 6)
    out = [plain(8, 6, vertical_flip=True)(x, rng(slot)) for slot in range(200)]
    assert all(np.array_equal(made, x[::-1] if window.upended else x) for made, window in out)
    assert 70 < sum(window.upended for _, window in out) < 130


def test_noise_has_the_deviation_that_was_drawn_in_every_channel() -> None:
    x = np.full((64, 64, 3), 128, np.uint8)
    found = []
    for slot in range(60):
        out = plain(64, 64, noise=0.1)(x, rng(slot))[0].astype(float) - 128
        sigma = 255 * rng(slot).uniform(0, 0.1)
        assert out.std() == pytest.approx(math.hypot(sigma, math.sqrt(1 / 12)), rel=0.05, abs=0.35)
        assert abs(out.mean()) < 0.5
        found.append(sigma)
        if sigma > 5:
            assert np.abs(np.corrcoef(out.reshape(-1, 3).T) - np.eye(3)).max() < 0.08
    assert min(found) < 2.5 and max(found) > 22
    gray = plain(64, 64, 1, noise=0.1)(x, rng())[0].astype(float)
    assert gray.std() == pytest.approx(255 * rng().uniform(0, 0.1), rel=0.05)  # as much where there is one channel


def test_noise_does_not_wrap_around() -> None:
    for level in (0, 255):
        out = augmentation.noisy(np.full((32, 32, 3), level, np.uint8), 0.1, rng())
        assert np.abs(out.astype(int) - level).max() < 160


def test_salt_and_pepper_are_a_share_of_the_pixels_half_and_half() -> None:
    x, shares = np.full((64, 64, 3), 77, np.uint8), []
    for slot in range(60):
        out = plain(64, 64, salt_pepper=0.2)(x, rng(slot))[0]
        assert (out == out[..., :1]).all() and set(np.unique(out)) <= {0, 77, 255}
        share, salt, pepper = rng(slot).uniform(0, 0.2), (out[..., 0] == 255).mean(), (out[..., 0] == 0).mean()
        assert abs(salt - share / 2) < 0.02 and abs(pepper - share / 2) < 0.02
        shares.append(salt + pepper)
    assert 0.08 < np.mean(shares) < 0.12
    for share, kept in ((0.0, 1.0), (1.0, 0.0)):
        assert (augmentation.speckled(x, share, rng()) == 77).mean() == kept


@pytest.mark.parametrize("sigma", [0.4, 1.3, 2.5])
def test_blur_against_a_plain_sum(sigma: float) -> None:
    x, reach = picture(9, 12), math.ceil(4 * sigma)
    out = augmentation.blurred(x, sigma)
    weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-reach, reach + 1)]

    def at(k: int, n: int) -> int:
        k %= 2 * n - 2
        return min(k, 2 * n - 2 - k)

    for i, j, c in itertools.product(range(9), range(12), range(3)):
        total = 0.0
        for a, b in itertools.product(range(-reach, reach + 1), repeat=2):
            total += weights[a + reach] * weights[b + reach] * x[at(i + a, 9), at(j + b, 12), c]
        assert abs(out[i, j, c] - total / sum(weights) ** 2) < 2


def test_blur_has_a_deviation_between_nothing_and_its_value() -> None:
    x = np.zeros((41, 41, 3), np.uint8)
    x[18:23, 18:23] = 255
    across = (np.arange(41) - 20) ** 2
    for slot in range(20):
        line = plain(41, 41, blur=3.0)(x, rng(slot))[0][..., 0].astype(float).sum(axis=0)
        assert (line @ across) / line.sum() == pytest.approx(2 + rng(slot).uniform(0, 3) ** 2, rel=0.07, abs=0.05)


def test_cutout_covers_a_square_about_any_pixel_with_the_mean() -> None:
    x, spec = picture(20, 30), PictureSpec((3, 20, 30), (0.2, 0.4, 1.5), test_crop=1.0)
    transform, seen = TrainTransform(spec, 1, False, augmentation=Augmentation(cutout=0.3)), np.zeros((20, 30), int)
    for slot in range(800):
        out, twin = transform(x, rng(slot))[0], rng(slot)
        row, column = int(twin.integers(20)), int(twin.integers(30))
        for i, j in np.ndindex(20, 30):
            inside = -3 <= i - row < 3 and -3 <= j - column < 3  # 6 pixels: 0.3 of the shorter side
            if slot < 40:
                assert out[i, j].tolist() == ([51, 102, 255] if inside else x[i, j].tolist())
        seen += (out == [51, 102, 255]).all(axis=2)
    assert seen.min() > 0  # the corners as well
    assert (plain(20, 30, cutout=1e-9)(x, rng())[0] != x).any(axis=2).sum() == 1  # never nothing


# ---- turned


@pytest.mark.parametrize("shape", [(15, 15), (12, 17)])
def test_a_quarter_and_a_half_turn_move_whole_pixels(shape: tuple[int, int]) -> None:
    h, w = shape
    x = picture(h, w)
    half = turned(x, Window(0, 0, w, h, (h, w), angle=180.0), (h, w))
    assert np.array_equal(half, x[::-1, ::-1])
    left, top = (w - h) / 2, 0.0  # a square about the middle, so that a quarter turn fits
    if left == int(left):
        quarter = turned(x, Window(left, top, h, h, (h, w), angle=90.0), (h, h))
        assert np.array_equal(quarter, np.rot90(x[:, int(left) : int(left) + h]))


def test_turned_against_plain_interpolation() -> None:
    x, angle = soft(30, 40), 25.0
    window = Window(5.0, 3.0, 22.0, 20.0, (30, 40), angle=angle)
    out = turned(x, window, (24, 28))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    def at(k: int, n: int) -> int:
        k %= 2 * n
        return min(k, 2 * n - 1 - k)

    for i, j in np.ndindex(24, 28):
        right, down = ((j + 0.5) / 28 - 0.5) * 22, ((i + 0.5) / 24 - 0.5) * 20
        # Against the clock, y pointing down: back to where it came from is with the clock.
        px, py = 16 + cos * right - sin * down - 0.5, 13 + sin * right + cos * down - 0.5
        left, top = math.floor(px), math.floor(py)
        total = np.zeros(3)
        for b, a in itertools.product((0, 1), repeat=2):
            weight = (1 - abs(px - left - a)) * (1 - abs(py - top - b))
            total += weight * x[at(top + b, 30), at(left + a, 40)]
        assert np.abs(out[i, j] - total).max() < 4, (i, j)


def test_turned_by_nothing_is_the_picture() -> None:
    x = picture(20, 30)
    assert np.array_equal(turned(x, Window(0, 0, 30, 20, (20, 30)), (20, 30)), x)
    assert np.array_equal(turned(x, Window(4, 2, 20, 10, (20, 30)), (10, 20)), x[2:12, 4:24])


def test_nothing_black_comes_in_from_beyond_the_edge() -> None:
    x = np.full((40, 60, 3), 200, np.uint8)
    for slot in range(30):
        out, window = plain(32, 32, rotation=180)(x, rng(slot))
        assert (out == 200).all() and -180 <= window.angle <= 180


def test_turning_and_shrinking_averages() -> None:
    x = picture(320, 320)  # noise: a pixel that is picked has a deviation of 74, the mean of 100 of 7
    plainly = TestTransform(PictureSpec((3, 32, 32), test_crop=1.0))(x).std()
    assert turned(x, Window(0, 0, 320, 320, (320, 320), angle=10.0), (32, 32)).std() < 1.1 * plainly


def test_a_huge_picture_can_be_turned() -> None:
    x = np.full((2, 70_000, 3), 9, np.uint8)
    for least in (1, 0.0001):
        transform = TrainTransform(PictureSpec((3, 8, 8)), least, augmentation=Augmentation(rotation=90))
        assert (transform(x, rng())[0] == 9).all()


def test_angles_are_spread_over_both_ways() -> None:
    angles = [plain(8, 8, rotation=30)(picture(8, 8), rng(slot))[1].angle for slot in range(300)]
    assert min(angles) < -28 and max(angles) > 28 and abs(np.mean(angles)) < 4


# ---- the sheet


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.fromarray(soft(50, 40)).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def shown(path: Path) -> Array:
    with Image.open(path) as opened:
        return np.array(opened)


def test_without_options_there_is_a_row_for_each(photo: str, tmp_path: Path, capsys) -> None:
    output = tmp_path / "new" / "sheet.png"
    assert augment.main([photo, f"--output={output}", "--size=32", "--draws=3"]) == 0
    rows = shown(output)
    line, high = augment.LINE, 32 + 2 * augment.GAP
    assert rows.shape == (len(augment.SHOWN) * (line + high), 4 * 32 + 7 * augment.GAP, 3)
    assert "sheet.png: 156 x 754 pixels" in capsys.readouterr().out
    original = TestTransform(PictureSpec((3, 32, 32), test_crop=1.0))(soft(50, 40))
    for number in range(len(augment.SHOWN)):
        top = number * (line + high) + line + augment.GAP
        assert np.array_equal(rows[top : top + 32, augment.GAP : augment.GAP + 32], original)
        others = [rows[top : top + 32, left : left + 32] for left in (48, 84, 120)]
        assert any(not np.array_equal(other, original) for other in others), list(augment.SHOWN)[number]
        caption = rows[top - line - augment.GAP : top - augment.GAP]
        assert caption.min() < 100  # there is text, and none of it is cut off
        assert (caption[[0, -1]] == 255).all() and (caption[:, [0, -1]] == 255).all()
    assert list(tmp_path.glob("new/*")) == [output]


def test_with_options_there_is_a_row_for_each_picture(photo: str, tmp_path: Path) -> None:
    output = tmp_path / "sheet.png"
    typed = ["--rotation=30", "--noise=0.1", "--flip=True", "--cutout=0.25", "--size=64"]
    assert augment.main([photo, photo, f"--output={output}", *typed]) == 0
    rows = shown(output)
    assert rows.shape[0] == augment.LINE + 2 * (64 + 2 * augment.GAP)  # one caption for both
    transform = augment.transform_of({"rotation": 30.0, "noise": 0.1, "flip": True, "cutout": 0.25}, 64)
    last = transform(soft(50, 40), keyed_rng(AUGMENT, 0, 1, 5))[0]
    assert np.array_equal(rows[-68:-4, -68:-4], last)
    assert augment.main([photo, photo, f"--output={output}", *typed, "--seed=1"]) == 0
    assert not np.array_equal(shown(output), rows)


def test_a_long_caption_is_broken_not_cut(photo: str) -> None:
    told = {**EACH, "flip": True, "min_crop_area": 0.5}
    rows = augment.sheet([soft(50, 40)], told, side=24, draws=1)
    lines = (len(rows) - 24 - 2 * augment.GAP) // augment.LINE
    assert lines >= len(told) // 2
    assert (rows[: lines * augment.LINE, [0, -1]] == 255).all()


def test_the_sheet_shows_every_option_and_takes_it() -> None:
    assert set(augment.SHOWN) == set(names.AUGMENTATIONS) | {"min_crop_area", "flip", "color_jitter"}
    for kind in COMMANDS[:2]:
        parse(kind, [f"--{name}={value}" for name, value in augment.SHOWN.items()])


def test_without_pictures_it_shows_demo_faces(tmp_path: Path) -> None:
    output = tmp_path / "sheet.png"
    assert augment.main([f"--output={output}", "--cutout=0.5", "--size=16", "--draws=1"]) == 0
    assert len(shown(output)) == 2 * augment.LINE or len(shown(output)) >= 4 * 24


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--output=sheet.jpg"], "PNG"),
        (["--output=photo.png"], "one of the pictures"),
        (["--output=s.png", "--rotation=200"], "rotation must be"),
        (["--output=s.png", "--noise=nan"], "noise must be"),
        (["--output=s.png", "--flip=maybe"], "--flip"),
        (["--output=s.png", "--size=0"], "--size must be"),
        (["--output=s.png", "--draws=0"], "--draws must be"),
        (["--output=s.png", "--rotaton=3"], "Did you mean '--rotation'?"),
        (["--output=s.png", "missing.png"], "missing.png"),
        (["--output=s.png", "text.txt"], "not a picture"),
        ([], "--output"),
    ],
)
def test_what_cannot_be_is_one_line(
    photo: str, tmp_path: Path, typed: list[str], said: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("no picture")
    assert augment.main(sorted(["photo.png", *typed], key=lambda word: word.startswith("-"))) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert not Path("s.png").exists()
