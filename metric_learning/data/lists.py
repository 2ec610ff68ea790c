"""Files that list pictures: Stanford Online Products' lists and csv tables. Errors name the file and the line."""

import csv
import difflib
import os
from pathlib import Path
from typing import NamedTuple

from metric_learning.checks import UserError, check_choice

SOP_HEADER = "image_id class_id super_class_id path"
PARTS = ("train", "val", "test")


class Sample(NamedTuple):
    """One picture: where it lies, the name of its class, and the group it belongs to ('' where there are no groups)."""

    path: str
    label: str
    group: str = ""


Parts = dict[str, list[Sample]]


def read_list(path: str | Path, data_dir: str | Path | None = None) -> tuple[str, Parts]:
    """Read one list file: ("sop" or "csv", its parts). A SOP list counts paths from `data_dir` (or its folder)."""
    path = Path(path)
    if _lines(path)[0].split() == SOP_HEADER.split() or path.suffix.lower() == ".txt":
        return "sop", {"all": read_sop_list(path, data_dir)}
    return "csv", read_csv(path)


def read_sop_list(path: Path, data_dir: str | Path | None = None) -> list[Sample]:
    """`image_id class_id super_class_id path` rows after that header -> samples in file order, label = class_id."""
    folder = str(path.parent if data_dir is None else data_dir)
    lines = _lines(path)
    if lines[0].split() != SOP_HEADER.split():
        raise UserError(f"{path}:1: the header must be '{SOP_HEADER}'; got {lines[0][:60]!r}.")
    rows = ((number, line) for number, line in enumerate(lines[1:], start=2) if line.strip())
    samples = [_sop_row(line, f"{path}:{number}", folder) for number, line in rows]
    if not samples:
        raise UserError(f"{path} lists no pictures: there is nothing below its header.")
    return samples


def _sop_row(line: str, where: str, folder: str) -> Sample:
    fields = line.split()
    if len(fields) != 4:
        raise UserError(f"{where}: a row must have 4 columns ({SOP_HEADER}); got {len(fields)}: {line.strip()[:60]!r}.")
    for name, value in zip(SOP_HEADER.split(), fields[:3], strict=False):
        if not (value.isascii() and value.isdigit()):
            raise UserError(f"{where}: {name} must be a whole number; got {value!r}.")
    return Sample(os.path.join(folder, fields[3]), str(int(fields[1])))


def read_csv(path: Path) -> Parts:
    """Header `path,label[,group][,split]` in any order; paths count from the csv's folder; others are ignored."""
    try:
        reader = csv.reader(_lines(path), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path} is not a csv file: {error}.") from error
    columns = _csv_columns(rows[0][1] if rows else [], path)
    parts: Parts = {}
    for number, row in rows[1:]:
        if row:
            _csv_row(row, columns, f"{path}:{number}", path.parent, parts)
    if not parts:
        raise UserError(f"{path} lists no pictures: there is nothing below its header.")
    return parts


def _csv_columns(header: list[str], path: Path) -> list[str]:
    columns = [name.strip().lower() for name in header]
    known = ("path", "label", "group", "split")
    for name in known:
        if columns.count(name) > 1 or (columns.count(name) == 0 and name in ("path", "label")):
            count = "twice" if name in columns else "not at all"
            got = ",".join(header)[:60]
            raise UserError(
                f"{path}:1: the header must be path,label[,group][,split]; {name!r} is there {count}: {got!r} "
                "(--dataset=folders reads picture folders instead)."
            )
    for name in set(columns) - set(known):
        # A column is ignored only if it cannot be a misspelt one: a lost `split` would train on the test pictures.
        near = difflib.get_close_matches(name, [other for other in known if other not in columns], 1, cutoff=0.75)
        if near:
            raise UserError(f"{path}:1: the column {name!r} is unknown. Did you mean {near[0]!r}?")
    return columns


def _csv_row(row: list[str], columns: list[str], where: str, folder: Path, parts: Parts) -> None:
    if len(row) != len(columns):
        raise UserError(f"{where}: a row must have {len(columns)} columns like the header; got {len(row)}.")
    cell = {name: value.strip() for name, value in zip(columns, row, strict=True)}
    for name in ("path", "label", "group", "split"):
        if cell.get(name) == "":
            raise UserError(f"{where}: {name} is empty; fill it in or drop the row.")
    part = cell.get("split", "all")
    if "split" in cell:
        check_choice(f"{where}: split", part, PARTS)
    sample = Sample(os.path.join(folder, cell["path"]), cell["label"], cell.get("group", ""))
    parts.setdefault(part, []).append(sample)


def _lines(path: Path) -> list[str]:
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the header.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a UTF-8 text file: {error.reason} at byte {error.start}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
