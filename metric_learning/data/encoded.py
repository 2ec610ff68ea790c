"""InsightFace's `.bin`: encoded pictures and their answers in one pickle, read without running any code of it."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from metric_learning.checks import UserError
from metric_learning.data.pair_lists import PairList, contiguous
from metric_learning.data.pictures import Encoded
from metric_learning.files import Maker, one_line

BIN = "InsightFace .bin"
BIN_FOLDS = 10


class _Dtype:
    """The dtype of a pickled array: whole numbers and booleans only."""

    __slots__ = ("kind",)

    def __init__(self, kind: Any, *flags: Any) -> None:
        if not (isinstance(kind, str) and re.fullmatch(r"[|<>=]?(b1|[iu][1248])", kind)):
            raise pickle.UnpicklingError(f"it holds an array of {str(kind)[:20]!r}, not of bytes or answers")
        self.kind = kind

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):  # of the rest nothing matters to plain numbers
            self.kind = state[1] + self.kind.lstrip("|<>=")


class _Array:
    """An array of a pickle as its bytes; NumPy's own way back from a pickle is not called."""

    __slots__ = ("values",)

    def __init__(self, raw: Any = b"", dtype: Any = None) -> None:
        raw = _as_bytes(raw)
        if raw is None:
            raise pickle.UnpicklingError("it holds an array that is not made of bytes")
        self.values = np.frombuffer(raw, dtype.kind if isinstance(dtype, _Dtype) else "u1")

    def __setstate__(self, state: Any) -> None:
        self.__init__(state[4], state[2])  # type: ignore[misc]


class _PicturesOnly(pickle.Unpickler):
    """An unpickler that knows containers, bytes and arrays of whole numbers, and refuses to look up anything else.

    What it hands out are this module's own functions as tuples (`Maker`): a pickle can't set attributes of those.
    """

    def find_class(self, module: str, name: str) -> Any:
        found = {
            ("_codecs", "encode"): self._encode,  # how protocol 2 writes bytes
            ("builtins", "bytes"): self._encode,
            ("__builtin__", "bytes"): self._encode,
            ("numpy", "ndarray"): None,  # only ever an argument of _reconstruct
            ("numpy", "dtype"): self._dtype,
            ("numpy.core.multiarray", "_reconstruct"): self._reconstruct,
            ("numpy.core.multiarray", "scalar"): self._scalar,
            ("numpy.core.numeric", "_frombuffer"): self._frombuffer,
        }
        key = (module.replace("numpy._core", "numpy.core"), name)
        if key not in found:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no picture")
        make = found[key]
        return None if make is None else Maker(make)

    def _encode(self, text: str = "", encoding: str = "latin1") -> bytes:
        return text.encode("latin1")

    def _dtype(self, *arguments: Any) -> _Dtype:
        return _Dtype(*arguments)

    def _reconstruct(self, *nothing: Any) -> _Array:
        return _Array()

    def _scalar(self, dtype: Any, raw: Any) -> _Array:
        return _Array(raw, dtype)

    def _frombuffer(self, raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
        return _Array(raw, dtype)


def read_bin(path: Path) -> PairList:
    """A pickle of (2 P encoded pictures, P answers): pair i is pictures 2 i and 2 i + 1; ten folds in file order.

    Pictures that are byte for byte the same are one, and are embedded once. A picture is named `file.bin[number]`.
    """
    try:
        with open(path, "rb") as file:
            # latin1: what Python 2 wrote as str comes back with its bytes as they were.
            content = _PicturesOnly(file, encoding="latin1").load()
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
    for number, entry in enumerate(content[0]):
        data = _picture(entry, f"{path}[{number}]")
        rows[number] = first.setdefault(data, len(items))
        if rows[number] == len(items):
            items.append(Encoded(f"{path}[{number}]", data))
    groups = np.zeros(len(same), np.int64)
    folds = contiguous(len(same), BIN_FOLDS)
    return PairList(items, rows[0::2], rows[1::2], same, groups, ["all"], BIN, folds)


def _as_bytes(value: Any) -> bytes | None:
    if isinstance(value, str) and max(map(ord, value), default=0) < 256:  # from Python 2
        return value.encode("latin1")
    return bytes(value) if isinstance(value, bytes | bytearray) else None


def _picture(entry: Any, name: str) -> bytes:
    data = entry.values.tobytes() if isinstance(entry, _Array) and entry.values.itemsize == 1 else _as_bytes(entry)
    if data is None:
        raise UserError(f"Can't read the picture {name}: it is a {type(entry).__name__.strip('_')}, not encoded bytes.")
    return data


def _answers(content: Any, path: Path) -> np.ndarray:
    """A list or an array of True and False, or 1 and 0 -> (P,) bool."""
    if isinstance(content, _Array):
        content = content.values.tolist()
    if not isinstance(content, list | tuple):
        raise UserError(f"Can't read the pairs {path}: its answers are a {type(content).__name__}, not a list.")
    values = [
        entry.values.tolist()[0] if isinstance(entry, _Array) and entry.values.size else entry for entry in content
    ]
    wrong = [i for i, value in enumerate(values) if not (isinstance(value, int) and value in (0, 1))]
    if wrong:
        raise UserError(f"Can't read the pairs {path}: answer {wrong[0]} is neither True nor False.")
    return np.array(values, bool)
