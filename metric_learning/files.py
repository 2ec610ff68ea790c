"""Files that are never half-written, and weights that can't run code."""

import contextlib
import csv
import json
import os
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from metric_learning.checks import UserError

Arrays = dict[str, np.ndarray]
ODD = "surrogateescape"  # names of files that are no text come and go unharmed


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary neighbour of `path` to write to; it replaces `path` when the block ends, and goes if the block fails.

    A reader, or a run that was killed, sees the old file or the new one. What the disk refuses is a UserError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Can't write {path}: {reason}. Free some space or name another place to write to.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Write the whole file or leave the old one untouched."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode(errors=ODD) if isinstance(data, str) else data)


def write_json(path: str | Path, value: Any) -> None:
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table, atomically; the rows may be made while they are written."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors=ODD) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8", errors=ODD))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"Can't read {path}: {one_line(error)}.") from error


def one_line(error: BaseException) -> str:
    """What an exception says, on one line, without a full stop at its end."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (" ".join(said.split()) or type(error).__name__).rstrip(".")


def write_tensors(path: str | Path, arrays: Arrays, metadata: dict[str, Any]) -> None:
    """Arrays by name, and JSON-able metadata, as one safetensors file, atomically."""
    # Not by safetensors: it would hold every array twice, and leave a temporary file of its own behind a kill.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))  # so that all lie aligned
    header: dict[str, Any] = {"__metadata__": {key: json.dumps(value) for key, value in metadata.items()}}
    end = 0
    for name in order:
        begin, end = end, end + arrays[name].nbytes
        kind = _KINDS[arrays[name].dtype.newbyteorder("=").name]
        header[name] = {"dtype": kind, "shape": list(arrays[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            plain = np.ascontiguousarray(arrays[name], arrays[name].dtype.newbyteorder("<"))
            file.write(plain.reshape(-1).view(np.uint8).data)


# What the format calls the types: https://github.com/huggingface/safetensors, "Format".
_KINDS = {"bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32"}
_KINDS |= {"int32": "I32", "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64"}


def read_tensors(path: str | Path, but: Iterable[str] = ()) -> tuple[Arrays, dict[str, Any]]:
    """The arrays, all `but` some, and the metadata of a safetensors file; metadata that is plain text stays text."""
    left_out = set(but)
    with _opened(path) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys() if name not in left_out}  # noqa: SIM118 - no dict
        raw = file.metadata() or {}
    return arrays, {key: _json_or_text(text) for key, text in raw.items()}


def read_rows(paths: Sequence[str | Path], name: str, share: Callable[[int], tuple[int, int]]) -> np.ndarray:
    """Some rows of an array whose rows lie in several safetensors files, in their order; nothing else is read.

    share: the number of rows in all -> (first, last), the rows wanted.
    """
    counts = []
    for path in paths:
        with _opened(path) as file:
            counts.append(file.get_slice(name).get_shape()[0])
    first, last = share(sum(counts))
    found, begin = [], 0
    for path, count in zip(paths, counts, strict=True):
        low, high = max(first - begin, 0), min(last - begin, count)
        if low < high:
            with _opened(path) as file:
                found.append(file.get_slice(name)[low:high])
        begin += count
    return np.concatenate(found) if len(found) > 1 else found[0]


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """A safetensors file, opened for reading; a UserError where it can't be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise UserError(f"Can't read the weights {path}: {one_line(error)}.") from error


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Only the metadata of a safetensors file: no tensor is read."""
    with _opened(path) as file:
        raw = file.metadata() or {}
    return {key: _json_or_text(text) for key, text in raw.items()}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # numbers of thousands of digits and lists in lists without end, too
        return text


# ---- .pdparams, which are pickles


class _Array:
    """What an array of a pickle becomes until it is whole; NumPy's own way back from a pickle can be made to read wild
    memory (a dtype of pickled flags, an array of objects over given bytes), so none of it is called."""

    __slots__ = ("array",)

    def __init__(self, raw: Any = b"", dtype: Any = None, shape: Any = (0,), order: str = "C") -> None:
        if isinstance(raw, str):  # bytes written by Python 2
            raw = raw.encode("latin1")
        if not isinstance(raw, (bytes, bytearray)):
            raise pickle.UnpicklingError(f"it holds an array made of {type(raw).__name__}, not of bytes")
        if any(side < 0 for side in shape):
            raise pickle.UnpicklingError(f"it holds an array of shape {shape}")
        plain = dtype.dtype if isinstance(dtype, _Dtype) else np.dtype("u1")
        self.array = np.frombuffer(bytes(raw), plain).reshape(shape, order="F" if order == "F" else "C")

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.__init__(raw, dtype, shape, "F" if fortran else "C")  # type: ignore[misc]


class _Dtype:
    """A dtype of a pickle: plain numbers and booleans only."""

    __slots__ = ("dtype",)

    def __init__(self, kind: Any) -> None:
        if not (isinstance(kind, str) and re.fullmatch(r"[<>=|]?(b1|[iu][1248]|f[248])", kind)):
            raise pickle.UnpicklingError(f"it holds an array of {str(kind)[:20]!r}, not of numbers")
        self.dtype = np.dtype(kind)

    def __setstate__(self, state: Any) -> None:
        if state[1] in (">", "<"):  # of the rest nothing matters to plain numbers
            self.dtype = self.dtype.newbyteorder(state[1])


class Maker(NamedTuple):
    """A function that a pickle may call. Not the function itself: a pickle can write into the attributes of one."""

    make: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.make(*arguments)


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that makes containers and arrays by this module's own code, and refuses to look up anything else.

    What it hands out are tuples (`Maker`): a pickle may also set attributes, and tuples have none.
    """

    def find_class(self, module: str, name: str) -> Any:
        found = {
            "tuple": self._tuple,
            "bytes": self._bytes,
            "encode": self._bytes,
            "OrderedDict": self._dict,
            "ndarray": None,  # only ever an argument of _reconstruct
            "dtype": self._dtype,
            "scalar": self._scalar,
            "_reconstruct": self._reconstruct,
            "_frombuffer": self._frombuffer,
        }
        if name not in _KNOWN.get(module.replace("numpy._core", "numpy.core"), ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a tensor")
        make = found[name]
        return None if make is None else Maker(make)

    def _tuple(self, items: Any = ()) -> tuple[Any, ...]:
        return tuple(items)

    def _bytes(self, text: str = "", encoding: str = "latin1") -> bytes:
        return text.encode("latin1")  # how protocol 2 writes bytes

    def _dict(self, items: Any = ()) -> dict[Any, Any]:
        return dict(items)

    def _dtype(self, kind: Any, *flags: Any) -> _Dtype:
        return _Dtype(kind)

    def _scalar(self, dtype: _Dtype, raw: Any) -> _Array:
        return _Array(raw, dtype, ())

    def _reconstruct(self, *nothing: Any) -> _Array:
        return _Array()

    def _frombuffer(self, raw: Any, dtype: _Dtype, shape: Any, order: str) -> _Array:
        return _Array(raw, dtype, shape, order)


_KNOWN = {
    "builtins": ("tuple", "bytes"),
    "__builtin__": ("tuple", "bytes"),
    "collections": ("OrderedDict",),
    "_codecs": ("encode",),
    "numpy": ("ndarray", "dtype"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
}


def read_pdparams(path: str | Path) -> Arrays:
    """The arrays of a Paddle `.pdparams` file, which is a pickle, without running any code that it may hold.

    bfloat16, which Paddle keeps as uint16, becomes float32.
    """
    try:
        with open(path, "rb") as file:
            content = _ArraysOnly(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(f"Can't read the weights {path}: {one_line(error)}.") from error
    if not isinstance(content, dict):
        raise UserError(f"Can't read the weights {path}: it holds a {type(content).__name__}, not tensors by name.")
    arrays: Arrays = {}
    for name, value in content.items():
        if isinstance(value, tuple) and len(value) == 2:  # Paddle 2 pickles a tensor as (name, array)
            value = value[1]
        if isinstance(name, str) and isinstance(value, _Array):
            arrays[name] = _plain(value.array)
    if not arrays:
        raise UserError(f"Can't read the weights {path}: it holds no tensors.")
    return arrays


def _plain(array: np.ndarray) -> np.ndarray:
    """The same in this machine's byte order, and its own memory."""
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(array.dtype.newbyteorder("="))
