"""A gallery: the embeddings of many pictures, their paths and the model that made them, in a file that runs no code."""

import json
import math
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError, check_range
from metric_learning.files import atomic_path, one_line
from metric_learning.metrics.cosine import Floats, Indices, matrix_of
from metric_learning.metrics.neighbours import Index

QUERIES = 64  # searched at once, so that memory does not grow with them
PARTS = ("embeddings", "paths", "model")
STAMPS = "stamps"  # a part that older files lack
LONGEST = 10_000  # bytes of a header of an array
_SIMPLE = re.compile(
    r"\{'descr': '([<>|=]?[?biufSU]\d{0,9})', 'fortran_order': (?:True|False), 'shape': \(([\d, ]*)\), \}\s*"
)
_BROKEN: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    RecursionError,
)
_BROKEN += (zipfile.BadZipFile, zlib.error, struct.error, MemoryError, OverflowError)


@dataclass(frozen=True)
class Gallery:
    """embeddings (N, D) float32, not normalised; paths: one a row, each once; model: what made them, with its `digest`.

    stamps (N, 2): size in bytes and time of the last change in ns of each picture's file, -1 where they are not known.
    UserError where the numbers of rows and paths differ, for a path twice, and for embeddings that are not finite.
    """

    embeddings: NDArray[np.float32]
    paths: list[str]
    model: dict[str, Any]
    stamps: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if len(matrix_of(self.embeddings, "the gallery's embeddings")) != len(self.paths):
            raise UserError(f"A gallery needs a path a row; it has {len(self.paths)} for {len(self.embeddings)} rows.")
        if len(set(self.paths)) != len(self.paths):
            raise UserError("A gallery has each picture once; a path stands in it twice. Make it again.")
        if not np.isfinite(self.embeddings).all():
            raise UserError("A gallery's embeddings must be finite, and some are not. Make it again with infer.py.")

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def read(cls, path: str | Path) -> "Gallery":
        """The gallery in a file of `write` or of infer.py; UserError where it holds none, or a damaged one."""
        embeddings, paths, model, stamps = _read(Path(path))
        rows = dict(zip(paths, range(len(paths)), strict=True))  # lists of pictures may name one twice
        if len(rows) < len(paths):
            kept = list(rows.values())
            embeddings, paths, stamps = embeddings[kept], list(rows), None if stamps is None else stamps[kept]
        return cls(embeddings, paths, model, stamps)

    def write(self, path: str | Path) -> None:
        """Write the file whole, or leave the old one as it was."""
        write_embeddings(path, self.embeddings, self.paths, json.dumps(self.model, sort_keys=True), self.known_stamps)

    @property
    def known_stamps(self) -> NDArray[np.int64]:
        """The stamps (N, 2), -1 where they are not known."""
        return np.full((len(self), 2), -1, np.int64) if self.stamps is None else self.stamps

    def check_model(self, digest: str, file: str | Path, made: Mapping[str, Any] | None = None) -> None:
        """UserError unless the weights with this digest, which lie at `file`, made the gallery.

        made: how embeddings are made now (network, pictures, flip test); what the gallery says of it must be the same.
        """
        if self.model.get("digest") != digest:
            raise UserError(
                f"The gallery was made with other weights ({self.model.get('weights')}), not {file}. "
                "Name those by --pretrained_model, or make a gallery of its own with these."
            )
        then, now = _flat(self.model), _flat(json.loads(json.dumps(made or {})))
        for name in sorted(then.keys() & now.keys() - {"weights", "digest"}):
            if then[name] != now[name]:
                raise UserError(
                    f"The gallery was made with {name} {then[name]}, not {now[name]}. "
                    "Give the options that it was made with, or make a gallery of its own."
                )

    def search(self, queries: ArrayLike, k: int) -> tuple[Floats, Indices]:
        """queries (Q, D) -> (cosines (Q, K), rows (Q, K)), K = min(k, N): nearest first, ties lowest row first.

        Cosines are exact (in float64, then rounded), so faiss, which only proposes where it is installed, changes no
        answer. Memory: a copy of the embeddings (two where faiss has had more than 8 queries), made by the first
        search and kept, and 64 rows of N cosines.
        """
        check_range("k", k, 1)
        array = matrix_of(queries, "queries")
        if array.shape[1] != self.embeddings.shape[1]:
            raise UserError(
                f"The gallery's embeddings have {self.embeddings.shape[1]} numbers, the query's {array.shape[1]}: "
                "other weights made them. Make the gallery again with infer.py."
            )
        wanted = min(k, len(self))
        if not wanted or not len(array):
            return np.empty((len(array), wanted), np.float32), np.empty((len(array), wanted), np.int64)
        return self._index.search(array, wanted, chunk=QUERIES)

    @cached_property
    def _index(self) -> Index:
        return Index(self.embeddings, "faiss" if find_spec("faiss") else "numpy")

    def add(self, embeddings: Floats, paths: Sequence[str], stamps: NDArray[np.int64] | None = None) -> "Gallery":
        """A gallery with these too, at its end; a path that it has already is replaced by the new one, in its place.

        stamps (M, 2): of the files of the new ones.
        """
        rows = {path: i for i, path in enumerate(self.paths)}
        for path in paths:
            rows.setdefault(path, len(rows))
        joined = np.empty((len(rows), self.embeddings.shape[1]), np.float32)
        if matrix_of(embeddings, "embeddings to add").shape[1] != joined.shape[1]:
            raise UserError(f"The gallery holds {joined.shape[1]} numbers a picture, not {embeddings.shape[1]}.")
        if not len(embeddings) == len(paths) == len(paths if stamps is None else stamps):
            held = "" if stamps is None else f" and {len(stamps)} stamps"
            raise UserError(f"Each row to add has a path; got {len(paths)} paths for {len(embeddings)} rows{held}.")
        joined[: len(self)] = self.embeddings
        marks = np.full((len(rows), 2), -1, np.int64)
        marks[: len(self)] = self.known_stamps
        places = [rows[path] for path in paths]
        joined[places], marks[places] = embeddings, -1 if stamps is None else stamps
        return Gallery(joined, list(rows), self.model, marks)

    def remove(self, paths: Iterable[str]) -> "Gallery":
        """A gallery without these; a path that it has not is a UserError."""
        gone = set(paths)
        if unknown := sorted(gone - set(self.paths)):
            raise UserError(f"The gallery has no picture {unknown[0]!r}. Paths are named as it lists them.")
        kept = [i for i, path in enumerate(self.paths) if path not in gone]
        return Gallery(self.embeddings[kept], [self.paths[i] for i in kept], self.model, self.known_stamps[kept])


def _flat(model: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a description, those of the pictures (`picture`) one by one."""
    pictures = model.get("picture")
    return {**model, "picture": None} | (pictures if isinstance(pictures, dict) else {})


# ---- the file


def write_embeddings(
    path: str | Path, embeddings: Floats, paths: Sequence[str], model: str, stamps: NDArray[np.int64] | None = None
) -> None:
    """An .npz with `embeddings` (N, D) float32, `paths` (N,), `model` (JSON text) and, if any, `stamps`, atomically."""
    names = np.array([str(path) for path in paths]) if len(paths) else np.empty(0, "U1")
    parts: dict[str, Any] = {} if stamps is None else {STAMPS: stamps}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, embeddings=np.asarray(embeddings, np.float32), paths=names, model=np.array(model), **parts)


def read_embeddings(path: Path) -> tuple[NDArray[np.float32], list[str], dict[str, Any]]:
    """(embeddings (N, D), paths, what is known of the model) from a file of `write_embeddings`.

    No pickle is read, and no more memory is taken than the file is long.
    """
    return _read(path)[:3]


Parts = tuple[NDArray[np.float32], list[str], dict[str, Any], NDArray[np.int64] | None]


def _read(path: Path) -> Parts:
    """The same, and the stamps (N, 2) where the file holds them."""
    try:
        with open(path, "rb") as stream, zipfile.ZipFile(stream) as archive:
            _check_sizes(archive)
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                embeddings, paths, model = (file[f"{name}.npy"] for name in PARTS)  # else one without .npy
                stamps = file[f"{STAMPS}.npy"] if f"{STAMPS}.npy" in archive.namelist() else None
        _check_text(paths)
        _check_text(model)
        return _checked(embeddings, paths, json.loads(str(model)), stamps)
    except _BROKEN as error:
        raise UserError(f"Can't read the embeddings {path}: {one_line(error)}. Make them with infer.py.") from error


def _checked(embeddings: Any, paths: Any, model: Any, stamps: Any) -> Parts:
    if embeddings.ndim != 2 or embeddings.dtype != np.float32 or paths.ndim != 1 or paths.dtype.kind != "U":
        raise ValueError(f"embeddings {embeddings.shape} of {embeddings.dtype}, paths of {paths.dtype}")
    if len(embeddings) != len(paths) or not isinstance(model, dict):
        raise ValueError(f"{len(paths)} paths for {len(embeddings)} embeddings, or a model that is not described")
    if stamps is not None and (stamps.shape != (len(paths), 2) or stamps.dtype != np.int64):
        raise ValueError(f"stamps {stamps.shape} of {stamps.dtype} for {len(paths)} paths")
    return embeddings, [str(name) for name in paths], model, stamps


def _check_text(array: NDArray[Any]) -> None:
    """ValueError where numbers that are no letters would become a text: such a one may break Python."""
    if array.dtype.kind == "U" and array.nbytes:
        codes = np.ascontiguousarray(array).reshape(-1).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if codes.max() > sys.maxunicode:
            raise ValueError("it holds a text of numbers that are no letters")


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """ValueError where a part is compressed, or says that it is larger than it is: NumPy would take all that memory."""
    there = [STAMPS] if f"{STAMPS}.npy" in archive.namelist() else []
    for name in (*PARTS, *there):
        part = archive.getinfo(f"{name}.npy")
        if part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size:
            raise ValueError(f"{name} is compressed")
        with archive.open(part) as stream:
            shape, size = _header(stream)
            if any(side < 0 for side in shape) or math.prod(shape) * size != part.file_size - stream.tell():
                raise ValueError(f"{name} is not as long as it says")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], int]:
    """(shape, bytes an item) of an .npy stream, which stands behind its header then; ValueError for one that NumPy
    would not write: it takes any text there for Python's, which may be made to break its parser."""
    version = np.lib.format.read_magic(stream)
    size = int.from_bytes(stream.read(2 if version == (1, 0) else 4), "little")
    text = stream.read(min(size, LONGEST)).decode("latin-1")
    found = _SIMPLE.fullmatch(text)
    if found is None or len(text) < size:
        raise ValueError("it holds an array whose header NumPy did not write")
    shape = tuple(int(side) for side in found[2].split(",") if side.strip())
    return shape, np.dtype(found[1]).itemsize
