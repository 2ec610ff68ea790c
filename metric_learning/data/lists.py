"""Files that list pictures: Stanford Online Products' lists and csv tables. Errors name the file and the line."""

import csv
import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from metric_learning.checks import UserError, brief, check_choice
from metric_learning.data.by_id import PicturesById
from metric_learning.data.limits import check_columns
from metric_learning.data.names import blocks
from metric_learning.data.samples import Parts, SamplePacker, Samples

SOP_HEADER = "image_id class_id super_class_id path"
COLUMNS = ("path", "id", "label", "group", "split")
GROUP_COLUMNS = ("group", "race")  # which column names the groups, where it is not said: the first that is there
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class CsvRules:
    """How a csv is read. folder: where pictures that are named by their id are looked for [the csv's own].

    group_column: the column of the groups. skip_missing: a row whose picture is not there is left out, else refused.
    labelled: there must be labels; else they may be missing, as in a list of pictures to say them of, and are ''.
    """

    folder: Path | None = None
    group_column: str | None = None
    skip_missing: bool = False
    labelled: bool = True


PLAIN = CsvRules()


def read_list(path: str | Path, data_dir: str | Path | None = None, rules: CsvRules = PLAIN) -> tuple[str, Parts]:
    """Read one list file: ("sop" or "csv", its parts). A SOP list counts paths from `data_dir` (or its folder)."""
    path = Path(path)
    if _first_line(path).split() == SOP_HEADER.split() or path.suffix.lower() == ".txt":
        return "sop", {"all": read_sop_list(path, data_dir)}
    return "csv", read_csv(path, rules)


def read_sop_list(path: Path, data_dir: str | Path | None = None) -> Samples:
    """`image_id class_id super_class_id path` rows after that header -> samples in file order, label = class_id."""
    packer = SamplePacker(str(path.parent if data_dir is None else data_dir))
    header = _first_line(path)
    if header.split() != SOP_HEADER.split():
        raise UserError(f"{path}:1: the header must be '{SOP_HEADER}'; got {header[:60]!r}.")
    lines = enumerate(_lines(path), start=1)
    next(lines)
    for block in blocks((number, line) for number, line in lines if line.strip()):
        _sop_block(block, path, packer)
    samples = packer.packed()
    if not len(samples):
        raise UserError(f"{path} lists no pictures: there is nothing below its header.")
    return samples


def _sop_block(lines: list[tuple[int, str]], path: Path, packer: SamplePacker) -> None:
    rows = [line.split() for _, line in lines]
    columns = list(zip(*rows, strict=False))
    numbers = "".join("".join(column) for column in columns[:3])
    # All rows at once; which of them is wrong is looked for only where one is.
    if set(map(len, rows)) != {4} or not (numbers.isascii() and numbers.isdigit()):
        for number, line in lines:
            _check_sop_row(line, f"{path}:{number}")
    packer.add(columns[3], [label.lstrip("0") or "0" for label in columns[1]])


def _check_sop_row(line: str, where: str) -> None:
    fields = line.split()
    if len(fields) != 4:
        raise UserError(f"{where}: a row must have 4 columns ({SOP_HEADER}); got {len(fields)}: {line.strip()[:60]!r}.")
    for name, value in zip(SOP_HEADER.split(), fields[:3], strict=False):
        if not (value.isascii() and value.isdigit()):
            raise UserError(f"{where}: {name} must be a whole number; got {brief(value)}.")


def read_csv(path: Path, rules: CsvRules = PLAIN) -> Parts:
    """Header `path,label[,group][,split]` in any order; others are ignored. Paths count from the csv's folder.

    Instead of path, `id`: the picture's name without its ending, below rules.folder.
    """
    parts: dict[str, SamplePacker] = {}
    table = _Table(path, rules)
    for cells in table.blocks():
        split = cells.pop("split", ["all"] * len(cells["path"]))
        for part in dict.fromkeys(split):
            here = [name == part for name in split]
            chosen = {name: list(compress(values, here)) for name, values in cells.items()}
            packer = parts.setdefault(part, SamplePacker(table.root))
            packer.add(chosen["path"], chosen.get("label", [""] * sum(here)), chosen.get("group"))
    if not parts:
        raise UserError(f"{path} lists no pictures: there is nothing below its header.")
    return {name: packer.packed() for name, packer in parts.items()}


def read_names(path: Path, rules: CsvRules) -> tuple[str, list[str], list[str]]:
    """("id" or "path", what that column says of each picture, where that lies): a list to answer in order."""
    table = _Table(path, rules)
    names, places = [], []
    for cells in table.blocks():
        names += cells[table.named]
        places += [os.path.join(table.root, place) for place in cells["path"]]
    if not names:
        raise UserError(f"{path} lists no pictures: there is nothing below its header.")
    return table.named, names, places


class _Table:
    """A csv, its header read. named: the column that names the pictures; root: what their paths count from."""

    def __init__(self, path: Path, rules: CsvRules) -> None:
        self.path, self.rules = path, rules
        self._reader = csv.reader(_lines(path), strict=True)
        try:
            header = next(self._reader, [])
        except csv.Error as error:
            raise self._no_csv(error) from error
        check_columns(path, header)
        self.columns = _csv_columns(header, path, rules)
        self.named = "path" if "path" in self.columns else "id"
        self.root = str(path.parent if self.named == "path" else rules.folder or path.parent)

    def _no_csv(self, error: csv.Error) -> UserError:
        return UserError(f"{self.path} is not a csv file: {error}.")

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """(line, cells) of the rows that hold any; far too wide ones are refused before there are many of them."""
        widest = 1000 + len(self.columns)
        for row in self._reader:
            if row:
                if len(row) > widest:
                    _check_csv_row(row, self.columns, f"{self.path}:{self._reader.line_num}")
                yield self._reader.line_num, row

    def blocks(self) -> Iterator[dict[str, list[str]]]:
        """The cells of some rows by column; `path` is among them, whatever names the pictures."""
        pictures = PicturesById(Path(self.root), self.path.stem) if self.named == "id" else None
        try:
            for block in blocks(self._rows()):
                cells = _csv_cells(block, self.columns, self.path)
                if pictures is not None:
                    where = [f"{self.path}:{number}" for number, _ in block]
                    cells["path"] = pictures.find(cells["id"], where, self.rules.skip_missing)
                    there = [bool(place) for place in cells["path"]]
                    cells = {name: list(compress(values, there)) for name, values in cells.items()}
                yield cells
        except csv.Error as error:
            raise self._no_csv(error) from error


def _csv_columns(header: list[str], path: Path, rules: CsvRules) -> list[str]:
    """The header's names; the column of the groups is called so."""
    columns = [name.strip().lower() for name in header]
    columns = _with_groups(columns, path, rules)
    named = "id" if "id" in columns and "path" not in columns else "path"
    for name in COLUMNS:
        needed = name == named or (name == "label" and rules.labelled)
        if columns.count(name) > 1 or (columns.count(name) == 0 and needed):
            count = "twice" if name in columns else "not at all"
            got = ",".join(header)[:60]
            raise UserError(
                f"{path}:1: the header must be path,label[,group][,split] or id,label[,group][,split]; {name!r} is "
                f"there {count}: {got!r} (--dataset=folders reads picture folders instead)."
            )
    known = (*COLUMNS, *GROUP_COLUMNS)
    for name in set(columns) - set(known):
        # A column is ignored only if it cannot be a misspelt one: a lost `split` would train on the test pictures.
        near = difflib.get_close_matches(name, [other for other in known if other not in columns], 1, cutoff=0.75)
        if near:
            raise UserError(f"{path}:1: the column {brief(name)} is unknown. Did you mean {near[0]!r}?")
    return columns if named == "id" else ["" if name == "id" else name for name in columns]


def _with_groups(columns: list[str], path: Path, rules: CsvRules) -> list[str]:
    wanted = rules.group_column.lower() if rules.group_column is not None else None
    if wanted is not None and wanted not in columns:
        raise UserError(f"{path}:1: --group_column={rules.group_column}: the columns are {', '.join(columns)[:200]}.")
    chosen = wanted or next((name for name in GROUP_COLUMNS if name in columns), None)
    if chosen in (None, "group"):
        return columns
    if chosen in COLUMNS:
        raise UserError(f"{path}:1: --group_column={rules.group_column} is no column of groups.")
    return ["group" if name == chosen else "" if name == "group" else name for name in columns]


def _csv_cells(rows: list[tuple[int, list[str]]], columns: list[str], path: Path) -> dict[str, list[str]]:
    cells = dict(zip(columns, zip(*(row for _, row in rows), strict=False), strict=False))
    cell = {name: [value.strip() for value in cells[name]] for name in COLUMNS if name in cells}
    # All rows at once; which of them is wrong is looked for only where one is.
    if (
        {len(row) for _, row in rows} != {len(columns)}
        or any("" in values for values in cell.values())
        or not set(cell.get("split", PARTS)) <= set(PARTS)
    ):
        for number, row in rows:
            _check_csv_row(row, columns, f"{path}:{number}")
    return cell


def _check_csv_row(row: list[str], columns: list[str], where: str) -> None:
    if len(row) != len(columns):
        raise UserError(f"{where}: a row must have {len(columns)} columns like the header; got {len(row)}.")
    cell = {name: value.strip() for name, value in zip(columns, row, strict=True)}
    for name in COLUMNS:
        if cell.get(name) == "":
            raise UserError(f"{where}: {name} is empty; fill it in or drop the row.")
    if "split" in cell:
        check_choice(f"{where}: split", cell["split"], PARTS)


def _first_line(path: Path) -> str:
    return next(_lines(path), "")


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file without their ends, one at a time."""
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the header.
        with open(path, encoding="utf-8-sig") as file:
            for line in file:
                yield line.removesuffix("\n")
    except UnicodeDecodeError:
        _tell_where(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def _tell_where(path: Path) -> None:
    """The error of a file that is not UTF-8: decoded as a whole, so that the place counts from its beginning."""
    try:
        path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a UTF-8 text file: {error.reason} at byte {error.start}.") from error
