"""Sheets of pictures with captions, as one PNG: to look at what a list names."""

import io
import math
import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from metric_learning.checks import UserError, check_range
from metric_learning.data.pictures import PictureError, Source, read_picture
from metric_learning.fonts import file_for

SIDE, GAP, TEXT = 112, 8, 11
LINE = TEXT + 3
INK, PAPER, EMPTY = "#202020", "white", "#e4e4e4"
UNREADABLE = "can't be read"


class Cell(NamedTuple):
    """A picture, None for an empty place, and the lines below it."""

    picture: Source | None
    caption: Sequence[str] = ()


def picture_sheet(rows: Sequence[Sequence[Cell]], side: int = SIDE, most: int = 50) -> bytes:
    """Rows of cells -> a PNG: each picture in a square of `side` pixels, its aspect kept, its caption below it.

    Of more than `most` rows the first are drawn. A picture that can't be read leaves a gray cell that says so. Captions
    may hold any characters: a line too long for its cell loses its middle, and what no font has a letter for
    is drawn as an empty box. Raises UserError for no rows, a side below 16 or no row to draw.
    """
    check_range("side", side, 16, 4096)
    check_range("most", most, 1)
    rows = rows[:most]
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise UserError("A sheet needs a row with a picture; there is none.")
    heights = [side + LINE * max((len(cell.caption) for cell in row), default=0) + GAP for row in rows]
    sheet = Image.new("RGB", (columns * (side + GAP) + GAP, sum(heights) + GAP), PAPER)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            _draw(sheet, cell, GAP + column * (side + GAP), top, side)
        top += height
    buffer = io.BytesIO()
    sheet.save(buffer, format="png")
    return buffer.getvalue()


def in_rows(cells: Sequence[Cell], columns: int = 8) -> list[Sequence[Cell]]:
    """Cells (N,) -> rows of `columns`, the last one shorter."""
    return [cells[start : start + columns] for start in range(0, len(cells), columns)]


def _draw(sheet: Image.Image, cell: Cell, left: int, top: int, side: int) -> None:
    pen = ImageDraw.Draw(sheet)
    if cell.picture is not None:
        try:
            small = _fitted(read_picture(cell.picture), side)
            sheet.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))
        except PictureError:
            pen.rectangle((left, top, left + side - 1, top + side - 1), fill=EMPTY)
            _write(pen, (left + 4, top + side // 2 - TEXT), UNREADABLE, side - 8)
    for number, line in enumerate(cell.caption):
        _write(pen, (left, top + side + 1 + number * LINE), line, side)


def _fitted(picture: np.ndarray, side: int) -> Image.Image:
    """The picture as large as fits into the square, small ones enlarged."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)


# ---- text


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], line: str, width: int) -> None:
    pen.text(place, _shortened(line, width), INK, _font(line))


def _font(text: str) -> ImageFont.FreeTypeFont:
    return _opened(file_for(text))


@cache
def _opened(file: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, TEXT)


def _shortened(line: str, width: int) -> str:
    """As much of the line as fits into `width` pixels: its middle gives way, as both ends of a path tell most."""
    # Control characters would break the line, and halves of surrogate pairs (bytes of names that are no text) have no
    # encoding; far more characters than a cell holds need not be measured.
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", "\ufffd", line)
    room = math.ceil(width / 2)
    text = text if len(text) <= 2 * room else f"{text[:room]}{text[-room:]}"
    font = _font(line)
    if font.getlength(text) <= width:
        return text
    kept = next(n for n in range(len(text) - 1, -1, -1) if n == 0 or font.getlength(_cut(text, n)) <= width)
    return _cut(text, kept)


def _cut(text: str, kept: int) -> str:
    """`kept` of its characters round an ellipsis, the end having one more where that is odd."""
    return f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
