import contextlib
import errno
import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metric_learning.data.pictures import PictureError, read_picture

H, W = 30, 40
DEEP = np.linspace(0, 65535, H * W).reshape(H, W).astype(np.uint16)
DEEP_RGB = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], axis=-1)
GRAY = (DEEP >> 8).astype(np.uint8)
RGB = (DEEP_RGB >> 8).astype(np.uint8)


def save(path: Path, array: NDArray[np.generic] | Image.Image, **options: object) -> Path:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)
    return path


def check(path: Path, expected: NDArray[np.uint8], tolerance: int = 0) -> None:
    picture = read_picture(path)
    assert picture.dtype == np.uint8
    assert picture.flags.writeable and picture.flags.c_contiguous
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected.astype(int)).max() <= tolerance


def repeat(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(gray[:, :, None], 3, axis=2)


def over_white(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    share = alpha[..., None] / 255
    return np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)


# ---- kinds that must work


@pytest.mark.parametrize(("name", "tolerance"), [("x.png", 0), ("x.bmp", 0), ("x.ppm", 0), ("x.tif", 0), ("x.jpg", 30)])
def test_plain_rgb(tmp_path: Path, name: str, tolerance: int) -> None:
    check(save(tmp_path / name, RGB), RGB, tolerance)


def test_webp_and_gif(tmp_path: Path) -> None:
    check(save(tmp_path / "x.webp", RGB, lossless=True), RGB)
    first, second = Image.new("RGB", (W, H), "red"), Image.new("RGB", (W, H), "blue")
    first.save(tmp_path / "x.gif", save_all=True, append_images=[second])
    assert read_picture(tmp_path / "x.gif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("name", ["x.png", "x.pgm", "x.tif", "x.bmp"])
def test_gray(tmp_path: Path, name: str) -> None:
    check(save(tmp_path / name, GRAY), repeat(GRAY))


def test_gray_jpeg(tmp_path: Path) -> None:
    check(save(tmp_path / "x.jpg", GRAY, quality=95), repeat(GRAY), 12)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.ppm", "x.bmp"])
def test_one_bit(tmp_path: Path, name: str) -> None:
    bits = Image.fromarray(GRAY).point(lambda value: 255 * (value > 127)).convert("1")
    check(save(tmp_path / name, bits), repeat(np.array(bits).astype(np.uint8) * 255))


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
def test_sixteen_bit_gray(tmp_path: Path, name: str) -> None:
    assert cv2.imwrite(str(tmp_path / name), DEEP)
    check(tmp_path / name, repeat(np.rint(DEEP / 257).astype(np.uint8)))


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.ppm"])
def test_sixteen_bit_rgb(tmp_path: Path, name: str) -> None:
    assert cv2.imwrite(str(tmp_path / name), DEEP_RGB[..., ::-1])
    check(tmp_path / name, np.rint(DEEP_RGB / 257).astype(np.uint8), 1)


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_alpha_is_laid_over_white(tmp_path: Path, name: str) -> None:
    check(save(tmp_path / name, np.dstack([RGB, GRAY])), over_white(RGB, GRAY), 1)
    gray_alpha = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(GRAY[::-1].copy())])
    check(save(tmp_path / name, gray_alpha), over_white(repeat(GRAY), GRAY[::-1]), 1)


def test_sixteen_bit_alpha(tmp_path: Path) -> None:
    clear = np.dstack([DEEP_RGB, np.zeros_like(DEEP)])
    assert cv2.imwrite(str(tmp_path / "x.png"), clear)
    check(tmp_path / "x.png", np.full((H, W, 3), 255, np.uint8))


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    palette = Image.fromarray(RGB).quantize(16)
    plain = np.array(palette.convert("RGB"))
    index = np.array(palette)
    check(save(tmp_path / "plain.png", palette), plain)
    check(save(tmp_path / "key.png", palette, transparency=3), over_white(plain, np.where(index == 3, 0, 255)))
    table = bytes(16 * k for k in range(16))
    check(
        save(tmp_path / "table.png", palette, transparency=table), over_white(plain, (index * 16).astype(np.uint8)), 1
    )
    white_key = save(tmp_path / "gray.png", GRAY, transparency=0)
    check(white_key, repeat(np.where(GRAY == 0, 255, GRAY).astype(np.uint8)))


# EXIF's eight orientations as numpy sees them (stored -> upright).
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, 1),
}


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation(tmp_path: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    options = {"quality": 95, "subsampling": 0} if name == "x.jpg" else {"lossless": True} if name == "x.webp" else {}
    path = save(tmp_path / name, RGB, exif=exif, **options)
    check(path, UPRIGHT[orientation](RGB), 12 if name == "x.jpg" else 0)


def test_broken_exif_does_not_spoil_a_whole_picture(tmp_path: Path) -> None:
    check(save(tmp_path / "x.png", RGB, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), RGB)


def cmyk(rgb: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(rgb).convert("CMYK")


def test_cmyk_with_and_without_adobes_inversion(tmp_path: Path) -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    check(save(tmp_path / "x.tif", cmyk(red)), red)
    adobe = save(tmp_path / "adobe.jpg", cmyk(red), quality=95)
    check(adobe, red, 6)
    # Without Adobe's marker the stored values (255, 0, 0, 255) are the ink itself: cyan and black.
    data = adobe.read_bytes()
    at = data.index(b"\xff\xee")
    (tmp_path / "plain.jpg").write_bytes(data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :])
    check(tmp_path / "plain.jpg", np.zeros((16, 16, 3), np.uint8), 6)


def test_a_few_bytes_behind_the_end_are_allowed(tmp_path: Path) -> None:
    data = save(tmp_path / "x.jpg", RGB).read_bytes()
    for tail in (b"\n", bytes(20), bytes(1000)):
        (tmp_path / "y.jpg").write_bytes(data + tail)
        check(tmp_path / "y.jpg", read_picture(tmp_path / "x.jpg"), 3)


def test_jpeg_under_another_name_and_progressive(tmp_path: Path) -> None:
    save(tmp_path / "x.jpg", RGB, progressive=True, quality=95)
    (tmp_path / "x.jpg").rename(tmp_path / "x.png")
    check(tmp_path / "x.png", RGB, 30)


def test_both_decoders_agree(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(RGB, (0, 0), 3)
    path = save(tmp_path / "x.jpg", smooth, quality=95)
    check(path, np.array(Image.open(path).convert("RGB")), 3)


# ---- what is not a whole picture


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP"])
def test_cut_off_files(tmp_path: Path, kind: str, share: float, capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    path = tmp_path / "x.jpg"
    path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
    with pytest.raises(PictureError, match=r"x\.jpg: .") as error:
        read_picture(path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_the_end_marker_of_a_thumbnail_is_not_the_end(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(GRAY).save(buffer, "JPEG")
    thumbnail = b"\xff\xe1" + (len(buffer.getvalue()) + 2).to_bytes(2, "big") + buffer.getvalue()
    data = save(tmp_path / "x.jpg", RGB).read_bytes()
    for at in (2, data.index(b"\xff\xda")):  # where cameras put it, and as near to the picture's data as can be
        with_thumbnail = data[:at] + thumbnail + data[at:]
        (tmp_path / "x.jpg").write_bytes(with_thumbnail)
        assert read_picture(tmp_path / "x.jpg").shape == (H, W, 3)
        for cut in (at + len(thumbnail), at + len(thumbnail) + 40, len(with_thumbnail) - 30):
            (tmp_path / "x.jpg").write_bytes(with_thumbnail[:cut])
            with pytest.raises(PictureError):
                read_picture(tmp_path / "x.jpg")


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is a text\n", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_no_pictures_at_all(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(PictureError, match=r"x\.jpg: "):
        read_picture(tmp_path / "x.jpg")


def test_missing_folder_and_pipe(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in (("none.jpg", "No such file"), ("folder.jpg", "regular file"), ("pipe.jpg", "regular file")):
        with pytest.raises(PictureError, match=reason) as error:
            read_picture(tmp_path / name)
        assert isinstance(error.value, ValueError)


def test_decompression_bombs(tmp_path: Path) -> None:
    for side in (11_000, 20_000):  # 121 million pixels make Pillow warn, 400 million make it refuse
        save(tmp_path / "x.png", Image.new("1", (side, side)))
        with pytest.raises(PictureError, match="limit"):
            read_picture(tmp_path / "x.png")
    data = bytearray(save(tmp_path / "x.jpg", RGB).read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(PictureError, match="above the limit"):
        read_picture(tmp_path / "x.jpg")


def test_pixels_without_a_defined_white_are_refused(tmp_path: Path) -> None:
    for array in (DEEP.astype(np.float32) / 65535, DEEP.astype(np.int32) * 3):
        with pytest.raises(PictureError, match="no defined white"):
            read_picture(save(tmp_path / "x.tif", array))


@pytest.mark.parametrize("seed", range(3))
def test_damaged_bytes_give_a_picture_or_a_picture_error(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "PPM", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(RGB).save(buffer, kind)
        for _ in range(20):
            data = bytearray(buffer.getvalue())
            for at in rng.integers(0, min(len(data), 400), 4):
                data[at] = rng.integers(256)
            (tmp_path / "x").write_bytes(data)
            with contextlib.suppress(PictureError):  # any other error fails the test
                assert read_picture(tmp_path / "x").ndim == 3


def test_what_the_machine_is_out_of_is_not_the_picture_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a training would go on with other pictures than it would have had, and nobody would know."""
    path = save(tmp_path / "a.jpg", RGB)

    def failing(error: Exception) -> None:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(cv2, "imdecode", fail)

    failing(cv2.error("Failed to allocate 9 bytes"))
    with pytest.raises(PictureError, match="Failed to allocate"):
        read_picture(path)
    no_memory = cv2.error("Failed to allocate 9 bytes")
    no_memory.code = cv2.Error.StsNoMem
    for error, kind in ((no_memory, MemoryError), (MemoryError(), MemoryError)):
        failing(error)
        with pytest.raises(kind):
            read_picture(path)
    monkeypatch.undo()
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):

        def out_of(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "open", out_of)
        with pytest.raises(OSError, match=os.strerror(number)):
            read_picture(path)
        monkeypatch.undo()
