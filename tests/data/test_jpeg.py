"""JPEGs that are decoded late: smaller, and without the rows below the crop. Held against decoding in full."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metric_learning.data.jpeg import exif_orientation, first_rows, read_header
from metric_learning.data.pictures import Encoded, Jpeg, PictureError, open_picture, read_picture
from metric_learning.data.samplers import AUGMENT, keyed_rng
from metric_learning.data.transforms import PictureSpec, TrainTransform
from metric_learning.data.windows import _nearly, _resize

Picture = NDArray[np.uint8]


def photo(h: int, w: int, seed: int = 0) -> Picture:
    """Smooth colours, a few edges, a little grain."""
    rng = np.random.default_rng(seed)
    made = 128 + 40 * cv2.resize(rng.standard_normal((6, 6, 3)), (w, h), interpolation=cv2.INTER_CUBIC)
    cv2.circle(made, (w // 2, h // 3), min(h, w) // 5, (230, 40, 90), -1, cv2.LINE_AA)
    return np.clip(made + rng.normal(0, 2, made.shape), 0, 255).astype(np.uint8)


def jpeg(picture: Picture, orientation: int = 0, quality: int = 90, **options: object) -> Encoded:
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[0x112] = orientation
        options["exif"] = exif
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, **options)
    return Encoded("x.jpg", buffer.getvalue())


def opened(source: Encoded) -> Jpeg:
    found = open_picture(source)
    assert isinstance(found, Jpeg)
    return found


# ---- at a part of the size


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("shape", [(161, 230), (64, 64), (9, 33)])
def test_every_orientation_at_every_size(orientation: int, shape: tuple[int, int]) -> None:
    source = jpeg(photo(*shape), orientation)
    whole = read_picture(source)
    late = opened(source)
    assert late.size == whole.shape[:2] == (shape if orientation < 5 else shape[::-1])
    assert np.array_equal(late.pixels(), whole)
    h, w = late.size
    for by in (2, 4, 8):
        small = late.pixels(by)
        assert small.shape == (-(-h // by), -(-w // by), 3)
        inner = small[: h // by, : w // by].astype(int)
        expected = cv2.resize(whole[: h // by * by, : w // by * by], inner.shape[1::-1], interpolation=cv2.INTER_AREA)
        if min(shape) > 32:
            assert np.abs(inner - expected).mean() < 2


def test_red_stays_red_and_gray_gray() -> None:
    red = np.zeros((40, 40, 3), np.uint8)
    red[..., 0] = 250
    gray = photo(40, 56)[..., 1]
    for by in (1, 2, 4, 8):
        assert (np.abs(opened(jpeg(red)).pixels(by).astype(int) - red[0, 0]) < 8).all()
        assert np.ptp(opened(jpeg(gray)).pixels(by), axis=2).max() == 0


def test_other_pictures_are_decoded_at_once(tmp_path: Path) -> None:
    picture = photo(20, 30)
    Image.fromarray(picture).save(tmp_path / "x.png")
    assert np.array_equal(open_picture(tmp_path / "x.png"), picture)
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "x.jpg")
    assert np.array_equal(open_picture(tmp_path / "x.jpg"), read_picture(tmp_path / "x.jpg"))


# ---- the first rows


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("shape", [(180, 90), (97, 64), (400, 7), (33, 200)])
@pytest.mark.parametrize("kind", ["plain", "mirrored", "gray", "one colour", "progressive", "restarts", "turned"])
def test_rows_above_the_bottom_are_the_same(
    subsampling: int, shape: tuple[int, int], kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = np.full((*shape, 3), 77, np.uint8) if kind == "one colour" else photo(*shape)
    picture = picture[..., 0] if kind == "gray" else picture
    more: dict[str, object] = {} if kind == "gray" else {"subsampling": subsampling}
    more |= {"progressive": {"progressive": True}, "restarts": {"restart_marker_rows": 1}}.get(kind, {})
    late = opened(jpeg(picture, {"mirrored": 2, "turned": 6}.get(kind, 0), **more))
    h = late.size[0]
    for by in (1, 2, 4, 8):
        full = late.pixels(by)
        for bottom in {min(max(1, row), h) for row in (1, 8, 17, h // 2, h - 40, h - 17, h - 1, h)}:
            rows = bottom // by
            found = late.pixels(by, bottom)
            assert len(found) >= rows and np.array_equal(found[:rows], full[:rows]), (by, bottom)
    assert capfd.readouterr() == ("", "")
    shortened = len(first_rows(late.data, late.header, 1)) != len(late.data) or shape[0] < 18
    assert shortened == (kind not in ("progressive", "restarts", "turned") or shape[0] < 18)


def test_fewer_rows_are_decoded() -> None:
    late = opened(jpeg(photo(200, 40)))
    assert late.pixels(1, 50).shape == (66, 40, 3)
    assert late.pixels(2, 50).shape == (33, 20, 3)


# ---- files that are not whole


def test_a_header_that_two_readers_see_two_pictures_in_is_not_believed() -> None:
    """Marks without a length, a second frame: what is checked must be what is decoded."""
    small, large = (jpeg(photo(*size)).data for size in ((8, 8), (300, 400)))
    header = read_header(small)
    assert header is not None
    frame = small[header.frame : header.frame + 19]
    for trick in (b"\xff\x01", b"\xff\xd0", b"\xff\xfe\x00\x01", frame):
        assert read_header(large) is not None
        assert read_header(large[:2] + trick + large[2:]) is None, trick


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.99])
def test_what_is_cut_off_is_found_before_anything_is_decoded(share: float) -> None:
    source = jpeg(photo(120, 160))
    cut = Encoded("cut.jpg", source.data[: int(share * len(source.data))])
    with pytest.raises(PictureError, match=r"cut\.jpg: ."):
        open_picture(cut)


def test_decompression_bombs_are_refused() -> None:
    source = jpeg(photo(16, 16))
    at = source.data.index(b"\xff\xc0")
    bomb = source.data[: at + 5] + b"\xff\xff\xff\xff" + source.data[at + 9 :]
    with pytest.raises(PictureError, match="above the limit"):
        open_picture(Encoded("bomb.jpg", bomb))


@pytest.mark.parametrize("by", [1, 2, 8])
def test_damaged_bytes_are_readable_or_not_at_every_size_alike(by: int) -> None:
    whole = bytearray(jpeg(photo(60, 60), 1).data)
    rng = np.random.default_rng(by)
    for _ in range(60):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        verdicts = []
        for read in (read_picture, lambda source: _pixels(source, by), lambda source: _pixels(source, by, 20)):
            try:
                verdicts.append(read(Encoded("x.jpg", bytes(data))).ndim)
            except PictureError:
                verdicts.append(0)
        assert len(set(verdicts)) == 1


def _pixels(source: Encoded, by: int, bottom: int | None = None) -> Picture:
    found = open_picture(source)
    return found.pixels(by, bottom) if isinstance(found, Jpeg) else found


# ---- headers


def tiff(order: str, *entries: tuple[int, int, int, int]) -> bytes:
    """(tag, type, count, value) each, the value as a short."""
    word = "little" if order == "II" else "big"
    made = order.encode() + (42).to_bytes(2, word) + (8).to_bytes(4, word) + len(entries).to_bytes(2, word)
    for tag, kind, count, value in entries:
        made += tag.to_bytes(2, word) + kind.to_bytes(2, word) + count.to_bytes(4, word)
        made += value.to_bytes(2, word) + bytes(2)
    return made + bytes(4)


@pytest.mark.parametrize("order", ["II", "MM"])
def test_orientations(order: str) -> None:
    other = (0x10F, 3, 1, 7)
    for value in range(1, 9):
        assert exif_orientation(tiff(order, other, (0x112, 3, 1, value))) == value
    assert exif_orientation(tiff(order, other)) == 1
    unclear = [(0x112, 3, 1, 0)], [(0x112, 3, 1, 9)], [(0x112, 4, 1, 6)], [(0x112, 3, 2, 6)], [(0x112, 3, 1, 6)] * 2
    for entries in unclear:
        assert exif_orientation(tiff(order, *entries)) is None
    whole = tiff(order, (0x112, 3, 1, 6))
    assert [exif_orientation(whole[:size]) for size in (0, 4, 8, 10, 20)] == [None] * 5


def test_two_notes_are_not_clear_and_the_picture_is_decoded_at_once() -> None:
    data = jpeg(photo(30, 50), 6).data
    at = data.index(b"\xff\xe1")
    note = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
    twice = Encoded("x.jpg", data[:at] + note + data[at:])
    header = read_header(twice.data)
    assert header is not None and header.orientation is None
    assert np.array_equal(open_picture(twice), read_picture(twice))


# ---- what training makes of them


@pytest.mark.parametrize("orientation", [0, 2, 3, 6])
@pytest.mark.parametrize("how", [{}, {"min_crop_area": 1}, {"min_crop_area": 0.75, "max_crop_aspect": 1}], ids=str)
@pytest.mark.parametrize(("h", "w"), [(500, 400), (250, 333), (112, 112), (60, 90)])
@pytest.mark.sweep
def test_late_decoding_changes_little_and_no_draw(orientation: int, how: dict[str, float], h: int, w: int) -> None:
    source, transform = jpeg(photo(h, w), orientation), TrainTransform(PictureSpec((3, 56, 64)), **how)
    late, whole = opened(source), read_picture(source)
    off = []
    for slot in range(20):
        rngs = [keyed_rng(AUGMENT, 1, 2, slot) for _ in range(2)]
        (small, moved), (exact, window) = transform(late, rngs[0]), transform(whole, rngs[1])
        assert rngs[0].random() == rngs[1].random()
        assert moved.size == window.size and moved.mirrored == window.mirrored
        pixel = max(window.width / 64, window.height / 56)  # one of the input, in pixels of the picture
        assert np.abs(np.subtract(moved[:4], window[:4])).max() <= max(pixel, 1e-9)
        off.append(np.abs(small.astype(int) - exact).mean())
    assert np.mean(off) < 2.5


@pytest.mark.parametrize("rotation", [0.0, 30.0])
@pytest.mark.parametrize("least", [1.0, 0.3])
def test_a_point_is_where_its_dot_is_in_a_smaller_picture(rotation: float, least: float) -> None:
    from metric_learning.data.augmentation import Augmentation

    transform = TrainTransform(PictureSpec((3, 64, 64)), least, augmentation=Augmentation(rotation=rotation))
    found = 0
    for seed in range(30):
        point = np.random.default_rng(seed).uniform(180, 320, 2)
        across, down = (np.exp(-((np.arange(n) - at) ** 2) / 200) for n, at in ((510, point[0]), (490, point[1])))
        dot = np.repeat(np.rint(255 * np.outer(down, across)).astype(np.uint8)[..., None], 3, axis=2)
        image, window = transform(opened(jpeg(dot, quality=98)), keyed_rng(AUGMENT, 1, 2, seed))
        light = np.maximum(image[..., 0].astype(float) - 8, 0)
        if max(light[0].max(), light[-1].max(), light[:, 0].max(), light[:, -1].max()) > 0:
            continue
        y, x = np.mgrid[:64, :64] + 0.5
        centroid = np.array([(x * light).sum(), (y * light).sum()]) / light.sum()
        assert np.abs(window.place(point[None])[0] * 64 - centroid).max() < 0.15
        found += 1
    assert found > 5


@pytest.mark.parametrize("size", [(56, 56), (64, 40), (100, 120), (112, 112), (113, 150), (140, 90), (300, 60)])
def test_the_quick_way_to_resize_is_near_the_mean_over_areas(size: tuple[int, int]) -> None:
    x = photo(*size)
    quick, mean = _nearly(x, 56, 56), _resize(x, 56, 56)
    assert quick.shape == (56, 56, 3)
    assert np.abs(quick.astype(int) - mean).mean() < 1.2
    assert np.array_equal(_nearly(x[:56, :40], 56, 40), x[:56, :40])


def test_the_quick_way_misses_no_line() -> None:
    lines = np.zeros((96, 96, 3), np.uint8)
    lines[::8] = 240
    for side in (50, 60, 70):
        quick = _nearly(lines, side, side)[..., 0].astype(float)
        assert abs(quick.mean() - lines.mean()) < 1.5
        assert quick.max(axis=1).reshape(-1)[:-8].size and (np.convolve(quick[:, 0], np.ones(9), "valid") > 20).all()
