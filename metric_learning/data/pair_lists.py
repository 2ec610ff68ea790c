"""Lists of pairs with their answers, and of the pictures that make a template: the two csv tables."""

import csv
import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError, brief
from metric_learning.data.limits import check_columns
from metric_learning.data.pictures import Source
from metric_learning.files import one_line

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class PairList:
    """P pairs of N things with the answer: same or not.

    items (N): pictures (a path or an encoded picture), or names of templates. a, b (P,): indices into items. same (P,).
    groups (P,): indices into group_names. kind: what the list was recognised as. folds (P,): the fold of each pair
    where the protocol of the list has folds. missing: item -> why no picture is there for it.
    """

    items: Sequence[Source]
    a: Indices
    b: Indices
    same: NDArray[np.bool_]
    groups: Indices
    group_names: list[str]
    kind: str
    folds: Indices | None = None
    missing: dict[int, str] = field(default_factory=dict)
    by_answer: bool = False

    def fold_numbers(self, count: int | None) -> Indices | None:
        """The fold of each pair (P,): the list's own, or `count` folds, contiguous in file order within each group.

        by_answer: all positive pairs come first, then all negative ones (LFW View 1). Either kind is cut by itself
        then, or a fold would hold one kind only.
        """
        if count is None:
            return self.folds
        numbers = np.zeros(len(self.a), np.int64)
        strata = 2 * self.groups + (self.same if self.by_answer else 0)
        for stratum in np.unique(strata):
            members = np.flatnonzero(strata == stratum)
            numbers[members] = contiguous(len(members), count)
        return numbers


def contiguous(pairs: int, folds: int) -> Indices:
    """The fold of each of so many pairs (P,): 0, 0, ..., 1, 1, ...; the first P % folds folds hold a pair more."""
    sizes = [pairs // folds + (fold < pairs % folds) for fold in range(folds)]
    return np.repeat(np.arange(folds), sizes)


class PairCollector:
    """Takes pairs row by row, gives each item one number, and makes the list of them."""

    def __init__(self) -> None:
        self.items: dict[str, int] = {}
        self.groups: dict[str, int] = {}
        self.rows: list[tuple[int, int, bool, int]] = []

    def add(self, a: str, b: str, same: bool, group: str = "all") -> None:
        first, second = self.items.setdefault(a, len(self.items)), self.items.setdefault(b, len(self.items))
        self.rows.append((first, second, same, self.groups.setdefault(group, len(self.groups))))

    def pairs(self, kind: str, folds: Indices | None = None, by_answer: bool = False) -> PairList:
        a, b, same, groups = np.array(self.rows, np.int64).reshape(-1, 4).T
        names = list(self.groups)
        return PairList(list(self.items), a, b, same == 1, groups, names, kind, folds, by_answer=by_answer)


def read_csv_pairs(path: Path, root: str | None, of_templates: bool = False) -> PairList:
    """Header a,b,same[,group]; pictures relative to the csv, or else to `root`; names as they are for templates."""
    found, place = PairCollector(), _Beside(path, root)
    for number, (a, b, same, group) in _rows(path, ("a", "b", "same"), "group"):
        if same not in ("0", "1") or not a or not b:
            raise UserError(f"{path}:{number}: a pair needs two pictures and same=0 or 1; got {brief([a, b, same])}.")
        found.add(*((a, b) if of_templates else (place(a), place(b))), same == "1", group or "all")
    if not found.rows:
        raise UserError(f"{path} lists no pairs.")
    return found.pairs("csv of templates" if of_templates else "csv")


@dataclass(frozen=True)
class TemplateList:
    """The pictures of templates: paths (N), names of the template and of the medium of each, both (N)."""

    paths: list[str]
    templates: list[str]
    media: list[str]


def read_templates(path: Path, root: str | None) -> TemplateList:
    """Header path,template,media: which template a picture belongs to, and which medium (a photograph, a video)."""
    place = _Beside(path, root)
    paths, templates, media = [], [], []
    for number, (picture, template, medium, _) in _rows(path, ("path", "template", "media")):
        if not picture or not template or not medium:
            raise UserError(
                f"{path}:{number}: path, template and media must be given; got {brief([picture, template, medium])}."
            )
        paths.append(place(picture))
        templates.append(template)
        media.append(medium)
    if not paths:
        raise UserError(f"{path} lists no pictures: there is nothing below its header.")
    return TemplateList(paths, templates, media)


def _rows(path: Path, needed: tuple[str, str, str], extra: str = "") -> Iterator[tuple[int, list[str]]]:
    """(line number, values of the three needed columns and the extra one ('' without)) of each row of a csv."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            check_columns(path, header)
            columns = [name.strip() for name in header]
            _check_header(path, columns, needed, extra)
            places = [columns.index(name) for name in (*needed, extra) if name in columns]
            for row in rows:
                if row:
                    values = [row[place] if place < len(row) else "" for place in places]
                    yield rows.line_num, values if len(values) == 4 else [*values, ""]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"Can't read {path}: {one_line(error)}.") from error


def _check_header(path: Path, columns: list[str], needed: tuple[str, ...], extra: str) -> None:
    wanted = ",".join(needed) + (f"[,{extra}]" if extra else "")
    if not set(needed) <= set(columns):
        raise UserError(f"{path}:1: the header must be {wanted}; got {','.join(columns)[:60]!r}.")
    for name in columns:
        # A misspelt `group` would be passed over, and all groups reported as one.
        if name not in (*needed, extra) and extra and difflib.get_close_matches(name.lower(), [extra], 1, cutoff=0.75):
            raise UserError(f"{path}:1: the column {brief(name)} is unknown. Did you mean {extra!r}?")


class _Beside:
    """The picture beside the csv if there is one, else below `root`; each name is looked for once."""

    def __init__(self, csv_file: Path, root: str | None) -> None:
        self.near, self.root = csv_file.parent, root
        self.known: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        if name not in self.known:
            near = self.near / name
            beside = self.root is None or os.path.exists(near)  # False, too, for what can't be a name
            self.known[name] = str(near if beside else Path(str(self.root)) / name)
        return self.known[name]
