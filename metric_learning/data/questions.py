"""Lists of pairs to be scored, whose answers nobody has to know."""

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
from metric_learning.data.pair_sources import read_pairs
from metric_learning.data.pictures import Source
from metric_learning.files import one_line

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Questions:
    """P pairs of N pictures, in the order of the list.

    names (N'), item_of (N'): what the list calls a picture, and its index into items (N), the pictures themselves; two
    names may be one picture. a, b (P,): indices into names. groups (P,): indices into group_names; None without groups.
    missing: item -> why no picture is there for it.
    """

    items: Sequence[Source]
    names: list[str]
    item_of: Indices
    a: Indices
    b: Indices
    groups: Indices | None
    group_names: list[str]
    missing: dict[int, str] = field(default_factory=dict)


def read_questions(path: str, root: str | None) -> Questions:
    """A csv with the header a,b[,group] (other columns are passed over), or any list that `read_pairs` knows.

    Pictures of the csv lie beside it or else below `root`. Raises UserError with file and line.
    """
    where = Path(path)
    if where.is_file() and (where.suffix.lower() == ".csv" or {"a", "b"} <= set(_header(where))):
        return _read_csv(where, root)
    pairs = read_pairs(path, root)
    groups = None if pairs.group_names == ["all"] else pairs.groups
    names = [str(item) for item in pairs.items]
    return Questions(
        pairs.items, names, np.arange(len(names)), pairs.a, pairs.b, groups, pairs.group_names, pairs.missing
    )


def _header(path: Path) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return [name.strip() for name in file.readline(1000).split(",")]
    except OSError as error:
        raise UserError(f"Can't read the pairs {path}: {one_line(error)}.") from error


def _read_csv(path: Path, root: str | None) -> Questions:
    names: dict[str, int] = {}
    groups: dict[str, int] = {}
    rows = []
    for number, a, b, group in _rows(path):
        if not a or not b:
            raise UserError(f"{path}:{number}: a pair needs two pictures; got {brief([a, b])}.")
        first, second = names.setdefault(a, len(names)), names.setdefault(b, len(names))
        rows.append((first, second, groups.setdefault(group, len(groups))))
    if not rows:
        raise UserError(f"{path} lists no pairs.")
    items: dict[str, int] = {}
    item_of = [items.setdefault(_place(path.parent, root, name), len(items)) for name in names]
    first_ones, second_ones, codes = np.array(rows, np.int64).T
    kinds = None if list(groups) == [""] else codes
    return Questions(list(items), list(names), np.array(item_of), first_ones, second_ones, kinds, list(groups))


def _rows(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """(line number, a, b, group or '') of each row."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            check_columns(path, header)
            columns = [name.strip() for name in header]
            _check_header(path, columns)
            places = [columns.index(name) if name in columns else len(columns) for name in ("a", "b", "group")]
            for row in rows:
                if row:
                    a, b, group = (row[place] if place < len(row) else "" for place in places)
                    yield rows.line_num, a, b, group
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"Can't read {path}: {one_line(error)}.") from error


def _check_header(path: Path, columns: list[str]) -> None:
    if not {"a", "b"} <= set(columns):
        raise UserError(f"{path}:1: the header must be a,b[,group]; got {','.join(columns)[:60]!r}.")
    for name in columns:  # a misspelt `group` would be passed over
        if name != "group" and difflib.get_close_matches(name.lower(), ["group"], 1, cutoff=0.75):
            raise UserError(f"{path}:1: the column {brief(name)} is unknown. Did you mean 'group'?")


def _place(near: Path, root: str | None, name: str) -> str:
    """The picture beside the list if there is one, else below `root`."""
    beside = near / name
    return str(beside if root is None or os.path.exists(beside) else Path(root) / name)
