"""Pictures that are equal byte for byte in two lists: one of the test that was trained on is remembered, not known."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from metric_learning.data.names import BLOCK, taken
from metric_learning.data.pictures import encoded
from metric_learning.data.record_lists import last_bytes, sizes_of
from metric_learning.data.recordio import RecordPaths

END = 24  # bytes: the last 16 of all PNGs and the last 2 of all JPEGs are the same

Numbers = NDArray[np.int64]


def duplicates(first: Sequence[str], second: Sequence[str]) -> list[tuple[str, str]]:
    """(path in `first`, path in `second`) for each picture of `second` that has an equal in `first`: the earliest one.

    Of files only those are opened whose size occurs in both lists, and only those are read whole whose last bytes do
    too. What cannot be read is passed over, as are records of a RecordIO file that are split.
    """
    first, second = _shared(first, second, _sizes(first), _sizes(second))
    first, second = _shared(first, second, _ends(first), _ends(second))
    originals: dict[bytes, str] = {}
    for path, content in _digests(first):
        originals.setdefault(content, path)
    pairs = [(originals[content], path) for path, content in _digests(second) if content in originals]
    return list(dict.fromkeys(pairs))


def _shared(
    first: Sequence[str], second: Sequence[str], one: Numbers, other: Numbers
) -> tuple[Sequence[str], Sequence[str]]:
    """The pictures of two lists whose numbers, one (N,) and other (M,), are in both; below 0 it can't be read."""
    kept = (one >= 0) & np.isin(one, other), (other >= 0) & np.isin(other, one)
    return taken(first, np.flatnonzero(kept[0])), taken(second, np.flatnonzero(kept[1]))


def _sizes(paths: Sequence[str]) -> Numbers:
    """The bytes of each picture (N,); -1: none."""
    if isinstance(paths, RecordPaths):
        return sizes_of(paths)
    return np.fromiter(map(_size, paths), np.int64, len(paths))


def _size(path: str) -> int:
    try:
        status = os.stat(path)
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _ends(paths: Sequence[str]) -> Numbers:
    """A number of 0 or more for the last bytes of each picture (N,)."""
    found = np.empty(len(paths), np.int64)
    for begin in range(0, len(paths), BLOCK):
        block = paths[begin : begin + BLOCK]
        ends = last_bytes(block, END) if isinstance(block, RecordPaths) else _last_bytes(block)
        words = ends.view("<u8") * np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
        found[begin : begin + BLOCK] = (words.sum(axis=1, dtype=np.uint64) >> np.uint64(1)).view(np.int64)
    return found


def _last_bytes(paths: Sequence[str]) -> NDArray[np.uint8]:
    """The last END bytes of each file (N, END), zeros before shorter ones; what can't be read is found later on."""
    ends = bytearray()
    for path in paths:
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - END))
                ends += file.read(END).rjust(END, b"\0")
        except OSError:
            ends += bytes(END)
    return np.frombuffer(ends, np.uint8).reshape(-1, END)


def _digests(paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        try:
            yield path, hashlib.blake2b(encoded(path), digest_size=16).digest()
        except (OSError, ValueError):
            continue
