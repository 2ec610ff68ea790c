"""A gallery: the embeddings of many pictures, their paths and the model that made them, in a file that runs no code."""

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError, check_range
from metric_learning.files import atomic_path, one_line
from metric_learning.metrics.cosine import Floats, Indices, matrix_of
from metric_learning.metrics.neighbours import nearest

QUERIES = 64  # searched at once, so that memory does not grow with them
PARTS = ("embeddings", "paths", "model")
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

    UserError where the numbers of rows and paths differ, for a path twice, and for embeddings that are not finite.
    """

    embeddings: NDArray[np.float32]
    paths: list[str]
    model: dict[str, Any]

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
        embeddings, paths, model = read_embeddings(Path(path))
        rows = dict(zip(paths, range(len(paths)), strict=True))  # lists of pictures may name one twice
        if len(rows) < len(paths):
            embeddings, paths = embeddings[list(rows.values())], list(rows)
        return cls(embeddings, paths, model)

    def write(self, path: str | Path) -> None:
        """Write the file whole, or leave the old one as it was."""
        write_embeddings(path, self.embeddings, self.paths, json.dumps(self.model, sort_keys=True))

    def check_model(self, digest: str, file: str | Path) -> None:
        """UserError unless the weights with this digest, which lie at `file`, made the gallery."""
        if self.model.get("digest") != digest:
            raise UserError(
                f"The gallery was made with other weights ({self.model.get('weights')}), not {file}. "
                "Name those by --pretrained_model, or make a gallery of its own with these."
            )

    def search(self, queries: ArrayLike, k: int) -> tuple[Floats, Indices]:
        """queries (Q, D) -> (cosines (Q, K), rows (Q, K)), K = min(k, N): nearest first, ties lowest row first.

        Cosines are exact (in float64, then rounded), so faiss, which only proposes where it is installed, changes no
        answer. Memory: a copy of the embeddings, and 64 rows of N cosines.
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
        how = "faiss" if find_spec("faiss") else "numpy"
        starts = range(0, len(array), QUERIES)
        parts = [nearest(array[s : s + QUERIES], self.embeddings, wanted, chunk=QUERIES, search=how) for s in starts]
        return np.concatenate([cosines for cosines, _ in parts]), np.concatenate([rows for _, rows in parts])

    def add(self, embeddings: Floats, paths: Sequence[str]) -> "Gallery":
        """A gallery with these too, at its end; a path that it has already is replaced by the new one, in its place."""
        rows = {path: i for i, path in enumerate(self.paths)}
        for path in paths:
            rows.setdefault(path, len(rows))
        joined = np.empty((len(rows), self.embeddings.shape[1]), np.float32)
        if matrix_of(embeddings, "embeddings to add").shape[1] != joined.shape[1]:
            raise UserError(f"The gallery holds {joined.shape[1]} numbers a picture, not {embeddings.shape[1]}.")
        joined[: len(self)] = self.embeddings
        joined[[rows[path] for path in paths]] = embeddings
        return Gallery(joined, list(rows), self.model)

    def remove(self, paths: Iterable[str]) -> "Gallery":
        """A gallery without these; a path that it has not is a UserError."""
        gone = set(paths)
        if unknown := sorted(gone - set(self.paths)):
            raise UserError(f"The gallery has no picture {unknown[0]!r}. Paths are named as it lists them.")
        kept = [i for i, path in enumerate(self.paths) if path not in gone]
        return Gallery(self.embeddings[kept], [self.paths[i] for i in kept], self.model)


# ---- the file


def write_embeddings(path: str | Path, embeddings: Floats, paths: Sequence[str], model: str) -> None:
    """An .npz with `embeddings` (N, D) float32, `paths` (N,) and `model` (JSON text), atomically."""
    names = np.array(list(paths)) if paths else np.empty(0, "U1")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, embeddings=embeddings, paths=names, model=np.array(model))


def read_embeddings(path: Path) -> tuple[NDArray[np.float32], list[str], dict[str, Any]]:
    """(embeddings (N, D), paths, what is known of the model) from a file of `write_embeddings`.

    No pickle is read, and no more memory is taken than the file is long.
    """
    try:
        with open(path, "rb") as stream, zipfile.ZipFile(stream) as archive:
            _check_sizes(archive)
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                embeddings, paths, model = (file[name] for name in PARTS)
        return _checked(embeddings, paths, json.loads(str(model)))
    except _BROKEN as error:
        raise UserError(f"Can't read the embeddings {path}: {one_line(error)}. Make them with infer.py.") from error


def _checked(embeddings: Any, paths: Any, model: Any) -> tuple[NDArray[np.float32], list[str], dict[str, Any]]:
    if embeddings.ndim != 2 or embeddings.dtype != np.float32 or paths.ndim != 1 or paths.dtype.kind != "U":
        raise ValueError(f"embeddings {embeddings.shape} of {embeddings.dtype}, paths of {paths.dtype}")
    if len(embeddings) != len(paths) or not isinstance(model, dict):
        raise ValueError(f"{len(paths)} paths for {len(embeddings)} embeddings, or a model that is not described")
    return embeddings, [str(name) for name in paths], model


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """ValueError where a part is compressed, or says that it is larger than it is: NumPy would take all that memory."""
    for name in PARTS:
        part = archive.getinfo(f"{name}.npy")
        if part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size:
            raise ValueError(f"{name} is compressed")
        with archive.open(part) as stream:
            shape, size = _header(stream)
            if any(side < 0 for side in shape) or math.prod(shape) * size != part.file_size - stream.tell():
                raise ValueError(f"{name} is not as long as it says")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], int]:
    """(shape, bytes an item) of an .npy stream, which stands behind its header then."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype.itemsize
