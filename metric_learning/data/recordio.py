"""InsightFace's training sets: pictures packed in one MXNet RecordIO file, `train.rec`, read at random.

A file is a row of records: magic 0xced7230a, a word of 3 bits kind and 29 bits length, that many bytes, zeros up to a
multiple of 4. Kind 0 is a whole record; where its content holds the magic at a multiple of 4 it is split there, the
magic left out, into parts of kind 1 (first), 2 and 3 (last); see dmlc-core's recordio.h. The content is a header (flag
uint32, label float32, id uint64, id2 uint64), with flag > 0 that many float32 labels, and an encoded picture; see
mxnet.recordio.pack. All words are little-endian. A picture is named `train.rec#<byte where its record begins>`.
"""

import functools
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metric_learning.data.names import Compact, Rows

MAGIC = 0xCED7230A
HEADER = 24  # bytes of flag, label, id, id2
USUAL = 1 << 14  # bytes that most records fit into
_NAME = re.compile(r"(.*\.rec)#(\d{1,18})", re.IGNORECASE | re.DOTALL)

Numbers = NDArray[np.int64]


class RecordPaths(Compact[str]):
    """The names of N records of one file, by the bytes where they begin, (N,) int64."""

    def __init__(self, file: str, places: Numbers) -> None:
        self.file, self.places = file, places

    def __len__(self) -> int:
        return len(self.places)

    def _item(self, index: int) -> str:
        return f"{self.file}#{self.places[index]}"

    def take(self, rows: Rows) -> "RecordPaths":
        return RecordPaths(self.file, self.places[rows])

    def followed_by(self, others: Sequence[Sequence[str]]) -> "RecordPaths | None":
        parts = [other.places for other in others if isinstance(other, RecordPaths) and other.file == self.file]
        return RecordPaths(self.file, np.concatenate([self.places, *parts])) if len(parts) == len(others) else None


def is_record(path: str | Path) -> bool:
    """Whether `path` names a record in a file: `<file>.rec#<byte>`."""
    return _NAME.fullmatch(str(path)) is not None


def file_of(path: str | Path) -> str:
    """The file that holds the picture: itself, or that of its record."""
    match = _NAME.fullmatch(str(path))
    return match[1] if match else str(path)


def read_encoded(path: str | Path) -> bytes:
    """The encoded picture of the record that `path` names; ValueError where there is no whole record.

    Any number of threads may read at once: a read moves no place in the file, and others go on while it waits.
    """
    match = _NAME.fullmatch(str(path))
    if match is None:
        raise ValueError("not the name of a record, which is <file>.rec#<byte>")
    content = content_of(opened(match[1]), int(match[2]))
    return content[picture_start(content) :]


# ---- one record


class _File:
    """A file that is open for reading, and is closed when no thread uses it any more."""

    def __init__(self, number: int, size: int) -> None:
        self._number, self.size = number, size

    def __del__(self) -> None:
        os.close(self._number)

    def read(self, place: int, count: int) -> bytes:
        return os.pread(self._number, count, place)


@functools.lru_cache(maxsize=8)
def _open(path: str, size: int, changed: int) -> _File:
    return _File(os.open(path, os.O_RDONLY), size)


def opened(path: str) -> _File:
    """The file, opened anew once it has changed. Not a memory map: a fault of one would hold up all other threads."""
    status = os.stat(path)
    if status.st_size < 8:
        raise ValueError("not a RecordIO file")
    return _open(path, status.st_size, status.st_mtime_ns)


def content_of(file: _File, place: int) -> bytes:
    """The bytes of the record that begins at `place`, its parts put together again."""
    parts: list[bytes] = []
    wanted = (0, 1)
    while True:
        begun = file.read(place, USUAL)
        kind, start, stop = part_at(begun[:8], place, file.size)
        if kind not in wanted:
            raise ValueError(f"byte {place} is not the {'next part' if parts else 'beginning'} of a record")
        part = begun[8 : stop - place]
        if len(part) < stop - start:
            part += file.read(start + len(part), stop - start - len(part))
        if len(part) < stop - start:
            raise ValueError(f"the record at byte {place} is cut off: the file has become shorter")
        parts.append(part)
        if kind in (0, 3):
            return struct.pack("<I", MAGIC).join(parts)
        place, wanted = (stop + 3) // 4 * 4, (2, 3)


def part_at(head: bytes | memoryview, place: int, size: int) -> tuple[int, int, int]:
    """(kind, where the bytes start, where they stop) of the part of a record at `place`, by its first 8 bytes."""
    if len(head) < 8:
        raise ValueError(f"no record at byte {place}: the file ends at {size}")
    magic, word = struct.unpack("<II", head)
    start, stop = place + 8, place + 8 + (word & 0x1FFFFFFF)
    if magic != MAGIC:
        raise ValueError(f"no record begins at byte {place}")
    if stop > size:
        raise ValueError(f"the record at byte {place} is cut off: the file ends at {size}")
    return word >> 29, start, stop


def picture_start(content: bytes) -> int:
    """Where the picture begins in a record's content: behind the header and its labels."""
    flag = int.from_bytes(content[:4], "little")
    if HEADER + 4 * flag > len(content):
        raise ValueError(f"a record of {len(content)} bytes is too short for its header")
    return HEADER + 4 * flag
