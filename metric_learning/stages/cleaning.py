"""eval --clean: the pictures that are probably in the wrong class, as a list and as a sheet to look at."""

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from metric_learning.checks import UserError
from metric_learning.config import EvalOptions
from metric_learning.data.sources import PictureSet
from metric_learning.evaluate import Embedded
from metric_learning.files import atomic_write, write_csv
from metric_learning.metrics.identity_noise import FAR, NEARER, PAIR, IdentityErrors, identity_errors, most_central
from metric_learning.runs import Run
from metric_learning.sheets import Cell, picture_sheet
from metric_learning.stages import setup

COLUMNS = ("path", "class", "own_cosine", "other_class", "other_cosine", "reason")
PAIR_COLUMNS = ("class", "other_class", "cosine", "pictures", "other_pictures")
PRINTED, DRAWN = 5, 50
SAID = {NEARER: "nearer to another class", FAR: "far from their own", PAIR: "in classes of two that do not match"}


def checked_place(typed: str, config: EvalOptions, pictures: PictureSet) -> Path:
    """Where the list goes; a UserError where it can't be written, or it or what lies beside it would replace data."""
    place = setup.output_file(typed, None, "suspects.csv")
    sheet = _sheet_of(place)
    beside = [path for path in pictures.paths if os.path.basename(path) == sheet.name]
    data = [path for path in (config.data_dir, config.train_list, config.test_list, *beside) if path]
    lists = [os.path.join(config.data_dir, path) for path in data if config.data_dir]
    taken = {os.path.realpath(path) for path in (*data, *lists)}
    for path in (place, sheet, _classes_of(place)):
        if os.path.realpath(path) in taken:
            raise UserError(f"--clean={typed} would write over {path}, which is of the data. Name another place.")
    folder = Path(config.data_dir or setup.DEMO_FOLDER)
    if folder.is_dir() and place.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--clean={typed} is inside {folder}, and would be read as data next time. Name another place.")
    setup.check_writable(place.parent, "--clean")
    return place


def _sheet_of(place: Path) -> Path:
    return place.with_suffix(".png")


def _classes_of(place: Path) -> Path:
    return place.with_name(f"{place.stem}_classes.csv")


def warn_of_trained(pictures: PictureSet, run: Run) -> None:
    """A network that has learnt wrong labels finds them right."""
    if setup.report_overlap(pictures, run, lambda said: None):
        print(
            f"WARNING: {run.folder} was trained on classes of these names. If they are the same, the network may have "
            "learnt what is wrong in them, and the list is too short. Weights that were trained on other data see more."
        )


def clean(found: Embedded, names: Sequence[str], place: Path) -> None:
    """Write the list, the sheet and the pairs of classes, and print what is in them; names: those of the labels."""
    errors = identity_errors(found.embeddings, found.labels)
    classes = [names[label] for label in errors.classes.tolist()]
    write_csv(place, COLUMNS, (_row(errors, found.paths, classes, i) for i in range(len(errors.suspects))))
    written = [place]
    _or_remove(_sheet_of(place), len(errors.suspects), lambda path: _draw(path, errors, found, classes), written)
    _or_remove(_classes_of(place), len(errors.close), lambda path: _write_pairs(path, errors, classes), written)
    for line in told(errors, found.paths, classes):
        print(line)
    print(f"Written: {', '.join(map(str, written))}")


def _or_remove(path: Path, count: int, write: Callable[[Path], None], written: list[Path]) -> None:
    """Write what has something in it; else an older one must not stand beside the new list."""
    if count:
        write(path)
        written.append(path)
    else:
        path.unlink(missing_ok=True)


# ---- files


def _row(errors: IdentityErrors, paths: Sequence[str], classes: Sequence[str], number: int) -> list[str]:
    i = int(errors.suspects[number])
    other = int(errors.other_class[i])
    cells = [classes[errors.codes[i]], _digits(errors.own[i]), classes[other] if other >= 0 else ""]
    return [paths[i], *cells, _digits(errors.other[i]), errors.reasons[number]]


def _digits(cosine: float) -> str:
    return f"{cosine:.4f}" if math.isfinite(cosine) else ""


def _write_pairs(path: Path, errors: IdentityErrors, classes: Sequence[str]) -> None:
    sizes = np.bincount(errors.codes).tolist()
    rows = ([classes[a], classes[b], _digits(c), str(sizes[a]), str(sizes[b])] for a, b, c in errors.close)
    write_csv(path, PAIR_COLUMNS, rows)


def _draw(path: Path, errors: IdentityErrors, found: Embedded, classes: Sequence[str]) -> None:
    rows = [_cells(errors, found, classes, number) for number in range(min(DRAWN, len(errors.suspects)))]
    atomic_write(path, picture_sheet(rows, most=DRAWN))


def _cells(errors: IdentityErrors, found: Embedded, classes: Sequence[str], number: int) -> list[Cell]:
    """The suspect, the picture in the middle of its class, the one in the middle of the nearest other class."""
    i = int(errors.suspects[number])
    own, other = int(errors.codes[i]), int(errors.other_class[i])
    cells = [Cell(found.paths[i], (os.path.basename(found.paths[i]), f"{number + 1}: {errors.reasons[number]}"))]
    for place, said, cosine in ((own, "labelled", errors.own[i]), (other, "nearest other", errors.other[i])):
        middle = most_central(errors, found.embeddings, place, but=i) if place >= 0 else None
        if middle is not None:
            cells.append(Cell(found.paths[middle], (classes[place], f"{said}, {cosine:.2f}")))
    return cells


# ---- what is said


def told(errors: IdentityErrors, paths: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The counts, the first of the list, and the pairs of classes, line by line."""
    alone = int((np.bincount(errors.codes) == 1).sum())
    lines = [
        "",
        f"{len(errors.suspects):,} of {len(paths):,} pictures are probably in the wrong class, or hard to know",
    ]
    counts = Counter(errors.reasons)
    lines += [f"  {counts[reason]:6,} {said}" for reason, said in SAID.items()]
    if errors.far_cosine is not None:
        lines.append(f"  far is a cosine below {errors.far_cosine:.3f} to the centre of the class's other pictures")
    if alone:
        lines.append(f"  {alone:,} alone in their class, and not judged")
    for number in range(min(PRINTED, len(errors.suspects))):
        path, name, own, other, cosine, reason = _row(errors, paths, classes, number)
        lines.append(f"{number + 1:3d}  {reason:6s}  {path}: {name} {own}, {other} {cosine}")
    lines.append(f"{len(errors.close):,} pairs of classes are so close that they are probably one")
    lines += [f"     {classes[a]} and {classes[b]}: {cosine:.3f}" for a, b, cosine in errors.close[:PRINTED]]
    return lines
