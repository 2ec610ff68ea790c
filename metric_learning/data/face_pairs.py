"""Lists of pairs of faces as their publishers lay them out: LFW's two views, and RFW's, one list a race.

A row is `person n1 n2`, two pictures of one person, or `person1 n1 person2 n2`, of two. Picture n of a person is
`<person>/<person>_000n`, with any extension of a picture.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metric_learning.checks import UserError, brief
from metric_learning.data.pair_lists import Indices, PairCollector, PairList, contiguous
from metric_learning.data.walk import is_picture, visible
from metric_learning.files import one_line

RFW_FOLDS = 10


class Row(NamedTuple):
    """One line of a list: the two pictures as (person, number); same where the line names one person."""

    line: int
    a: tuple[str, int]
    b: tuple[str, int]
    same: bool


def counts_of(line: str) -> list[int]:
    """The numbers of a header line, [] where it is none: `500` -> [500], `10<TAB>300` -> [10, 300]."""
    fields = line.split()
    return [int(text) for text in fields] if len(fields) in (1, 2) and all(map(_is_count, fields)) else []


def is_row(line: str) -> bool:
    """Whether a line reads as a pair of pictures by person and number."""
    return _fields(line) is not None


def read_lfw(path: Path, root: str | None) -> PairList:
    """LFW's pairs.txt (View 2: folds and n, then n positive and n negative pairs a fold) or a View 1 list (n, once).

    Pictures lie below `root`, or beside the list. http://vis-www.cs.umass.edu/lfw/README.txt
    """
    lines = read_lines(path)
    counts = counts_of(lines[0])
    view_two = len(counts) == 2
    folds, each = counts if view_two else (1, *(counts or [0]))
    if folds < 1 + view_two or each < 1:
        raise UserError(f"{path}:1: the first line must say how many pairs there are; got {brief(lines[0])}.")
    rows = list(_rows(path, lines, first=2))
    if len(rows) != 2 * folds * each:
        said = f"{folds} x 2 x {each}" if view_two else f"2 x {each}"
        raise UserError(f"{path}: its first line says {said} pairs, it has {len(rows)}; is it whole?")
    for place, row in enumerate(rows):
        if row.same != (place % (2 * each) < each):
            kind = "one person (3 columns)" if not row.same else "two people (4 columns)"
            raise UserError(f"{path}:{row.line}: by the first line this is a pair of {kind}, and it is not.")
    finder = PictureFinder([*([Path(root)] if root else []), path.parent])
    found = PairCollector()
    missing = _collect(found, rows, finder, path, "all")
    numbers = np.repeat(np.arange(folds), 2 * each) if view_two else None
    return _listed(found, missing, "LFW View 2" if view_two else "LFW View 1", numbers, by_answer=not view_two)


def read_rfw(lists: list[Path], root: Path | None) -> PairList:
    """RFW: `txts/<Race>/<Race>_pairs.txt` without a header, pictures in `data/<Race>/`; ten folds in each race's list.

    root: the folder of txts and data, or of the races, or of the people; else where txts lies. arXiv 1812.00194.
    """
    found, missing, folds = PairCollector(), dict[str, str](), []
    for path in lists:
        race = path.stem.removesuffix("_pairs")
        group = race if race != path.stem else "all"
        roots = [] if root is None else [root / "data" / race, root / race, root]
        finder = PictureFinder([*roots, path.parent.parent.parent / "data" / race, path.parent])
        rows = list(_rows(path, read_lines(path), first=1))
        missing |= _collect(found, rows, finder, path, group)
        folds.append(contiguous(len(rows), RFW_FOLDS))
    return _listed(found, missing, "RFW", np.concatenate(folds))


def rfw_lists(folder: Path) -> list[Path]:
    """The lists of an RFW folder, by race; `folder` holds txts, or is txts itself. [] where it is neither."""
    txts = folder / "txts" if (folder / "txts").is_dir() else folder
    lists = [Path(race.path) / f"{race.name}_pairs.txt" for race in visible(txts)]
    return sorted(path for path in lists if path.is_file())


def _listed(
    found: PairCollector, missing: dict[str, str], kind: str, folds: Indices | None, by_answer: bool = False
) -> PairList:
    pairs = found.pairs(kind, folds, by_answer)
    pairs.missing.update({found.items[name]: why for name, why in missing.items()})
    return pairs


def read_lines(path: Path) -> list[str]:
    """The lines of a list, at least one."""
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Can't read the pairs {path}: {one_line(error)}.") from error


def _rows(path: Path, lines: list[str], first: int) -> Iterator[Row]:
    empty = True
    for number, line in enumerate(lines[first - 1 :], start=first):
        if not line.strip():
            continue
        fields = _fields(line)
        if fields is None:
            raise UserError(
                f"{path}:{number}: a row must be `person n1 n2` or `person1 n1 person2 n2`; got {line.strip()[:60]!r}."
            )
        empty = False
        yield Row(number, fields[0], fields[1], len(_split(line)) == 3)
    if empty:
        raise UserError(f"{path} lists no pairs.")


def _split(line: str) -> list[str]:
    line = line.strip()
    return [text.strip() for text in (line.split("\t") if "\t" in line else line.split())]


def _fields(line: str) -> tuple[tuple[str, int], tuple[str, int]] | None:
    fields = _split(line)
    if len(fields) == 3:
        fields.insert(2, fields[0])
    if len(fields) != 4 or not fields[0] or not fields[2] or not (_is_count(fields[1]) and _is_count(fields[3])):
        return None
    return (fields[0], int(fields[1])), (fields[2], int(fields[3]))


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


class PictureFinder:
    """Picture n of a person, in the first of the roots that has a folder of the person; each folder is read once."""

    def __init__(self, roots: list[Path]) -> None:
        self.roots = roots
        self.known: dict[str, dict[str, str]] = {}

    def __call__(self, person: str, number: int) -> tuple[str, bool]:
        """(its path, or where it should lie; whether it is there)."""
        if person not in self.known:
            self.known[person] = self._pictures(person)
        name = f"{person}_{number:04d}"
        path = self.known[person].get(name)
        return (path, True) if path else (str(self.roots[0] / person / f"{name}.jpg"), False)

    def _pictures(self, person: str) -> dict[str, str]:
        """Name without extension -> path; of two that differ by extension alone the first by name."""
        folder = next((root / person for root in self.roots if os.path.isdir(root / person)), None)
        if folder is None:
            return {}
        paths = sorted((entry.path for entry in visible(folder) if is_picture(entry)), reverse=True)
        return {os.path.splitext(os.path.basename(path))[0]: path for path in paths}


def _collect(found: PairCollector, rows: list[Row], finder: PictureFinder, path: Path, group: str) -> dict[str, str]:
    """Add the rows to `found`; picture that is not there -> a line that says so."""
    missing: dict[str, str] = {}
    for row in rows:
        paths = []
        for person, number in (row.a, row.b):
            place, there = finder(person, number)
            paths.append(place)
            if not there:
                missing.setdefault(place, f"{place}: no such picture, {path}:{row.line} names it")
        found.add(paths[0], paths[1], row.same, group)
    return missing
