"""One picture, file or bytes, of any kind -> uint8 (H, W, 3) RGB, upright; a PictureError where it is not whole."""

import io
import os
import stat
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from metric_learning.data.recordio import is_record, read_encoded

# More than this is refused before anything is decoded; Pillow's own default limit.
MAX_PIXELS = 89_478_485
# No others: some of Pillow's readers start programs (EPS) or are never used for photographs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

# Both are checked here and reported as a PictureError or put right; the warnings would only repeat that on stderr.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", message="(Corrupt EXIF data|Truncated File Read)", module=r"PIL\.")


class PictureError(ValueError):
    """This file is not a whole picture; the message is its path and why."""


class Encoded(NamedTuple):
    """A picture that lies in memory as the bytes of its file, and what to call it."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name


Source = str | Encoded


def read_picture(path: Source | Path) -> NDArray[np.uint8]:
    """Decode a picture file, or one that is encoded in memory -> (H, W, 3) uint8 RGB, contiguous and writable.

    Gray is repeated over the channels, alpha is laid over white, 16 bits are scaled to 8, EXIF rotation is applied,
    CMYK is converted, of several frames the first is taken. Raises PictureError where the file is missing, cut off,
    not a picture, or above MAX_PIXELS.
    """
    try:
        data = path.data if isinstance(path, Encoded) else encoded(path)
        if not data:
            raise ValueError("empty file")
        picture = _decode_jpeg(data) if data.startswith(b"\xff\xd8") else None
        return _decode_any(data) if picture is None else picture
    except MemoryError:
        raise
    except OSError as error:
        raise PictureError(f"{path}: {error.strerror or _one_line(error)}") from error
    except Exception as error:  # a broken file makes Pillow raise nearly anything: struct.error, KeyError, SyntaxError
        raise PictureError(f"{path}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a known format"
    return " ".join(str(error).split()) or type(error).__name__


def encoded(path: str | Path) -> bytes:
    """The bytes of a picture file, or of a picture in a RecordIO file (`train.rec#1234`), as they are."""
    return read_encoded(path) if is_record(path) else _read_bytes(path)


def _read_bytes(path: str | Path) -> bytes:
    # Looked at before it is opened: to open a named pipe would wait for ever.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("not a regular file")
    with open(path, "rb") as file:
        return file.read()


# ---- the fast way: whole JPEGs of one or three channels


def _decode_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """Decode with OpenCV, which applies EXIF rotation; None where the file is not for it."""
    frame, body = _jpeg_frame(data)
    if frame is None:
        return None
    height, width, channels = frame
    _check_size(width, height)
    # OpenCV fills a file that is cut off with gray, so the end marker must be there. Some tools leave a few bytes
    # behind it.
    if channels not in (1, 3) or data.rfind(b"\xff\xd9", max(body, len(data) - 64)) < 0:
        return None
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _jpeg_frame(data: bytes) -> tuple[tuple[int, int, int] | None, int]:
    """((height, width, channels) of the frame header, where the picture data begin); None without such a header."""
    frame, at = None, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 10 <= len(data):
            frame = (
                int.from_bytes(data[at + 5 : at + 7], "big"),
                int.from_bytes(data[at + 7 : at + 9], "big"),
                data[at + 9],
            )
        at += 2 + length
        if marker == 0xDA:  # start of scan
            return frame, at
    return None, at


# ---- the careful way


def _decode_any(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        _check_size(*opened.size)
        opened.load()
        image = _upright(opened)
        if image.mode.startswith(("I", "F")):
            return _deep_gray(image)
        if image.mode == "CMYK":
            # Pillow takes every CMYK JPEG for Adobe's, whose values are inverted; without Adobe's marker they are not.
            inverted = opened.format in ("JPEG", "MPO") and "adobe" not in opened.info
            return np.array((ImageChops.invert(image) if inverted else image).convert("RGB"))
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.array(image.convert("RGB"))


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, above the limit of {MAX_PIXELS // 1_000_000} million")
    if width < 1 or height < 1:
        raise ValueError(f"{width} x {height} pixels")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are whole (load() passed); only the side note on how the camera was held is not
        return image


def _deep_gray(image: Image.Image) -> NDArray[np.uint8]:
    """16-bit gray -> 8 bits, 65535 to 255. Float and 32-bit pixels have no agreed white, so they are refused."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"pixels of mode {image.mode} beyond 16 bits have no defined white; save it with 8 or 16 bits")
    gray = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)
