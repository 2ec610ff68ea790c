"""NumPy's arrays out of pickles, and Paddle's `.pdparams`, which are such pickles, without running any code of them."""

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from metric_learning.checks import UserError
from metric_learning.files import Arrays, one_line
from metric_learning.pickles import Built, Maker, load


class PickledArray(Built):
    """What an array of a pickle becomes; NumPy's own way back from a pickle can be made to read wild memory (a dtype of
    pickled flags, an array of objects over given bytes), so none of it is called."""

    __slots__ = ("array",)

    def __init__(self, raw: Any = b"", dtype: Any = None, shape: Any = (0,), order: Any = "C") -> None:
        if isinstance(raw, str):  # bytes written by Python 2
            raw = raw.encode("latin1")
        if not isinstance(raw, (bytes, bytearray)):
            raise pickle.UnpicklingError(f"it holds an array made of {type(raw).__name__}, not of bytes")
        plain = dtype.dtype if isinstance(dtype, _Dtype) else np.dtype("u1")
        sides = shape if isinstance(shape, tuple) else (shape,)
        if len(sides) > 32 or not all(type(side) is int and 0 <= side < 1 << 48 for side in sides):
            raise pickle.UnpicklingError("it holds an array of a shape that can't be")  # to show it may take for ever
        if math.prod(sides) * plain.itemsize != len(raw):
            raise pickle.UnpicklingError(f"it holds an array of {str(sides)[:40]} that has {len(raw)} bytes")
        self.array = np.frombuffer(bytes(raw), plain).reshape(sides, order="F" if order == "F" else "C")

    def build(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.__init__(raw, dtype, shape, "F" if fortran else "C")  # type: ignore[misc]

    @property
    def nbytes(self) -> int:
        return self.array.nbytes


class _Dtype(Built):
    """A dtype of a pickle: plain numbers and booleans only."""

    __slots__ = ("dtype",)

    def __init__(self, kind: Any, *flags: Any) -> None:
        if not (isinstance(kind, str) and re.fullmatch(r"[<>=|]?(b1|[iu][1248]|f[248])", kind)):
            shown = repr(kind[:20]) if isinstance(kind, str) else f"a {type(kind).__name__}"
            raise pickle.UnpicklingError(f"it holds an array of {shown}, not of numbers")
        self.dtype = np.dtype(kind)

    def build(self, state: Any) -> None:
        if state[1] in (">", "<"):  # of the rest nothing matters to plain numbers
            self.dtype = self.dtype.newbyteorder(state[1])


def load_arrays(stream: io.BytesIO) -> Any:
    """The object of a pickle of containers, texts, numbers and arrays, which are PickledArrays; see `pickles.load`."""
    return load(stream, _find)


def _find(module: str, name: str) -> Any:
    key = (module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins"), name)
    if key not in _KNOWN:
        raise pickle.UnpicklingError(f"it asks for {module[:80]}.{name[:80]}, which is not a tensor")
    return _KNOWN[key]


def _tuple(items: Any = ()) -> tuple[Any, ...]:
    if not isinstance(items, (list, tuple)):
        raise pickle.UnpicklingError(f"it makes a tuple of a {type(items).__name__}")
    return tuple(items)


def _bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str):
        raise pickle.UnpicklingError(f"it makes bytes of a {type(text).__name__}")
    return text.encode("latin1")  # how protocol 2 writes bytes


def _dict(items: Any = ()) -> dict[str, Any]:
    """An OrderedDict as old pickles write it; only texts are names of tensors."""
    return {key: value for key, value in items if isinstance(key, str)}


def _scalar(dtype: Any, raw: Any) -> PickledArray:
    return PickledArray(raw, dtype, ())


def _reconstruct(*nothing: Any) -> PickledArray:
    return PickledArray()


_KNOWN = {
    ("builtins", "tuple"): Maker(_tuple),
    ("builtins", "bytes"): Maker(_bytes),
    ("_codecs", "encode"): Maker(_bytes),
    ("collections", "OrderedDict"): Maker(_dict),
    ("numpy", "ndarray"): None,  # only ever an argument of _reconstruct
    ("numpy", "dtype"): Maker(_Dtype),
    ("numpy.core.multiarray", "_reconstruct"): Maker(_reconstruct),
    ("numpy.core.multiarray", "scalar"): Maker(_scalar),
    ("numpy.core.numeric", "_frombuffer"): Maker(PickledArray),
}


def read_pdparams(path: str | Path) -> Arrays:
    """The arrays of a Paddle `.pdparams` file. bfloat16, which Paddle keeps as uint16, becomes float32."""
    try:
        content = load_arrays(io.BytesIO(Path(path).read_bytes()))
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(f"Can't read the weights {path}: {one_line(error)}.") from error
    if not isinstance(content, dict):
        raise UserError(f"Can't read the weights {path}: it holds a {type(content).__name__}, not tensors by name.")
    arrays: Arrays = {}
    plain: dict[int, np.ndarray] = {}  # an array under several names is one
    for name, value in content.items():
        if isinstance(value, tuple) and len(value) == 2:  # Paddle 2 pickles a tensor as (name, array)
            value = value[1]
        if isinstance(name, str) and isinstance(value, PickledArray):
            if id(value) not in plain:
                plain[id(value)] = _plain(value.array)
            arrays[name] = plain[id(value)]
    if not arrays:
        raise UserError(f"Can't read the weights {path}: it holds no tensors.")
    return arrays


def _plain(array: np.ndarray) -> np.ndarray:
    """The same in this machine's byte order, and its own memory."""
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(array.dtype.newbyteorder("="))
