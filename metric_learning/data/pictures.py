"""One picture, file or bytes, of any kind -> uint8 (H, W, 3) RGB, upright; a PictureError where it is not whole."""

import errno
import io
import os
import stat
import warnings
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from metric_learning.data.jpeg import TAIL, Header, first_rows, read_header
from metric_learning.data.limits import check_passes, check_work
from metric_learning.data.recordio import is_record, read_encoded

Picture = NDArray[np.uint8]

# More than this is refused before anything is decoded; Pillow's own default limit.
MAX_PIXELS = 89_478_485
# No others: some of Pillow's readers start programs (EPS) or are never used for photographs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

# How OpenCV is told to decode at 1 / by of the size: in BGR, or at once in RGB where it knows that (from 4.11 on).
RGB = hasattr(cv2, "IMREAD_COLOR_RGB")
FLAGS = {
    by: (flag & ~cv2.IMREAD_COLOR) | cv2.IMREAD_COLOR_RGB if RGB else flag
    for by, flag in (
        (1, cv2.IMREAD_COLOR),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (8, cv2.IMREAD_REDUCED_COLOR_8),
    )
}

# Both are checked here and reported as a PictureError or put right; the warnings would only repeat that on stderr.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class PictureError(ValueError):
    """This file is not a whole picture; the message is its path and why."""


class Encoded(NamedTuple):
    """A picture that lies in memory as the bytes of its file, and what to call it."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name


Source = str | Encoded


class Jpeg(NamedTuple):
    """A JPEG that can be decoded the fast way, and has not been yet: what to call it, its bytes, its header."""

    name: str
    data: bytes
    header: Header

    @property
    def size(self) -> tuple[int, int]:
        """(h, w), upright."""
        return self.header.size

    def pixels(self, by: int = 1, bottom: int | None = None) -> Picture:
        """The picture at 1 / by of its size, (ceil(h / by), ceil(w / by), 3) RGB uint8; by is 1, 2, 4 or 8.

        At 1 it is what read_picture gives. Else the decoder leaves out the high frequencies of each block of 8 x 8
        pixels. bottom: rows of the whole picture from this one on are not needed, and are missing where that spares
        work; those above are the same. Raises PictureError.
        """
        try:
            return self._pixels(by, bottom)
        except Exception as error:
            raise _named(self.name, error) from error

    def _pixels(self, by: int, bottom: int | None) -> Picture:
        h, w = (-(-side // by) for side in self.size)
        if self.header.orientation != 1 and (h * by, w * by) != self.size:
            return _in_blocks(self._pixels(1, None), by)
        data = self.data if bottom is None else first_rows(self.data, self.header, bottom)
        picture = _decode(data, by)
        if picture is None:  # its header was whole, the rest is not for OpenCV
            picture = _in_blocks(_decode_any(self.data), by)
        if picture.shape[1] != w or not min(bottom or self.size[0], self.size[0]) // by <= picture.shape[0] <= h:
            raise ValueError(f"its header says {self.size[1]} x {self.size[0]} pixels, but it has others")
        return picture


def _in_blocks(picture: Picture, by: int) -> Picture:
    """The mean of each by x by pixels, from the upper left; the last are filled up with copies of the edge.

    The decoder's own blocks begin at a corner that is another one where EXIF turns the picture.
    """
    h, w = (-(-side // by) for side in picture.shape[:2])
    full = cv2.copyMakeBorder(picture, 0, h * by - picture.shape[0], 0, w * by - picture.shape[1], cv2.BORDER_REPLICATE)
    small: Picture = cv2.resize(full, (w, h), interpolation=cv2.INTER_AREA)
    return small


class Undecoded(Protocol):
    """What knows a picture's size (h, w), and its pixels when asked, as Jpeg.pixels has them."""

    @property
    def size(self) -> tuple[int, int]: ...

    def pixels(self, by: int = 1, bottom: int | None = None) -> Picture: ...


Opened = Picture | Undecoded


def open_picture(path: Source | Path) -> Picture | Jpeg:
    """A Jpeg, whose decoding may wait until it is known how large it must be, or the pixels of any other picture.

    Raises PictureError, as read_picture does; what is cut off or too large is found here already.
    """
    try:
        data = _bytes_of(path)
        header = _fast_jpeg(data)
        if header is None:
            return _decode_any(data)
        if header.orientation is None:
            return _decode_fully(data)
        return Jpeg(str(path), data, header)
    except Exception as error:
        raise _named(path, error) from error


def read_picture(path: Source | Path) -> Picture:
    """Decode a picture file, or one that is encoded in memory -> (H, W, 3) uint8 RGB, contiguous and writable.

    Gray is repeated over the channels, alpha is laid over white, 16 bits are scaled to 8, EXIF rotation is applied,
    CMYK is converted, of several frames the first is taken. Raises PictureError where the file is missing, cut off,
    not a picture, or above MAX_PIXELS.
    """
    try:
        data = _bytes_of(path)
        return _decode_any(data) if _fast_jpeg(data) is None else _decode_fully(data)
    except Exception as error:
        raise _named(path, error) from error


# What a system is out of says nothing of the picture that it was to open then.
_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def _named(path: Source | Path, error: Exception) -> Exception:
    """What is raised for whatever went wrong: a broken file makes Pillow raise nearly anything, even a SyntaxError."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _MACHINE):
        return error
    if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
        return MemoryError(_one_line(error))
    reason = error.strerror if isinstance(error, OSError) else None
    return PictureError(f"{path}: {reason or _one_line(error)}")


def _bytes_of(path: Source | Path) -> bytes:
    data = path.data if isinstance(path, Encoded) else encoded(path)
    if not data:
        raise ValueError("empty file")
    return data


def _one_line(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a known format"
    return " ".join(str(error).split()) or type(error).__name__


def encoded(path: str | Path) -> bytes:
    """The bytes of a picture file, or of a picture in a RecordIO file (`train.rec#1234`), as they are."""
    return read_encoded(path) if is_record(path) else _read_bytes(path)


def _read_bytes(path: str | Path) -> bytes:
    # Not waiting, as to open a named pipe would do for ever; a file on a disk is read all the same.
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        parts = [os.read(number, status.st_size + 1)]
        while parts[-1] and sum(map(len, parts)) < status.st_size:
            parts.append(os.read(number, status.st_size))
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(number)


# ---- the fast way: whole JPEGs of one or three channels


def _fast_jpeg(data: bytes) -> Header | None:
    """The header of a JPEG that OpenCV decodes as it should be; None where the file is not for it."""
    header = read_header(data) if data.startswith(b"\xff\xd8") else None
    if header is None:
        return None
    if not header.height:
        raise ValueError("its height is said behind its pixels (DNL), which is not read; save it anew")
    _check_size(header.width, header.height)
    if not header.in_rows:
        check_passes(data)
    # OpenCV fills a file that is cut off with gray, so the end marker must be there.
    whole = data.rfind(b"\xff\xd9", max(header.body, len(data) - TAIL)) >= 0
    return header if header.channels in (1, 3) and whole else None


def _decode_fully(data: bytes) -> Picture:
    picture = _decode(data)
    return _decode_any(data) if picture is None else picture


def _decode(data: bytes, by: int = 1) -> Picture | None:
    """Decode with OpenCV, which applies EXIF rotation, at 1 / by of the size; None where it can't."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), FLAGS[by])
    return picture if picture is None or RGB else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


# ---- the careful way


def _decode_any(data: bytes) -> Picture:
    check_work(data)
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


def _deep_gray(image: Image.Image) -> Picture:
    """16-bit gray -> 8 bits, 65535 to 255. Float and 32-bit pixels have no agreed white, so they are refused."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"pixels of mode {image.mode} beyond 16 bits have no defined white; save it with 8 or 16 bits")
    gray = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)
