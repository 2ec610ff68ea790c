"""A csv of five points a picture: `path,x1,y1,...,x5,y5`. Errors name the file and the line."""

import csv
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError

COLUMNS = 11


def read_landmarks(path: Path) -> dict[str, NDArray[np.float64]]:
    """{path of the picture from its root, with '/': (5, 2) x, y in pixels}.

    The points are the eye on the left of the picture, the eye on its right, the nose, the mouth's corners left and
    right. A first line that begins with `path` is a header. UserError with file and line where a row is not that.
    """
    found: dict[str, NDArray[np.float64]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if not row or (reader.line_num == 1 and row[0].strip().lower() == "path"):
                    continue
                name, points = _row(row, f"{path}:{reader.line_num}")
                if name in found:
                    raise UserError(f"{path}:{reader.line_num}: {name} is there a second time; keep one of the rows.")
                found[name] = points
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check --landmarks.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a csv file in UTF-8: {error}.") from error
    if not found:
        raise UserError(f"{path} lists no landmarks; its rows are path,x1,y1,...,x5,y5.")
    return found


def _row(row: list[str], where: str) -> tuple[str, NDArray[np.float64]]:
    if len(row) != COLUMNS:
        raise UserError(f"{where}: a row must have {COLUMNS} columns, path,x1,y1,...,x5,y5; got {len(row)}.")
    try:
        numbers = [float(cell) for cell in row[1:]]
    except ValueError as error:
        raise UserError(f"{where}: the points must be ten numbers: {error}.") from error
    if not all(math.isfinite(number) for number in numbers):
        raise UserError(f"{where}: the points must be finite numbers.")
    name = row[0].strip().replace("\\", "/").removeprefix("./")
    return name, np.array(numbers).reshape(5, 2)
