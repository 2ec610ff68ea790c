"""infer --gallery and --query: a gallery made, extended, lessened and searched."""

import hashlib
import os
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.compare import embed_to_file
from metric_learning.config import InferOptions
from metric_learning.data.loader import BadPictures
from metric_learning.data.recordio import file_of
from metric_learning.engine import Predictor
from metric_learning.extract import Reader, embed
from metric_learning.files import atomic_write
from metric_learning.gallery import Gallery, read_embeddings
from metric_learning.lock import held
from metric_learning.metrics.reranking import Rerank, reranked_hits
from metric_learning.sheets import Cell, in_rows, picture_sheet
from metric_learning.stages import scoring, setup
from metric_learning.stages.inputs import LISTS, pictures_of_list

UNKNOWN = (-1, -1)  # the stamp of a file that is not there
COLUMNS, ROWS = 8, 50  # of the sheet, at most
SHORTLIST, MOST = 200, 2000  # hits that are re-ranked, if no more are asked for; and at most


def place_of(typed: str) -> Path:
    """The file that --gallery names: itself, or gallery.npz in the folder."""
    place = Path(typed)
    return place if place.suffix.lower() == ".npz" or place.is_file() else place / "gallery.npz"


def _alone(place: Path) -> AbstractContextManager[None]:
    """The gallery for this process alone, to read, change and write it."""
    if not dist.is_first():
        return nullcontext()
    harm = "lose each other's pictures"
    return held(place.parent, f".{place.name}.lock", f"changing the gallery {place.name} in", harm)


def _there(config: InferOptions) -> Path:
    place = place_of(str(config.gallery))
    if not place.is_file():
        raise UserError(
            f"There is no gallery {place}. Make one: python infer.py --gallery={config.gallery} --input=FOLDER."
        )
    return place


# ---- to add


def extend(
    config: InferOptions, paths: Sequence[str], made: dict[str, Any], predictor: Predictor, reader: Reader
) -> None:
    """Add the pictures that the gallery has not, or not as they are now; those that changed take their old place."""
    place = place_of(str(config.gallery))
    setup.check_writable(place.parent, "--gallery")
    with _alone(place):
        known = Gallery.read(place) if place.is_file() else None
        if known is not None:
            known.check_model(made["digest"], made["weights"], made)
        new, stamps = _new(paths, known, sheet_of(place))
        if known is not None and not new:
            print(f"Nothing to add: {place} holds these pictures as they are, {len(known):,} in all.")
            return
        bad = BadPictures(len(set(paths)), config.max_bad_pictures)
        parts = place.with_name(f".{place.name}.new.npz")
        # The stamps are part of the job: what an interrupted one embedded counts only while the files are the same.
        job = made | {"pictures": hashlib.blake2b(stamps.tobytes(), digest_size=16).hexdigest()}
        embed_to_file(predictor, new, reader, bad, parts, job, may_be_none=known is not None)
        if dist.is_first():
            added = _merge(place, known, made, dict(zip(new, stamps, strict=True)), parts)
            for line in bad.lines():
                print(f"Left out, can't be read: {line}")
            if added:
                typed = f"--gallery={shlex.quote(str(place))} --query {shlex.quote(added[0])}"
                print(f"Next: python infer.py{typed_weights(config)} {typed}")


def _new(paths: Sequence[str], known: Gallery | None, sheet: Path) -> tuple[list[str], NDArray[np.int64]]:
    """The pictures to embed, by the names that the gallery has or will have for them, and their stamps (M, 2)."""
    named = zip(known.paths, known.known_stamps.tolist(), strict=True) if known is not None else ()
    there = {os.path.abspath(path): (path, tuple(stamp)) for path, stamp in named}
    new, stamps = [], []
    for path in dict.fromkeys(os.path.abspath(path) for path in paths):
        name, noted = there.get(path, (path, ()))
        stamp = _stamp(path)
        only_gone = bool(noted) and stamp == UNKNOWN
        if path != os.path.abspath(sheet) and stamp != noted and not only_gone:
            new.append(name)
            stamps.append(stamp)
    return new, np.array(stamps, np.int64).reshape(-1, 2)


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = os.stat(file_of(path))
    except OSError:
        return UNKNOWN
    return found.st_size, found.st_mtime_ns


def _merge(
    place: Path, known: Gallery | None, made: dict[str, Any], stamps: dict[str, NDArray[np.int64]], parts: Path
) -> list[str]:
    """Put the file of what was embedded into the gallery; the names of what was."""
    embeddings, paths, _ = read_embeddings(parts)
    before = known if known is not None else Gallery(np.empty((0, embeddings.shape[1]), np.float32), [], made)
    found = before.add(embeddings, paths, np.array([stamps[path] for path in paths])) if paths else before
    # What its old embedding shows is no longer there.
    gone = set(before.paths) & (stamps.keys() - set(paths))
    found.remove(gone).write(place)
    parts.unlink()
    again = len(set(before.paths) & set(paths))
    print(f"Added: {len(paths) - again:,} pictures; changed and embedded again: {again:,}; taken out: {len(gone):,}")
    print(f"Written: {place} ({len(found) - len(gone):,} pictures)")
    return paths


def typed_weights(config: InferOptions) -> str:
    """The options that say which weights, as they were typed, for a command that is proposed."""
    typed = ("pretrained_model", "checkpoint", "model_save_dir")
    return "".join(f" --{name}={shlex.quote(getattr(config, name))}" for name in typed if name in config.typed)


# ---- to take out


def remove(config: InferOptions) -> None:
    """Take out the pictures that --remove names; it needs no weights."""
    if not dist.is_first():
        return
    place = _there(config)
    with _alone(place):
        gallery = Gallery.read(place)
        names = _named(gallery, str(config.remove))
        less = gallery.remove(names)
        less.write(place)
    print(f"Taken out: {len(names):,} pictures. Written: {place} ({len(less):,} pictures)")


def _named(gallery: Gallery, typed: str) -> set[str]:
    """The gallery's names of one picture, of those of a list, or of those below a folder, which need not be there."""
    names = {os.path.abspath(path): path for path in gallery.paths} | {path: path for path in gallery.paths}
    place = Path(typed)
    if place.suffix.lower() in LISTS and place.is_file():
        listed = pictures_of_list(place, "--remove")
        return {names.get(os.path.abspath(path), path) for path in listed}
    path = os.path.abspath(typed)
    below = {name for place, name in names.items() if place.startswith(path + os.sep)}
    return below or {names.get(typed, names.get(path, typed))}


# ---- to search


def query(
    config: InferOptions,
    made: dict[str, Any],
    predictor: Predictor,
    reader: Reader,
    judged: scoring.Judge,
    embeddings: Path,
) -> None:
    """Print the nearest of --gallery, or of the file of embeddings, and draw them beside it."""
    typed = str(config.query)
    scoring.check_picture(typed)
    place = _there(config) if config.gallery else embeddings
    gallery = Gallery.read(place)
    gallery.check_model(made["digest"], made["weights"], made)
    if not len(gallery):
        raise UserError(f"The gallery {place} holds no pictures. Add some by --input.")
    sheet = sheet_of(place)
    if config.gallery and config.output:
        sheet = setup.output_file(config.output, None, sheet.name)
        setup.check_writable(sheet.parent, "--output")
    _check_sheet(sheet, [typed, *gallery.paths])
    _, found = embed(predictor, [typed], reader, BadPictures(1, 0.0))
    if judged.means is not None:
        gallery = replace(gallery, embeddings=judged.means.taken_off(gallery.embeddings, None))
        found = judged.means.taken_off(found, None)
    cosines, rows, scores = _nearest(config, gallery, found)
    if judged.calibration is None:
        print(f"Similarity, {scoring.UNCALIBRATED}.")
    if config.top_k > len(gallery):
        print(f"The gallery holds {len(gallery):,} pictures, fewer than --top_k={config.top_k}.")
    cells = [Cell(typed, ["query", os.path.basename(typed)])]
    for i, (value, cosine) in enumerate(zip(judged.similarity(cosines, None), cosines, strict=True)):
        path = gallery.paths[rows[i]]
        anew = [] if scores is None else [f"re-ranked {scores[i]:.4f}"]
        lost = [] if os.path.exists(file_of(path)) else ["(the file is gone)"]
        print("  ".join([f"{i + 1:3d}", *anew, f"similarity {value:.4f}", f"cosine {cosine:.4f}", path, *lost]))
        cells.append(Cell(path, [f"{i + 1}: {value:.4f}", f"cosine {cosine:.4f}", *anew, os.path.basename(path)]))
    if dist.is_first():
        _draw(sheet, cells, bool(config.gallery and config.output))


def _nearest(
    config: InferOptions, gallery: Gallery, found: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32] | None]:
    """(cosines (K,), rows (K,) of the gallery, scores (K,) of a re-ranking or None), nearest first."""
    if not config.rerank:
        cosines, rows = gallery.search(found, config.top_k)
        return cosines[0], rows[0], None
    if config.top_k > MOST:
        raise UserError(f"--rerank orders the {MOST:,} nearest at most; got --top_k={config.top_k}.")
    how = Rerank(config.rerank_k1, config.rerank_k2, config.rerank_lambda)
    cosines, rows = (part[0] for part in gallery.search(found, max(SHORTLIST, config.top_k)))
    scores = reranked_hits(found[0], gallery.embeddings[rows], how)
    order = np.argsort(-scores, kind="stable")[: config.top_k]
    print(f"Re-ranked: the nearest {len(rows):,}, by k-reciprocal neighbours among them ({how}).")
    return cosines[order], rows[order], scores[order]


def sheet_of(place: Path) -> Path:
    """Where the sheet of a search goes: beside the embeddings."""
    return place.with_suffix(".search.png")


def _check_sheet(sheet: Path, pictures: Sequence[str]) -> None:
    same_name = (path for path in pictures if os.path.basename(path) == sheet.name)  # thousands have another name
    if any(os.path.realpath(path) == os.path.realpath(sheet) for path in same_name):
        raise UserError(f"The sheet would be written over the picture {sheet}. Name another place by --output.")


def _draw(sheet: Path, cells: list[Cell], named: bool) -> None:
    """Write the sheet. A folder that can't be written to is no reason to fail, unless it was named."""
    try:
        atomic_write(sheet, picture_sheet(in_rows(cells, COLUMNS), most=ROWS))
    except UserError as error:
        if named:
            raise
        print(f"No sheet of pictures: {error}")
        return
    drawn = COLUMNS * ROWS - 1
    print(f"Written: {sheet}" + (f" (the first {drawn})" if len(cells) > drawn + 1 else ""))
