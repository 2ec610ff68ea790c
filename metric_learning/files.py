"""Files that are never half-written, and weights that can't run code."""

import contextlib
import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from metric_learning.checks import UserError

Arrays = dict[str, np.ndarray]


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
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | Path, value: Any) -> None:
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"Can't read {path}: {one_line(error)}.") from error


def one_line(error: BaseException) -> str:
    """What an exception says, on one line, without a full stop at its end."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (" ".join(said.split()) or type(error).__name__).rstrip(".")


def write_tensors(path: str | Path, arrays: Arrays, metadata: dict[str, Any]) -> None:
    """Arrays by name, and JSON-able metadata, as one safetensors file, atomically."""
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(contiguous, temporary, {key: json.dumps(value) for key, value in metadata.items()})
        except SafetensorError as error:  # it wraps what the disk says
            raise OSError(one_line(error)) from error


def read_tensors(path: str | Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the metadata of a safetensors file; metadata that others wrote as plain text stays text."""
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            raw = file.metadata() or {}
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise UserError(f"Can't read the weights {path}: {one_line(error)}.") from error
    return arrays, {key: _json_or_text(text) for key, text in raw.items()}


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Only the metadata of a safetensors file: no tensor is read."""
    try:
        with safe_open(path, framework="numpy") as file:
            raw = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"Can't read the weights {path}: {one_line(error)}.") from error
    return {key: _json_or_text(text) for key, text in raw.items()}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


_ALLOWED = {
    ("builtins", "tuple"): tuple,
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
_NUMPY_PARTS = {"_reconstruct", "_frombuffer", "scalar"}
_NUMPY_MODULES = {"numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric"}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that makes containers and NumPy arrays, and refuses to look up anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module in _NUMPY_MODULES and name in _NUMPY_PARTS:
            current = module.replace("numpy.core", "numpy._core")
            return getattr(__import__(current, fromlist=[name]), name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a tensor")


def read_pdparams(path: str | Path) -> Arrays:
    """The arrays of a Paddle `.pdparams` file, which is a pickle, without running any code that it may hold."""
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
        if isinstance(name, str) and isinstance(value, np.ndarray):
            arrays[name] = value
    if not arrays:
        raise UserError(f"Can't read the weights {path}: it holds no tensors.")
    return arrays
