"""Many names in little memory: sequences that hold arrays, and make a Python object only when an item is asked for."""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
Rows = NDArray[np.integer[Any]]

BLOCK = 1 << 13  # items that are Python objects at the same time


class Compact(Sequence[Item]):
    """A sequence of N items over arrays. A kind of it says __len__, _item(i) with 0 <= i < N, and take(rows)."""

    def _item(self, index: int) -> Item:
        raise NotImplementedError

    def take(self, rows: Rows) -> Self:
        """The items at `rows` (M,), in that order, as a sequence of the same kind."""
        raise NotImplementedError

    def followed_by(self, others: Sequence[Sequence[Item]]) -> Self | None:
        """This and then the others as one of the same kind; None where they are of another."""
        return None

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Item | Self:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        return self._item(range(len(self))[index])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)}>"


class PackedNames(Compact[str]):
    """N paths in one buffer: item i is `folder` joined with bytes offsets[i] .. offsets[i + 1], which are UTF-8.

    data: (bytes,) uint8, offsets: (N + 1,) int64. Bytes of a file name that are not UTF-8 come back as they were.
    """

    def __init__(self, data: NDArray[np.uint8], offsets: NDArray[np.int64], folder: str = "") -> None:
        self.data, self.offsets, self.folder = data, offsets, folder

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def _item(self, index: int) -> str:
        start, stop = self.offsets[index : index + 2].tolist()
        return os.path.join(self.folder, self.data[start:stop].tobytes().decode("utf-8", "surrogateescape"))

    def take(self, rows: Rows) -> "PackedNames":
        starts = self.offsets[rows]
        sizes = self.offsets[1:][rows] - starts
        offsets = _offsets(sizes)
        data = np.empty(offsets[-1], np.uint8)
        for begin in range(0, len(rows), BLOCK):  # in blocks: eight bytes are needed for each byte that is moved
            block = slice(begin, begin + BLOCK)
            first, last = offsets[begin], offsets[min(begin + BLOCK, len(rows))]
            moved = np.repeat(starts[block] - offsets[:-1][block], sizes[block])
            data[first:last] = self.data[moved + np.arange(first, last)]
        return PackedNames(data, offsets, self.folder)

    def followed_by(self, others: Sequence[Sequence[str]]) -> "PackedNames | None":
        parts = [self]
        for other in others:
            if not isinstance(other, PackedNames) or other.folder != self.folder:
                return None
            parts.append(other)
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        return PackedNames(np.concatenate([part.data for part in parts]), _offsets(sizes), self.folder)


class NamePacker:
    """Packs names as they come, block by block; all are below `folder`, or are joined with it as paths are."""

    def __init__(self, folder: str = "") -> None:
        self.folder, self._data, self._sizes = folder, bytearray(), array("i")

    def add(self, names: Sequence[str]) -> None:
        text = "".join(names)
        if text.isascii():
            self._data += text.encode()
            self._sizes.extend(map(len, names))
        else:
            coded = [name.encode("utf-8", "surrogateescape") for name in names]
            self._data += b"".join(coded)
            self._sizes.extend(map(len, coded))

    def packed(self) -> PackedNames:
        sizes = np.frombuffer(self._sizes, np.int32)
        return PackedNames(np.frombuffer(self._data, np.uint8), _offsets(sizes), self.folder)


def _offsets(sizes: Rows) -> NDArray[np.int64]:
    """(N,) sizes -> (N + 1,): where each begins, and where the last ends."""
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


class Coded(Compact[str]):
    """N names out of few: codes (N,), whole numbers, and the names that they count; item i is names[codes[i]]."""

    def __init__(self, codes: Rows, names: list[str]) -> None:
        self.codes, self.names = codes, names

    @classmethod
    def of(cls, names: Iterable[str]) -> "Coded":
        """Names, as codes in the order in which each comes first."""
        if isinstance(names, Coded):
            return names
        coder = Coder()
        for block in blocks(names):
            coder.add(block)
        return coder.coded()

    @classmethod
    def join(cls, parts: Sequence["Coded"]) -> "Coded":
        """All names of the parts, one part after the other."""
        number: dict[str, int] = {}
        codes = [np.empty(0, np.int32)]
        for part in parts:
            place = [number.setdefault(name, len(number)) for name in part.names]
            codes.append(np.array(place, np.int32)[part.codes])
        return cls(np.concatenate(codes).astype(smallest(len(number)), copy=False), list(number))

    def __len__(self) -> int:
        return len(self.codes)

    def _item(self, index: int) -> str:
        return self.names[int(self.codes[index])]

    def take(self, rows: Rows) -> "Coded":
        return Coded(self.codes[rows], self.names)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.names, dtype=dtype)[self.codes] if self.names else np.empty(0, dtype or "U1")

    def counts(self) -> NDArray[np.int64]:
        """How often each of the names is there."""
        found = np.zeros(len(self.names), np.int64)
        step = max(BLOCK, len(self.names))
        for begin in range(0, len(self), step):  # in blocks: bincount makes int64 of what it counts
            found += np.bincount(self.codes[begin : begin + step], minlength=len(self.names))
        return found

    def present(self) -> set[str]:
        """The different names."""
        return {self.names[code] for code in np.flatnonzero(self.counts())}

    def sorted(self) -> "Coded":
        """The same names; `names` are those that are there, sorted."""
        there = np.flatnonzero(self.counts()).tolist()
        there.sort(key=self.names.__getitem__)
        place = np.zeros(len(self.names), smallest(len(there)))
        place[there] = np.arange(len(there))
        return Coded(place[self.codes], [self.names[code] for code in there])


class Coder:
    """Gives names codes as they come, block by block."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._codes = array("i")

    def add(self, names: Iterable[str]) -> None:
        number = self._number
        self._codes.extend([number.setdefault(name, len(number)) for name in names])

    def coded(self) -> Coded:
        codes = np.frombuffer(self._codes, np.int32)
        return Coded(codes.astype(smallest(len(self._number)), copy=False), list(self._number))


def smallest(count: int) -> np.dtype[Any]:
    """The smallest type of whole numbers for codes 0..count - 1; not above int32, for lists of names are no longer."""
    return np.dtype(np.uint8 if count <= 1 << 8 else np.uint16 if count <= 1 << 16 else np.int32)


def taken(names: Sequence[str], rows: Rows) -> Sequence[str]:
    """The names at `rows`, compact if `names` are."""
    return names.take(rows) if isinstance(names, Compact) else [names[int(row)] for row in rows]


def joined(parts: Sequence[Sequence[str]]) -> Sequence[str]:
    """All names of the parts, one after the other, compact."""
    parts = [part for part in parts if len(part)]
    if len(parts) == 1:
        return parts[0]
    whole = parts[0].followed_by(parts[1:]) if parts and isinstance(parts[0], Compact) else None
    return packed(chain.from_iterable(parts)) if whole is None else whole


def packed(names: Iterable[str]) -> PackedNames:
    """Any names, packed."""
    packer = NamePacker()
    for block in blocks(names):
        packer.add(block)
    return packer.packed()


def blocks(items: Iterable[Item], size: int = BLOCK) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last shorter."""
    waiting = iter(items)
    while block := list(islice(waiting, size)):
        yield block
