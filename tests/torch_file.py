"""Writes what torch.save writes, without torch: its zip archive and its older row of pickles."""

import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {
    "f4": "Float",
    "f8": "Double",
    "f2": "Half",
    "i8": "Long",
    "i4": "Int",
    "i2": "Short",
    "i1": "Char",
    "u1": "Byte",
}


class Global:
    """Pickles as the name of something in a module."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """Pickles as a call of a Global."""

    def __init__(self, what: Global, *arguments: Any) -> None:
        self.what, self.arguments = what, arguments


class Storage:
    """Numbers with a key; `says` may lie about how many they are."""

    def __init__(self, key: str, numbers: np.ndarray, kind: str | None = None, says: int | None = None) -> None:
        self.key, self.numbers = key, numbers
        self.kind = kind or ("Bool" if numbers.dtype == bool else KINDS[numbers.dtype.str[1:]])
        self.says = len(numbers) if says is None else says


class Raw:
    """Opcodes as they are."""

    def __init__(self, code: bytes) -> None:
        self.code = code


def tensor(storage: Storage, offset: Any, shape: Any, strides: Any, parameter: bool = False) -> Call:
    made = Call(Global("torch._utils", "_rebuild_tensor_v2"), storage, offset, shape, strides, False, OrderedDict())
    return Call(Global("torch._utils", "_rebuild_parameter"), made, True, OrderedDict()) if parameter else made


def tensor_of(array: np.ndarray, key: str, parameter: bool = False) -> Call:
    """A contiguous tensor with a storage of its own."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return tensor(Storage(key, array.reshape(-1)), 0, array.shape, strides, parameter)


def state_dict(arrays: dict[str, np.ndarray], parameter: bool = False) -> OrderedDict:
    return OrderedDict((name, tensor_of(a, str(i), parameter)) for i, (name, a) in enumerate(arrays.items()))


def encode(value: Any, storages: dict[str, Storage], legacy: bool = False) -> bytes:
    """Opcodes of protocol 2 for the value; storages become persistent ids and are collected."""
    put = lambda part: encode(part, storages, legacy)  # noqa: E731
    if isinstance(value, Raw):
        return value.code
    if isinstance(value, Global):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        return put(value.what) + b"(" + b"".join(map(put, value.arguments)) + b"tR"
    if isinstance(value, Storage):
        storages[value.key] = value
        view = (None,) if legacy else ()
        return put(("storage", Global("torch", f"{value.kind}Storage"), value.key, "cpu", value.says, *view)) + b"Q"
    if isinstance(value, OrderedDict):
        made = b"ccollections\nOrderedDict\n)R("
        state = b"}(" + put("_metadata") + b"ccollections\nOrderedDict\n)Rub"  # as a state dict of torch has it
        return made + b"".join(put(k) + put(v) for k, v in value.items()) + b"u" + state
    if isinstance(value, dict):
        return b"}(" + b"".join(put(k) + put(v) for k, v in value.items()) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(put, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(put, value)) + b"e"
    return pickle.dumps(value, 2)[2:-1]


def write_zip(path: Path, content: Any, order: str = "<", **change: Any) -> None:
    """The archive of torch >= 1.6. `change`: compression, extra (entries), drop (keys of storages left out)."""
    storages: dict[str, Storage] = {}
    code = b"\x80\x02" + encode(content, storages) + b"."
    with zipfile.ZipFile(path, "w", change.get("compression", zipfile.ZIP_STORED)) as archive:
        archive.writestr("weights/data.pkl", code)
        archive.writestr("weights/byteorder", "little" if order == "<" else "big")
        for key, storage in storages.items():
            if key not in change.get("drop", ()):
                archive.writestr(f"weights/data/{key}", _bytes(storage, order))
        archive.writestr("weights/version", "3\n")
        for name, data in change.get("extra", {}).items():
            archive.writestr(name, data)


def write_pickles(path: Path, content: Any, order: str = "<") -> None:
    """The row of pickles of torch < 1.6."""
    storages: dict[str, Storage] = {}
    code = b"\x80\x02" + encode(content, storages, legacy=True) + b"."
    machine = {"protocol_version": 1001, "little_endian": order == "<", "type_sizes": {"short": 2}}
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, machine))
    path.write_bytes(
        head
        + code
        + pickle.dumps(sorted(storages), 2)
        + b"".join(
            struct.pack(f"{order}q", len(storages[key].numbers)) + _bytes(storages[key], order)
            for key in sorted(storages)
        )
    )


def _bytes(storage: Storage, order: str) -> bytes:
    return storage.numbers.astype(storage.numbers.dtype.newbyteorder(order)).tobytes()


WRITERS = {"zip": write_zip, "pickles": write_pickles}
