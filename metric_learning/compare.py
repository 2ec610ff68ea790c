"""Two pictures -> one similarity; many pictures -> a file of embeddings."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.data.loader import BadPictures
from metric_learning.data.pictures import Source
from metric_learning.engine import Predictor
from metric_learning.extract import Reader, embed
from metric_learning.files import atomic_path
from metric_learning.gallery import write_embeddings
from metric_learning.metrics.cosine import unit_rows
from metric_learning.metrics.group_means import GroupMeans
from metric_learning.metrics.pairs import scores_of_pairs

CHUNK = 2048  # pictures a chunk file: what an interrupted run may have to do again


def similarity(cosine: float) -> float:
    """(1 + cos) / 2 in 0..1, for weights that say nothing about their cosines. NOT calibrated: 0.5 is no threshold."""
    return min(max((1.0 + cosine) / 2.0, 0.0), 1.0)


def compare(
    predictor: Predictor, a: str, b: str, reader: Reader, means: GroupMeans | None = None, group: str | None = None
) -> float:
    """The cosine of two pictures' embeddings, both of `group`. A picture that can't be read is a UserError."""
    paths = [a, b]
    _, embeddings = embed(predictor, paths, reader, BadPictures(len(paths), 0.0))
    units = unit_rows(means.taken_off(embeddings, group and [group, group]) if means else embeddings)
    return float(units[0] @ units[1])


def score_pairs(
    predictor: Predictor,
    pictures: Sequence[Source],
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    reader: Reader,
    bad: BadPictures,
    means: GroupMeans | None = None,
    groups: NDArray[np.str_] | None = None,
) -> NDArray[np.float32]:
    """pictures (N), a and b (P,) indices into them -> cosines (P,), NaN where a picture can't be read.

    Each picture is embedded once, in however many pairs it is. means: taken off, by the pairs' groups (P,).
    """
    kept, embeddings = embed(predictor, pictures, reader, bad)
    row = np.full(len(pictures), -1)
    row[kept] = np.arange(len(kept))
    if means is not None and groups is not None:
        embeddings = means.taken_off_pairs(embeddings, row[a], row[b], groups)
    known = np.flatnonzero((row[a] >= 0) & (row[b] >= 0))
    cosines = np.full(len(a), np.nan, np.float32)
    cosines[known] = scores_of_pairs(embeddings, row[a[known]], row[b[known]])
    return cosines


def embed_to_file(
    predictor: Predictor,
    paths: Sequence[str],
    reader: Reader,
    bad: BadPictures,
    output: Path,
    model: dict[str, object],
    may_be_none: bool = False,
) -> tuple[int, int]:
    """Embed `paths` into an .npz with `embeddings` (N, D) float32, `paths` (N,), `model` (JSON text); (N, left out).

    Chunks are written as they are done to `<output>.parts/`: a run that was interrupted goes on behind them, if it is
    the same run (same paths, weights and settings); pictures that could not be read are tried again. The file appears
    when it is whole, and the parts go. Several processes take the chunks in turn, and the first one puts them together.
    Where no picture can be read it is a UserError, or with may_be_none a file of none (0, 0).
    """
    if not paths:
        raise UserError("There are no pictures to embed. Check --input and --data_dir.")
    about = json.dumps(model, sort_keys=True)
    key = _key(about, predictor.precision, str(reader.flip_test), *paths)
    folder = output.with_name(f"{output.name}.parts")
    if dist.is_first():
        if (folder / "key").is_file() and (folder / "key").read_text() != key:
            shutil.rmtree(folder)
        _make(folder, key)
    dist.barrier()
    starts = range(0, len(paths), CHUNK)
    quiet = Reader(reader.spec, reader.batch_size, reader.workers, reader.flip_test, quiet=True)
    try:
        own = starts[dist.rank() :: dist.size()]
        hidden = None if dist.is_first() else True
        with tqdm(total=min(len(own) * CHUNK, len(paths)), unit="picture", desc="Embedding", disable=hidden) as bar:
            for start in own:
                chunk = list(paths[start : start + CHUNK])
                _embed_chunk(predictor, chunk, quiet, bad, folder / f"{start:012d}.npz")
                bar.update(len(chunk))
    finally:
        if dist.is_first() and not any(folder.glob("*.npz")):  # nothing to go on from
            shutil.rmtree(folder)
    for reasons in dist.all_gather_object(bad.reasons()):
        bad.take(reasons)
    if not dist.is_first():
        return 0, 0
    kept, rows = [], []
    for start in starts:
        places, embeddings = _read_part(folder / f"{start:012d}.npz")
        kept += [paths[start + place] for place in places]
        rows.append(embeddings)
    if kept or may_be_none:
        write_embeddings(output, _joined(rows), kept, about)
    shutil.rmtree(folder)
    if not kept and not may_be_none:
        raise UserError("None of the pictures can be read, so there is nothing to embed.")
    return len(kept), len(paths) - len(kept)


def _key(*said: str) -> str:
    """A short name of the whole job: parts of another one are not taken over."""
    return hashlib.blake2b("\0".join(said).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _make(folder: Path, key: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "key").write_text(key)
    except OSError as error:
        raise UserError(f"Can't write {folder}: {error.strerror}. Choose another --output.") from error


def _embed_chunk(predictor: Predictor, chunk: list[str], reader: Reader, bad: BadPictures, part: Path) -> None:
    """Write the part of a chunk; one that is there already is filled up by what could not be read before."""
    done, rows = _read_part(part) if part.is_file() else (np.empty(0, np.int64), np.empty((0, 0), np.float32))
    left = np.setdiff1d(np.arange(len(chunk)), done)
    if not len(left):
        return
    try:
        kept, found = embed(predictor, [chunk[place] for place in left], reader, bad, alone=True)
    except UserError:
        if len(bad) > bad.max_share * bad.total:
            raise
        kept, found = done[:0], rows[:0]  # none of them can be read, and still not too many
    if len(kept) or not part.is_file():
        places = np.concatenate([done, left[kept]])
        order = np.argsort(places)
        with atomic_path(part) as temporary, open(temporary, "wb") as file:
            np.savez(file, kept=places[order], embeddings=_joined([rows, found])[order])


def _read_part(part: Path) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    with np.load(part, allow_pickle=False) as file:
        return file["kept"], file["embeddings"]


def _joined(rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """One behind the other; those of no picture at all have no width."""
    return np.concatenate([part for part in rows if len(part)] or [np.empty((0, 0), np.float32)])
