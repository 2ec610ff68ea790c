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

from metric_learning import checksums
from metric_learning.checks import UserError

Arrays = dict[str, np.ndarray]
LONGEST = 500  # letters of what is said of an error
ODD = "surrogateescape"  # names of files that are no text come and go unharmed


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary neighbour of `path` to write to; it replaces `path` when the block ends, and goes if the block fails.

    A reader, or a run that was killed, sees the old file or the new one; so does who starts the machine again that lost
    its power, and once the block has ended the new one. What the disk refuses is a UserError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        make_folder(path.parent)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Can't write {path}: {reason}. Free some space or name another place to write to.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """The folder and those above it, on the disk. OSError where that is refused."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder: new files, and those that took the place of others."""
    with contextlib.suppress(OSError):  # Windows opens no folders, and some file systems of a network can't wait
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def clear_parts(folder: Path) -> None:
    """Remove what processes left that were killed while they wrote into the folder."""
    for rest in folder.glob(".*.part"):
        process = rest.name.split(".")[-2]
        if process == str(os.getpid()) or not Path("/proc", process).exists():
            rest.unlink(missing_ok=True)


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
    kinds = {name: _KINDS[arrays[name].dtype.newbyteorder("=").name] for name in order}
    layout = {name: (kinds[name], list(arrays[name].shape)) for name in order}
    about = checksums.with_sums({key: json.dumps(value) for key, value in metadata.items()}, layout, arrays)
    header: dict[str, Any] = {"__metadata__": about}
    end = 0
    for name, (kind, shape) in layout.items():
        begin, end = end, end + arrays[name].nbytes
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
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
    """The arrays, all `but` some, and the metadata of a safetensors file; metadata that is plain text stays text.

    A UserError where the file is not as `write_tensors` wrote it.
    """
    left_out = set(but)
    with _opened(path) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys() if name not in left_out}  # noqa: SIM118 - no dict
        return arrays, _metadata(file, path, arrays)


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
        return _metadata(file, path, {})


def _metadata(file: Any, path: str | Path, arrays: Arrays) -> dict[str, Any]:
    """The metadata of an opened file; a UserError where that, or one of the arrays read from it, is damaged."""
    raw = file.metadata() or {}
    if checksums.NAME in raw:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no dict
        layout = {name: (part.get_dtype(), list(part.get_shape())) for name, part in parts.items()}
        if found := checksums.damaged(raw, layout, arrays):
            raise UserError(f"{path} is damaged: {found} is not as it was written. Take another file.")
    return {key: _json_or_text(text) for key, text in raw.items() if key != checksums.NAME}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # numbers of thousands of digits and lists in lists without end, too
        return text
