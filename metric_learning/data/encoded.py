"""InsightFace's `.bin`: encoded pictures and their answers in one pickle, read without running any code of it."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from metric_learning.checks import UserError
from metric_learning.data.pair_lists import PairList, contiguous
from metric_learning.data.pictures import Encoded
from metric_learning.files import one_line
from metric_learning.pickled_arrays import PickledArray, load_arrays

BIN = "InsightFace .bin"
BIN_FOLDS = 10


def read_bin(path: Path) -> PairList:
    """A pickle of (2 P encoded pictures, P answers): pair i is pictures 2 i and 2 i + 1; ten folds in file order.

    Pictures that are byte for byte the same are one, and are embedded once. A picture is named `file.bin[number]`.
    """
    try:
        content = load_arrays(io.BytesIO(path.read_bytes()))
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(f"Can't read the pairs {path}: {one_line(error)[:200]}.") from error
    if not (isinstance(content, list | tuple) and len(content) == 2 and isinstance(content[0], list | tuple)):
        raise UserError(f"Can't read the pairs {path}: it must hold (list of encoded pictures, list of answers).")
    same = _answers(content[1], path)
    if len(content[0]) != 2 * len(same) or not len(same):
        raise UserError(
            f"{path} holds {len(content[0])} pictures and {len(same)} answers; two pictures an answer it takes."
        )
    first: dict[bytes, int] = {}
    items: list[Encoded] = []
    rows = np.empty(len(content[0]), np.int64)
    known: dict[int, bytes] = {}  # one object may stand there a million times
    for number, entry in enumerate(content[0]):
        if id(entry) not in known:
            known[id(entry)] = _picture(entry, f"{path}[{number}]")
        data = known[id(entry)]
        rows[number] = first.setdefault(data, len(items))
        if rows[number] == len(items):
            items.append(Encoded(f"{path}[{number}]", data))
    groups = np.zeros(len(same), np.int64)
    folds = contiguous(len(same), BIN_FOLDS)
    return PairList(items, rows[0::2], rows[1::2], same, groups, ["all"], BIN, folds)


def _as_bytes(value: Any) -> bytes | None:
    if isinstance(value, str):  # from Python 2
        try:
            return value.encode("latin1")
        except UnicodeEncodeError:
            return None
    return bytes(value) if isinstance(value, bytes | bytearray) else None


def _picture(entry: Any, name: str) -> bytes:
    if isinstance(entry, PickledArray) and entry.array.dtype.itemsize == 1:
        return entry.array.tobytes()
    data = _as_bytes(entry)
    if data is None:
        what = f"an array of {entry.array.dtype}" if isinstance(entry, PickledArray) else f"a {type(entry).__name__}"
        raise UserError(f"Can't read the picture {name}: it is {what}, not encoded bytes.")
    return data


def _answers(content: Any, path: Path) -> np.ndarray:
    """A list or an array of True and False, or 1 and 0 -> (P,) bool."""
    if isinstance(content, PickledArray):
        content = content.array.ravel().tolist()
    if not isinstance(content, list | tuple):
        raise UserError(f"Can't read the pairs {path}: its answers are a {type(content).__name__}, not a list.")
    values = [_first(entry) for entry in content]
    wrong = [i for i, value in enumerate(values) if not (isinstance(value, int) and value in (0, 1))]
    if wrong:
        raise UserError(f"Can't read the pairs {path}: answer {wrong[0]} is neither True nor False.")
    return np.array(values, bool)


def _first(entry: Any) -> Any:
    return entry.array.ravel()[0].item() if isinstance(entry, PickledArray) and entry.array.size else entry
