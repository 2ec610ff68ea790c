"""Tensors from PyTorch's files without PyTorch, and without running what a stranger may have put into them.

Both layouts of torch.save: the zip archive (since 1.6) and the pickles one behind the other (before). Their pickles go
through pickles.py, which knows plain containers; here are tensors, parameters and storages. All else is refused.
"""

import contextlib
import io
import math
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from metric_learning.checks import UserError
from metric_learning.files import Arrays, one_line
from metric_learning.pickles import Built, Maker, load

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
NESTED = ("state_dict", "state_dict_backbone", "model_state_dict", "model", "net", "backbone", "module", "network")

_MAGIC = 0x1950A86A20F9469CFC6C  # what the older layout begins with, as a pickled number
_STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_REMEDY = "Where it can be trusted, save its tensors alone: torch.save(model.state_dict(), 'weights.pt')"


def read_torch(path: str | Path) -> Arrays:
    """The tensors by name of a state dict that torch.save wrote, also one level or two below `state_dict`, `model`, ...

    Views on the file's storages, so not to be written to; bfloat16 becomes float32. Raises UserError for all else.
    """
    try:
        with open(path, "rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            content, storages = _read_zip(file) if zipped else _read_pickles(file)
        arrays = {name: storages.view(tensor) for name, tensor in _state_dict(content).items()}
    except Exception as error:  # a damaged file raises nearly anything
        raise UserError(f"Can't read the weights {path}: {one_line(error)}.") from error
    return arrays


# ---- what the pickles may hold


class _Kind(NamedTuple):
    """The type of a storage: a NumPy dtype without byte order, or bfloat16."""

    dtype: str


class _Storage(NamedTuple):
    key: str
    kind: _Kind
    numbers: int
    start: int = 0  # of a view on a storage, in the older layout


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Dict(dict[Any, Any], Built):
    """An OrderedDict of a pickle; a state dict carries attributes (the versions of its layers), which are dropped."""

    def build(self, state: Any) -> None:
        pass


def _find(module: str, name: str) -> Any:
    if module == "torch" and name in _STORAGES:
        return _Kind(_STORAGES[name])
    if (module, name) not in _KNOWN:
        raise pickle.UnpicklingError(f"it asks for {module[:80]}.{name[:80]}, which is not a tensor. {_REMEDY}")
    return _KNOWN[module, name]


def _refer(name: Any) -> _Storage:
    """The storage of a persistent id."""
    if isinstance(name, tuple) and name and name[0] == "module":
        raise pickle.UnpicklingError(f"it holds a whole module, which only its own code can read. {_REMEDY}")
    if not (isinstance(name, tuple) and len(name) in (5, 6) and name[0] == "storage" and isinstance(name[1], _Kind)):
        raise pickle.UnpicklingError("it refers to something that is no storage of a tensor")
    _, kind, key, _, count, *view = name
    _check_counts("a storage", (count,))
    if not isinstance(key, str):
        raise pickle.UnpicklingError("a storage has no name")
    if view and view[0] is not None:
        _, start, size = view[0]
        _check_counts("a view on a storage", (start, size))
        if start + size > count:
            raise pickle.UnpicklingError(f"a view reaches beyond the {count} numbers of its storage")
        return _Storage(key, kind, count, start)
    return _Storage(key, kind, count)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    if not (isinstance(storage, _Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise pickle.UnpicklingError("a tensor lacks its storage, shape or strides")
    _check_counts("a tensor", (offset, *shape, *strides))
    if len(shape) != len(strides):
        raise pickle.UnpicklingError(f"a tensor has {len(shape)} sides and {len(strides)} strides")
    return _Tensor(storage, offset, shape, strides)


def _parameter(tensor: Any, *rest: Any) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise pickle.UnpicklingError(f"a parameter is made of {type(tensor).__name__}, not of a tensor")
    return tensor


def _dict(items: Any = ()) -> _Dict:
    return _Dict({key: value for key, value in items if isinstance(key, str)})


_KNOWN = {
    ("torch._utils", "_rebuild_tensor_v2"): Maker(_tensor),
    ("torch._utils", "_rebuild_parameter"): Maker(_parameter),
    ("collections", "OrderedDict"): Maker(_dict),
}


def _check_counts(what: str, values: tuple[Any, ...]) -> None:
    if not all(type(value) is int and 0 <= value < 2**48 for value in values):
        raise pickle.UnpicklingError(f"{what} has a size, an offset or a stride that can't be")


def _unpickle(stream: io.BytesIO) -> Any:
    return load(stream, _find, _refer)


# ---- the two layouts


class _Storages:
    """Raw numbers by the storage's name, each read once."""

    def __init__(self, raw: dict[str, bytes], little: bool) -> None:
        self._raw, self._little = raw, little
        self._numbers: dict[tuple[str, str], np.ndarray] = {}

    def view(self, tensor: _Tensor) -> np.ndarray:
        """The tensor as a view on its storage, once it is known to lie inside."""
        numbers, (storage, offset, shape, strides) = self._storage(tensor.storage), tensor
        if 0 in shape:
            return np.zeros(shape, numbers.dtype)
        first = storage.start + offset
        last = first + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
        if last >= len(numbers) or math.prod(shape) > len(numbers):
            raise ValueError(f"a tensor of {list(shape)} reaches beyond the {len(numbers)} numbers of its storage")
        steps = [stride * numbers.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(numbers[first:], shape, steps, writeable=False)

    def _storage(self, storage: _Storage) -> np.ndarray:
        kind = storage.kind.dtype
        if (storage.key, kind) not in self._numbers:
            if storage.key not in self._raw:
                raise ValueError(f"the storage {storage.key[:40]!r} is missing")
            raw, order = self._raw[storage.key], "<" if self._little else ">"
            dtype = np.dtype(order + ("u2" if kind == "bfloat16" else kind))
            if len(raw) != storage.numbers * dtype.itemsize:
                raise ValueError(
                    f"the storage {storage.key[:40]!r} has {len(raw)} bytes, not {storage.numbers * dtype.itemsize}"
                )
            numbers = np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="), copy=False)
            if kind == "bfloat16":
                numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
            self._numbers[storage.key, kind] = numbers
        return self._numbers[storage.key, kind]


def _read_zip(file: BinaryIO) -> tuple[Any, _Storages]:
    """name/data.pkl, name/byteorder, name/data/<storage>: never compressed, so that no file grows while it is read."""
    with zipfile.ZipFile(file) as archive:
        names = {item.filename for item in archive.infolist()}
        pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is a zip file, but torch.save did not write it (no data.pkl)")
        root = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{root}code/") for name in names):
            raise ValueError(f"it is a TorchScript program, not tensors. {_REMEDY}")
        size = file.seek(0, io.SEEK_END)
        if any(item.compress_type or item.file_size != item.compress_size for item in archive.infolist()):
            raise ValueError("parts of it are compressed, which torch.save never does")
        if sum(item.file_size for item in archive.infolist()) > size:
            raise ValueError("its parts say that they are larger than the whole")
        content = _unpickle(io.BytesIO(archive.read(pickles[0])))
        below = f"{root}data/"
        raw = {name.removeprefix(below): archive.read(name) for name in names if name.startswith(below)}
        little = f"{root}byteorder" not in names or archive.read(f"{root}byteorder").strip() != b"big"
    return content, _Storages(raw, little)


def _read_pickles(file: BinaryIO) -> tuple[Any, _Storages]:
    """Pickles of a magic number, a version, the machine, the content and the storages' names; then their numbers."""
    stream = io.BytesIO(file.read())
    try:
        known = _unpickle(stream) == _MAGIC
    except Exception as error:
        if "is not a tensor" in str(error):
            raise
        known = False
    if not known:
        raise ValueError("it is no file of torch.save")
    _unpickle(stream)
    machine = _unpickle(stream)
    content, keys = _unpickle(stream), _unpickle(stream)
    little = not isinstance(machine, dict) or machine.get("little_endian", True) is not False
    sizes = {storage.key: _itemsize(storage.kind) for storage in _storages_in(content)}
    raw = {}
    for key in keys:
        if not isinstance(key, str):
            raise ValueError("a storage has no name")
        head = stream.read(8)
        wanted = int.from_bytes(head, "little" if little else "big") * sizes.get(key, 1)
        raw[key] = stream.read(wanted)
        if len(head) < 8 or len(raw[key]) != wanted:
            raise ValueError("it ends in the middle of its numbers")
    return content, _Storages(raw, little)


def _itemsize(kind: _Kind) -> int:
    return 2 if kind.dtype == "bfloat16" else np.dtype(kind.dtype).itemsize


def _storages_in(content: Any) -> Iterator[_Storage]:
    """Every storage that is referred to, however deep (an optimizer's too: its numbers lie between the others)."""
    seen, waiting = set(), [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, _Tensor):
            yield value.storage
        elif isinstance(value, _Storage):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)


def _state_dict(content: Any, depth: int = 3) -> dict[str, _Tensor]:
    """Tensors by name: of the dictionary below a usual name, else of the one itself."""
    if isinstance(content, _Tensor) or not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__.strip('_').lower()}, not tensors by name")
    below = (content[name] for name in NESTED if isinstance(content.get(name), dict) and depth)
    for inner in below:  # first, as a tensor may lie beside it: the best accuracy so far, say
        with contextlib.suppress(ValueError):
            return _state_dict(inner, depth - 1)
    found = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, _Tensor)}
    if found:
        return found
    held = ", ".join(str(name)[:30] for name in list(content)[:5])
    raise ValueError(f"it holds no tensors by name, only {held or 'nothing'}")
