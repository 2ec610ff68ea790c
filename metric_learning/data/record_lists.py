"""All pictures of a RecordIO file at once: where their records begin, and what their headers say; see recordio.py."""

import mmap
import struct
import warnings
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.data.names import Coded
from metric_learning.data.recordio import (
    HEADER,
    MAGIC,
    Numbers,
    RecordPaths,
    content_of,
    opened,
    part_at,
    picture_start,
)
from metric_learning.data.samples import Parts, Samples
from metric_learning.files import one_line

CHUNK = 1 << 16  # records whose headers are read at a time
TEXT = 1 << 20  # bytes of an index that are read at a time
TRAIN = "train.rec"

Words = NDArray[np.uint32]
Header = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]


def read_recordio(root: Path) -> Parts:
    """The pictures of `root`, a .rec file or a folder with train.rec, in the order of their indices; all one part.

    The class is the whole number in the record's label (the first of several). Records of two labels or more without a
    picture are InsightFace's notes (index 0, and one record an identity) and are passed over. Only headers are read.
    Raises UserError where the file is cut off or is something else.
    """
    path = _find(root)
    data = _mapped(path)
    index = path.with_suffix(".idx")
    keys, places = read_index(index) if index.is_file() else _scan(data, path)
    labels, several, empty = _headers(np.frombuffer(data, "<u4", len(data) // 4), places, path)
    first, last = _identity_keys(path, keys, places, several & empty)
    kept = np.flatnonzero(~(several & (empty | ((keys >= first) & (keys < last)))))
    if not len(kept):
        raise UserError(f"{path} holds no pictures.")
    paths = RecordPaths(str(path), places[kept])
    groups = Coded(np.zeros(len(kept), np.uint8), [""])
    return {"all": Samples(paths, _classes(labels[kept], path), groups)}


def sizes_of(paths: RecordPaths) -> Numbers:
    """The bytes of each picture (N,), by its header; -1 where a record is split."""
    data = _mapped(Path(paths.file))
    words, sizes = np.frombuffer(data, "<u4", len(data) // 4), np.empty(len(paths), np.int64)
    for begin in range(0, len(paths), CHUNK):
        word, flag = words[paths.places[begin : begin + CHUNK] // 4 + np.array([[1], [2]])].astype(np.int64)
        sizes[begin : begin + CHUNK] = np.where(word >> 29 == 0, word - HEADER - 4 * flag, -1)
    return sizes


def last_bytes(paths: RecordPaths, count: int) -> NDArray[np.uint8]:
    """The last bytes of each picture (N, count), of records that are not split; zeros before shorter ones.

    They lie before the next record's header, so most are on pages that have been read.
    """
    data, sizes = np.frombuffer(_mapped(Path(paths.file)), np.uint8), sizes_of(paths)
    words = data[: len(data) // 4 * 4].view("<u4")
    stops = paths.places + 8 + words[paths.places // 4 + 1]
    found: NDArray[np.uint8] = data[stops[:, None] + np.arange(-count, 0)]
    found[np.arange(count) < count - sizes[:, None]] = 0
    return found


def read_index(path: Path) -> tuple[Numbers, Numbers]:
    """`<key> <byte>` rows -> keys and bytes (N,), (N,) int64, sorted by key; a UserError where the file is not that."""
    table = _whole_numbers(path)
    if not len(table):
        raise UserError(
            f"{path} is not the index of a RecordIO file (rows of two whole numbers); "
            "without it the records are looked for one after the other: move it away."
        )
    keys, places = table[0::2], table[1::2]
    if (keys[1:] < keys[:-1]).any():
        order = np.argsort(keys, kind="stable")
        keys, places = keys[order], places[order]
    if (keys[1:] == keys[:-1]).any():
        raise UserError(f"{path}: the key {keys[1:][keys[1:] == keys[:-1]][0]} is there twice; move the index away.")
    return keys, places


def _whole_numbers(path: Path) -> Numbers:
    """All numbers of a text file, two for each line that is not blank; none at all where it is not that."""
    table, lines = array("q"), 0
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # what NumPy says of text that is no number
            while text := file.read(TEXT) + file.readline():  # to the end of a line
                if text.strip():
                    table.frombytes(np.fromstring(text.decode("ascii"), dtype=np.int64, sep=" ").tobytes())
                    lines += sum(1 for line in text.split(b"\n") if line.strip())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, DeprecationWarning):
        return np.empty(0, np.int64)
    return np.frombuffer(table, np.int64) if len(table) == 2 * lines else np.empty(0, np.int64)


# ---- the file and its index


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


def _mapped(path: Path) -> memoryview:
    """The whole file in memory, as far as it is looked at: the way through all headers that reads ahead."""
    try:
        if path.stat().st_size < 8:
            raise ValueError("not a RecordIO file")
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read as a RecordIO file: {reason}.") from error


def _scan(data: memoryview, path: Path) -> tuple[Numbers, Numbers]:
    """Where each record begins, found by going from one to the next; the keys are their numbers."""
    try:
        places = np.fromiter(_record_places(data), np.int64)
    except ValueError as error:
        raise UserError(f"{path}: {error}. Was it copied whole?") from error
    return np.arange(len(places)), places


def _record_places(data: memoryview) -> Iterator[int]:
    place, inside = 0, False
    while place < len(data):
        kind, _, stop = part_at(data[place : place + 8], place, len(data))
        if (kind in (2, 3)) != inside or kind > 3:
            raise ValueError(f"byte {place} is not where a record may be split")
        if not inside:
            yield place
        place, inside = (stop + 3) // 4 * 4, kind in (1, 2)
    if inside:
        raise ValueError("the last record has no end")


# ---- headers


def _headers(words: Words, places: Numbers, path: Path) -> Header:
    """For records at `places` (N,): label, whether it holds two labels or more, whether no picture follows; each (N,).

    Every page of the file that a header lies on is touched once.
    """
    found = np.empty(len(places), np.float32), np.empty(len(places), np.bool_), np.empty(len(places), np.bool_)
    size = path.stat().st_size
    for begin in range(0, len(places), CHUNK):
        block = slice(begin, begin + CHUNK)
        for column, values in zip(found, _some_headers(words, places[block], path, size), strict=True):
            column[block] = values
    return found


def _some_headers(words: Words, places: Numbers, path: Path, size: int) -> Header:
    wrong = (places < 0) | (places % 4 != 0) | (places > 4 * len(words) - 8)
    _check_none(wrong, places, path, "no record can begin there; is the index another file's, or the file cut off?")
    at = places // 4 + np.array([[0], [1], [2], [3], [8]])
    magic, word, flag, label, second = words[np.minimum(at, len(words) - 1)]
    _check_none(magic != MAGIC, places, path, "no record begins there; is the index another file's?")
    kinds, lengths, flags = word >> 29, (word & 0x1FFFFFFF).astype(np.int64), flag.astype(np.int64)
    _check_none(kinds > 1, places, path, "the middle of a record; is the index another file's?")
    _check_none(places + 8 + lengths > size, places, path, "the record there is cut off.")
    short = (kinds == 0) & ((lengths < HEADER) | (lengths < HEADER + 4 * flags))
    _check_none(short, places, path, "the record there is too short for its header.")
    labels = np.where(flags > 0, second, label).view("<f4").astype(np.float32)
    empty = lengths == HEADER + 4 * flags
    # A split record may be split within its header, so those few are put together.
    known: dict[int, tuple[float, int, bool]] = {}  # an index may name one a thousand times
    for number in np.flatnonzero(kinds == 1).tolist():
        place = int(places[number])
        if place not in known:
            known[place] = _split_header(path, place)
        labels[number], flags[number], empty[number] = known[place]
    return labels, flags > 1, empty


def _split_header(path: Path, place: int) -> tuple[float, int, bool]:
    content = _content(path, place)
    start = picture_start(content)
    flag, label = struct.unpack_from("<If", content)
    if flag:
        (label,) = struct.unpack_from("<f", content, HEADER)
    return label, flag, start == len(content)


def _content(path: Path, place: int) -> bytes:
    """A record that has a whole header."""
    try:
        content = content_of(opened(str(path)), place)
        picture_start(content)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {one_line(error)}. Was it copied whole?") from error
    return content


def _check_none(wrong: NDArray[np.bool_], places: Numbers, path: Path, reason: str) -> None:
    if wrong.any():
        raise UserError(f"{path}: byte {places[wrong][0]}: {reason}")


def _identity_keys(path: Path, keys: Numbers, places: Numbers, bare: NDArray[np.bool_]) -> tuple[float, float]:
    """The keys of InsightFace's identity records, first and last + 1, as record 0 says them; (inf, inf) without it."""
    if keys[0] != 0 or not bare[0]:
        return float("inf"), float("inf")
    first, last = struct.unpack_from("<ff", _content(path, int(places[0])), HEADER)
    return first, last


def _classes(labels: NDArray[np.float32], path: Path) -> Coded:
    """labels (N,), whole numbers -> the names of the classes."""
    values = np.unique(labels)
    names = [_class_name(value, path) for value in values.tolist()]
    codes = np.empty(len(labels), np.int32)
    for begin in range(0, len(labels), CHUNK):
        codes[begin : begin + CHUNK] = np.searchsorted(values, labels[begin : begin + CHUNK])
    return Coded(codes, names)


def _class_name(label: float, path: Path) -> str:
    if label != label or label != int(min(max(label, -1e9), 1e9)):
        raise UserError(f"{path}: a picture's label is {label}; it must be the whole number of its class.")
    return str(int(label))
