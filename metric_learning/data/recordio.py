"""InsightFace's training sets: pictures packed in one MXNet RecordIO file, `train.rec`, read at random by memory map.

A file is a row of records: magic 0xced7230a, a word of 3 bits kind and 29 bits length, that many bytes, zeros up to a
multiple of 4. Kind 0 is a whole record; where its content holds the magic at a multiple of 4 it is split there, the
magic left out, into parts of kind 1 (first), 2 and 3 (last); see dmlc-core's recordio.h. The content is a header (flag
uint32, label float32, id uint64, id2 uint64), with flag > 0 that many float32 labels, and an encoded picture; see
mxnet.recordio.pack. All words are little-endian. A picture is named `train.rec#<byte where its record begins>`.
"""

import functools
import mmap
import os
import re
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.data.lists import Parts, Sample

MAGIC = 0xCED7230A
HEADER = 24  # bytes of flag, label, id, id2
CHUNK = 1 << 16
TRAIN = "train.rec"
_NAME = re.compile(r"(.*\.rec)#(\d{1,18})", re.IGNORECASE | re.DOTALL)

Words = NDArray[np.uint32]
Numbers = NDArray[np.int64]


def is_record(path: str | Path) -> bool:
    """Whether `path` names a record in a file: `<file>.rec#<byte>`."""
    return _NAME.fullmatch(str(path)) is not None


def read_encoded(path: str | Path) -> bytes:
    """The encoded picture of the record that `path` names, a copy; ValueError where there is no whole record."""
    match = _NAME.fullmatch(str(path))
    if match is None:
        raise ValueError("not the name of a record, which is <file>.rec#<byte>")
    content = _content(_map(match[1]), int(match[2]))
    return content[_picture_start(content) :]


def read_recordio(root: Path) -> Parts:
    """The pictures of `root`, a .rec file or a folder with train.rec, in the order of their indices; all one part.

    The class is the whole number in the record's label (the first of several). Records of two labels or more without a
    picture are InsightFace's notes (index 0, and one record an identity) and are passed over. Only headers are read.
    Raises UserError where the file is cut off or is something else.
    """
    path = _find(root)
    words = _words(path)
    index = path.with_suffix(".idx")
    keys, places = read_index(index) if index.is_file() else _scan(path)
    labels, flags, empty = _headers(words, places, path)
    first, last = _identity_keys(path, keys, places, (flags > 1) & empty)
    notes = (flags > 1) & (empty | ((keys >= first) & (keys < last)))
    names = {value: _class_name(value, path) for value in np.unique(labels[~notes]).tolist()}
    kept = zip(places[~notes].tolist(), labels[~notes].tolist(), strict=True)
    samples = [Sample(f"{path}#{place}", names[label]) for place, label in kept]
    if not samples:
        raise UserError(f"{path} holds no pictures.")
    return {"all": samples}


def read_index(path: Path) -> tuple[Numbers, Numbers]:
    """`<key> <byte>` rows -> keys and bytes (N,), (N,) int64, sorted by key; a UserError where the file is not that."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # what NumPy says of text that is no number
            table = np.fromstring(text.decode("ascii"), dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        table = np.zeros(1, np.int64)
    if len(table) == 0 or len(table) % 2 or len(table) // 2 != sum(1 for line in text.split(b"\n") if line.strip()):
        raise UserError(
            f"{path} is not the index of a RecordIO file (rows of two whole numbers); "
            "without it the records are looked for one after the other: move it away."
        )
    keys, places = table[0::2], table[1::2]
    order = np.argsort(keys, kind="stable")
    keys, places = keys[order], places[order]
    if (keys[1:] == keys[:-1]).any():
        raise UserError(f"{path}: the key {keys[1:][keys[1:] == keys[:-1]][0]} is there twice; move the index away.")
    return keys, places


# ---- one record


@functools.lru_cache(maxsize=8)
def _open(path: str, size: int, changed: int) -> memoryview:
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _map(path: str) -> memoryview:
    """The file's bytes; mapped anew once it has changed, so that no one reads beyond its end, which would kill us."""
    status = os.stat(path)
    if status.st_size < 8:
        raise ValueError("not a RecordIO file")
    return _open(path, status.st_size, status.st_mtime_ns)


def _content(data: memoryview, place: int) -> bytes:
    """The bytes of the record that begins at `place`, its parts put together again."""
    parts: list[bytes] = []
    wanted = (0, 1)
    while True:
        kind, start, stop = _part(data, place)
        if kind not in wanted:
            raise ValueError(f"byte {place} is not the {'next part' if parts else 'beginning'} of a record")
        parts.append(bytes(data[start:stop]))
        if kind in (0, 3):
            return struct.pack("<I", MAGIC).join(parts)
        place, wanted = (stop + 3) // 4 * 4, (2, 3)


def _part(data: memoryview, place: int) -> tuple[int, int, int]:
    """(kind, where the bytes start, where they stop) of the part of a record at `place`."""
    if place + 8 > len(data):
        raise ValueError(f"no record at byte {place}: the file ends at {len(data)}")
    magic, word = struct.unpack_from("<II", data, place)
    start, stop = place + 8, place + 8 + (word & 0x1FFFFFFF)
    if magic != MAGIC:
        raise ValueError(f"no record begins at byte {place}")
    if stop > len(data):
        raise ValueError(f"the record at byte {place} is cut off: the file ends at {len(data)}")
    return word >> 29, start, stop


def _picture_start(content: bytes) -> int:
    """Where the picture begins in a record's content: behind the header and its labels."""
    flag = int.from_bytes(content[:4], "little")
    if HEADER + 4 * flag > len(content):
        raise ValueError(f"a record of {len(content)} bytes is too short for its header")
    return HEADER + 4 * flag


# ---- all headers at once


def _find(root: Path) -> Path:
    if root.is_file():
        return root
    if not root.exists():
        raise UserError(f"{root} does not exist; check --data_dir.")
    names = sorted(path.name for path in root.iterdir() if path.suffix.lower() == ".rec") if root.is_dir() else []
    if TRAIN not in names and len(names) != 1:
        what = f"several others ({', '.join(names[:5])})" if names else "no other .rec file"
        raise UserError(f"{root} has no {TRAIN} and {what}; --data_dir also takes the .rec file itself.")
    return root / (TRAIN if TRAIN in names else names[0])


def _words(path: Path) -> Words:
    """The file as little-endian 32-bit words: records begin at multiples of 4."""
    try:
        data = _map(str(path))
        return np.frombuffer(data, "<u4", len(data) // 4)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read as a RecordIO file: {reason}.") from error


def _scan(path: Path) -> tuple[Numbers, Numbers]:
    """Where each record begins, found by going from one to the next; the keys are their numbers."""
    try:
        places = np.fromiter(_record_places(_map(str(path))), np.int64)
    except ValueError as error:
        raise UserError(f"{path}: {error}. Was it copied whole?") from error
    return np.arange(len(places)), places


def _record_places(data: memoryview) -> Iterator[int]:
    place, inside = 0, False
    while place < len(data):
        kind, _, stop = _part(data, place)
        if (kind in (2, 3)) != inside or kind > 3:
            raise ValueError(f"byte {place} is not where a record may be split")
        if not inside:
            yield place
        place, inside = (stop + 3) // 4 * 4, kind in (1, 2)
    if inside:
        raise ValueError("the last record has no end")


def _headers(words: Words, places: Numbers, path: Path) -> tuple[NDArray[np.float32], Numbers, NDArray[np.bool_]]:
    """For records at `places` (N,): label (N,), number of labels in it (N,), whether no picture follows (N,)."""
    wrong = (places < 0) | (places % 4 != 0) | (places > 4 * len(words) - 8)
    _check_none(wrong, places, path, "no record can begin there; is the index another file's, or the file cut off?")
    magic, word, flag, label, second = _gather(words, places // 4)
    _check_none(magic != MAGIC, places, path, "no record begins there; is the index another file's?")
    kinds, lengths, flags = word >> 29, (word & 0x1FFFFFFF).astype(np.int64), flag.astype(np.int64)
    _check_none(kinds > 1, places, path, "the middle of a record; is the index another file's?")
    _check_none(places + 8 + lengths > path.stat().st_size, places, path, "the record there is cut off.")
    short = (kinds == 0) & ((lengths < HEADER) | (lengths < HEADER + 4 * flags))
    _check_none(short, places, path, "the record there is too short for its header.")
    labels = np.where(flags > 0, second, label).view("<f4").astype(np.float32)
    empty = lengths == HEADER + 4 * flags
    # A split record may be split within its header, so those few are put together.
    for number in np.flatnonzero(kinds == 1).tolist():
        labels[number], flags[number], empty[number] = _split_header(path, int(places[number]))
    return labels, flags, empty


def _gather(words: Words, at: Numbers) -> Words:
    """The words 0, 1, 2, 3 and 8 of each record, (5, N); every page of the file is touched once."""
    found = np.empty((5, len(at)), np.uint32)
    for begin in range(0, len(at), CHUNK):
        block = at[begin : begin + CHUNK] + np.array([[0], [1], [2], [3], [8]])
        found[:, begin : begin + CHUNK] = words[np.minimum(block, len(words) - 1)]
    return found


def _split_header(path: Path, place: int) -> tuple[float, int, bool]:
    try:
        content = _content(_map(str(path)), place)
        start = _picture_start(content)
    except ValueError as error:
        raise UserError(f"{path}: {error}. Was it copied whole?") from error
    flag, label = struct.unpack_from("<If", content)
    if flag:
        (label,) = struct.unpack_from("<f", content, HEADER)
    return label, flag, start == len(content)


def _check_none(wrong: NDArray[np.bool_], places: Numbers, path: Path, reason: str) -> None:
    if wrong.any():
        raise UserError(f"{path}: byte {places[wrong][0]}: {reason}")


def _identity_keys(path: Path, keys: Numbers, places: Numbers, bare: NDArray[np.bool_]) -> tuple[float, float]:
    """The keys of InsightFace's identity records, first and last + 1, as record 0 says them; (inf, inf) without it."""
    if keys[0] != 0 or not bare[0]:
        return float("inf"), float("inf")
    first, last = struct.unpack_from("<ff", _content(_map(str(path)), int(places[0])), HEADER)
    return first, last


def _class_name(label: float, path: Path) -> str:
    if label != label or label != int(min(max(label, -1e9), 1e9)):
        raise UserError(f"{path}: a picture's label is {label}; it must be the whole number of its class.")
    return str(int(label))
