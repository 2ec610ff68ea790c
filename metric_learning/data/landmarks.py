"""Five points a picture: a csv of `path,x1,y1,...,x5,y5`, or those of aligned faces; and where the network sees them.

Errors name the file and the line.
"""

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metric_learning.checks import UserError, brief
from metric_learning.data.face_warp import SIDE, TEMPLATE, Points
from metric_learning.data.transforms import Window

COLUMNS = 11
ALIGNED = "aligned"  # stands for the points of pictures that were aligned, instead of a file


def read_landmarks(path: Path) -> dict[str, Points]:
    """{path of the picture from its root, with '/': (5, 2) x, y in pixels}.

    The points are the eye on the left of the picture, the eye on its right, the nose, the mouth's corners left and
    right. A first line that begins with `path` is a header. UserError with file and line where a row is not that.
    """
    found: dict[str, Points] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if not row or (reader.line_num == 1 and row[0].strip().lower() == "path"):
                    continue
                name, points = _row(row, f"{path}:{reader.line_num}")
                if name in found:
                    raise UserError(
                        f"{path}:{reader.line_num}: {brief(name)[1:-1]} is there a second time; keep one of the rows."
                    )
                found[name] = points
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check --landmarks.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a csv file in UTF-8: {error}.") from error
    if not found:
        raise UserError(f"{path} lists no landmarks; its rows are path,x1,y1,...,x5,y5.")
    return found


def _row(row: list[str], where: str) -> tuple[str, Points]:
    if len(row) != COLUMNS:
        raise UserError(f"{where}: a row must have {COLUMNS} columns, path,x1,y1,...,x5,y5; got {len(row)}.")
    try:
        numbers = [float(cell) for cell in row[1:]]
    except ValueError as error:
        raise UserError(f"{where}: the points must be ten numbers: {str(error)[:120]}.") from error
    if not all(math.isfinite(number) for number in numbers):
        raise UserError(f"{where}: the points must be finite numbers.")
    name = row[0].strip().replace("\\", "/").removeprefix("./")
    return name, np.array(numbers).reshape(5, 2)


def listed_points(file: Path, folder: str | Path, paths: Sequence[str]) -> Points:
    """The points of N pictures, (N, 5, 2) x, y in pixels, as the csv `file` says them; NaN where it has none.

    Its paths count from `folder`, those of the pictures from the working folder. UserError where it has none of them.
    """
    listed = {os.path.abspath(os.path.join(folder, name)): points for name, points in read_landmarks(file).items()}
    unknown = np.full((5, 2), np.nan)
    found = np.array([listed.get(os.path.abspath(path), unknown) for path in paths]).reshape(-1, 5, 2)
    if np.isnan(found).all():
        some = f", such as {os.path.relpath(paths[0], folder)}" if paths else ""
        raise UserError(f"--landmarks={file} has no training picture; its rows must name them from {folder}{some}.")
    return found


def aligned_points(windows: Sequence[Window]) -> Points:
    """The points of B pictures that were aligned, (B, 5, 2) x, y in pixels: the template, scaled to each one's size."""
    return np.array([TEMPLATE * window.size[::-1] / SIDE for window in windows])


def seen(points: Points, windows: Sequence[Window]) -> Points:
    """points (B, 5, 2), x and y in pixels of B pictures -> in 0..1 of the network's input, beyond where it is cut."""
    return np.array([window.place(five) for window, five in zip(windows, points, strict=True)])
