"""Where a point of a picture is in what the network sees of it, held against a bright dot that goes the same way."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metric_learning.checks import UserError
from metric_learning.data.augmentation import Augmentation
from metric_learning.data.face_warp import SIDE, TEMPLATE, warp_face
from metric_learning.data.landmarks import aligned_points, listed_points, seen
from metric_learning.data.loader import BadPictures, Batch, train_batches
from metric_learning.data.samplers import AUGMENT, keyed_rng
from metric_learning.data.sources import PictureSet, Sample
from metric_learning.data.transforms import PictureSpec, TrainTransform, Window

SIZES = [(90, 90), (64, 150), (170, 70), (40, 700), (900, 50)]  # the last two are trimmed
Points = NDArray[np.float64]


def dot(h: int, w: int, point: Points, blur: float = 2.0) -> NDArray[np.uint8]:
    """A black picture with a soft dot round x, y."""
    across, down = (np.exp(-((np.arange(n) - at) ** 2) / (2 * blur**2)) for n, at in zip((w, h), point, strict=True))
    return np.repeat(np.rint(255 * np.outer(down, across)).astype(np.uint8)[..., None], 3, axis=2)


def centroid(image: NDArray[np.float64]) -> Points:
    """x, y of the light in an image (H, W), in 0..1 of it."""
    h, w = image.shape
    y, x = np.mgrid[:h, :w] + 0.5
    return np.array([(x * image).sum() / w, (y * image).sum() / h]) / image.sum()


def whole(image: NDArray[np.float64]) -> bool:
    """Whether the dot is there and not cut by an edge."""
    edge = max(image[0].max(), image[-1].max(), image[:, 0].max(), image[:, -1].max())
    return bool(image.max() > 40 and edge < 2)


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 56, 80), (1, 80, 48)])
@pytest.mark.parametrize(("h", "w"), SIZES)
@pytest.mark.parametrize(
    "how",
    [
        {"min_crop_area": 1},
        {"min_crop_area": 1, "flip": False},
        {"min_crop_area": 0.3, "max_crop_aspect": 1},
        {"min_crop_area": 0.08},
        {"min_crop_area": 0.5, "flip": False},
    ],
    ids=str,
)
@pytest.mark.sweep
def test_a_point_is_where_its_dot_is(shape: tuple[int, int, int], h: int, w: int, how: dict[str, float]) -> None:
    transform = TrainTransform(PictureSpec(shape, test_crop=0.875), **how)
    shown = mirrored = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        point = np.array([w, h]) / 2 + rng.uniform(-0.3, 0.3, 2) * min(h, w)
        image, window = transform(dot(h, w, point), keyed_rng(AUGMENT, 1, 2, seed))
        light = image[..., 0].astype(float)
        placed = window.place(point[None])[0]
        assert window.size == (h, w)
        if whole(light):
            off = np.abs(placed - centroid(light)) * (window.width, window.height)
            assert off.max() < 0.2, (seed, window)  # in pixels of the picture
            shown, mirrored = shown + 1, mirrored + window.mirrored
        if light.max() < 2:
            assert placed.min() < 0 or placed.max() > 1, (seed, window)
    assert shown > 2
    assert (mirrored > 0) == how.get("flip", True)


def test_the_whole_picture_goes_from_edge_to_edge() -> None:
    _, window = TrainTransform(PictureSpec((3, 8, 8), test_crop=1.0), 1, flip=False)(dot(20, 20, np.zeros(2)), rng())
    assert window == Window(0, 0, 20, 20, (20, 20))
    corners = np.array([[-0.5, -0.5], [19.5, 19.5], [4.5, 9.5]])
    assert window.place(corners).tolist() == [[0, 0], [1, 1], [0.25, 0.5]]
    assert window._replace(mirrored=True).place(corners).tolist() == [[1, 0], [0, 1], [0.75, 0.5]]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    "how",
    [
        {"vertical_flip": True},
        {"rotation": 20},
        {"rotation": 180},
        {"rotation": 45, "vertical_flip": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("least", [1, 0.3])
@pytest.mark.parametrize(("h", "w"), [(120, 120), (90, 240), (240, 90), (30, 40)])
def test_a_point_of_a_turned_picture_is_where_its_pixel_is(how: dict[str, float], least: float, h: int, w: int) -> None:
    """Each pixel's red is its x and its green its y, so wherever a point is said to be, the colours must be its own."""
    x = np.zeros((h, w, 3), np.uint8)
    x[..., 0], x[..., 1] = np.arange(w), np.arange(h)[:, None]
    transform = TrainTransform(PictureSpec((3, 64, 56), test_crop=0.9), least, augmentation=Augmentation(**how))
    points = np.stack(np.meshgrid(np.arange(2, w - 2, 3), np.arange(2, h - 2, 3)), axis=-1).reshape(-1, 2).astype(float)
    ways, found = set(), 0
    for slot in range(30):
        image, window = transform(x, keyed_rng(AUGMENT, 1, 2, slot))
        placed = window.place(points) * (56, 64)
        inside = (placed > 2).all(axis=1) & (placed < (54, 62)).all(axis=1)
        across, down = (placed[inside] - 0.5).astype(np.float32).T[:, :, None]  # as OpenCV counts
        colours = cv2.remap(image.astype(np.float32), across, down, cv2.INTER_LINEAR)[:, 0, :2]
        assert np.abs(colours - points[inside]).max() < 1.3, (slot, window)
        ways.add((window.mirrored, window.upended))
        found += inside.sum()
    assert found > 1000
    assert len(ways) == (4 if "vertical_flip" in how else 2)


def test_corners_of_a_turned_window() -> None:
    window = Window(10, 20, 8, 8, (40, 40), angle=90.0)
    corners = np.array([[10, 20], [18, 20], [18, 28], [14, 24]]) - 0.5  # against the clock: right becomes up
    assert np.allclose(window.place(corners), [[0, 1], [0, 0], [1, 0], [0.5, 0.5]])
    assert np.allclose(window._replace(upended=True).place(corners), [[0, 0], [0, 1], [1, 1], [0.5, 0.5]])


# ---- aligned pictures


@pytest.mark.parametrize("side", [56, 112, 200])
def test_the_points_of_aligned_pictures_are_where_align_puts_them(side: int) -> None:
    points = TEMPLATE * 1.6 + 9
    for number in range(5):
        light = warp_face(dot(220, 200, points[number], 4.0), points, side)[..., 0]
        window = Window(0, 0, side, side, (side, side))
        placed = seen(aligned_points([window]), [window])[0, number]
        assert np.abs(placed - centroid(light.astype(float))).max() < 0.3 / side + 0.002


def test_the_template_is_scaled_to_each_pictures_own_size() -> None:
    windows = [Window(0, 0, 112, 112, (112, 112)), Window(5, 5, 9, 9, (224, 56), True)]
    first, second = aligned_points(windows)
    assert np.array_equal(first, TEMPLATE)
    assert np.allclose(second, TEMPLATE * [56 / SIDE, 224 / SIDE])


# ---- pictures of a list


@pytest.fixture
def faces(tmp_path: Path) -> tuple[PictureSet, Path]:
    """Six pictures of two classes, each of a size and with a dot of its own; a csv whose third point is the dot."""
    samples, rows = [], ["path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5"]
    for number in range(6):
        h, w = 40 + 8 * number, 80 - 6 * number
        point = np.array([w, h]) * (0.4 + 0.04 * number) - 0.5
        path = tmp_path / "data" / "ab"[number // 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dot(h, w, point, 2.0)).save(path)
        samples.append(Sample(str(path), path.parent.name))
        rows.append(f"{path.parent.name}/{number}.png,0,0,0,0,{point[0]},{point[1]},0,0,0,0")
    (tmp_path / "points.csv").write_text("\n".join(rows))
    return PictureSet.of(samples), tmp_path


class Every:
    """A sampler of all six pictures."""

    def batch(self, step: int) -> NDArray[np.int64]:
        return np.arange(6)


def one_batch(pictures: PictureSet, seed: int) -> Batch:
    spec = PictureSpec((3, 48, 48), (0.0,) * 3, (1.0,) * 3)
    ways = {"seed": seed, "start_step": 0, "stop_step": 1, "workers": 0, "bad": BadPictures(6, 1.0)}
    return next(train_batches(pictures, Every(), TrainTransform(spec, 0.5), spec, **ways))


@pytest.mark.parametrize("spoiled", [(), (0, 4), (3, 4, 5)])
def test_points_are_those_of_the_picture_that_was_read(faces: tuple[PictureSet, Path], spoiled: tuple[int]) -> None:
    pictures, place = faces
    points = listed_points(place / "points.csv", place / "data", pictures.paths)
    for index in spoiled:
        Path(pictures.paths[index]).write_bytes(b"")
    shown = 0
    for seed in range(8):
        batch = one_batch(pictures, seed)
        nose = seen(points[batch.indices], batch.windows)[:, 2]
        for k, light in enumerate(batch.images[:, 0].astype(float) * 255):
            if whole(light):
                assert np.abs(nose[k] - centroid(light)).max() < 0.01
                shown += 1
    assert shown > 30


def test_a_csv_may_name_pictures_in_any_way(faces: tuple[PictureSet, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, place = faces
    row = ",1,2,3,4,5,6,7,8,9,10"
    names = ["a/0.png", "./a/1.png", "../data/a//2.png", pictures.paths[3], "b\\4.png"]
    (place / "x.csv").write_text("\n".join(name + row for name in names))
    monkeypatch.chdir(place)
    relative = [str(Path(path).relative_to(place)) for path in pictures.paths]
    for paths in (pictures.paths, relative):
        found = listed_points(Path("x.csv"), "data", paths)
        assert found.shape == (6, 5, 2)
        assert np.array_equal(found[:5], np.broadcast_to(np.arange(1, 11).reshape(5, 2), (5, 5, 2)))
        assert np.isnan(found[5]).all()


def test_unknown_points_stay_unknown() -> None:
    window = Window(1, 2, 30, 40, (50, 60), mirrored=True)
    assert np.isnan(seen(np.full((1, 5, 2), np.nan), [window])).all()


def test_a_csv_of_other_pictures_is_refused(faces: tuple[PictureSet, Path]) -> None:
    pictures, place = faces
    with pytest.raises(UserError, match=r"points.csv has no training picture; .* from .*a, such as 0\.png") as error:
        listed_points(place / "points.csv", place / "data" / "a", pictures.paths)
    assert "\n" not in str(error.value)
