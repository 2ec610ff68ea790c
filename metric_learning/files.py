"""Files that are never half-written, and tensors in files that can't run code."""

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from metric_learning.checks import UserError

Arrays = dict[str, np.ndarray]
LONGEST = 500  # letters of what is said of an error
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
    """What an exception says, on one line, without a full stop at its end; libraries may say pages of a broken file."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = (" ".join(said.split()) or type(error).__name__).rstrip(".")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


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
    except (OSError, SafetensorError, TypeError, ValueError, LookupError, AttributeError) as error:
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
