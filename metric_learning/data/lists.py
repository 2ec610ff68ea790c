"""Files that list pictures: Stanford Online Products' lists and csv tables. Errors name the file and the line."""

import csv
import difflib
from collections.abc import Iterator
from itertools import compress
from pathlib import Path

from metric_learning.checks import UserError, check_choice
from metric_learning.data.names import blocks
from metric_learning.data.samples import Parts, SamplePacker, Samples

SOP_HEADER = "image_id class_id super_class_id path"
COLUMNS = ("path", "label", "group", "split")
PARTS = ("train", "val", "test")


def read_list(path: str | Path, data_dir: str | Path | None = None) -> tuple[str, Parts]:
    """Read one list file: ("sop" or "csv", its parts). A SOP list counts paths from `data_dir` (or its folder)."""
    path = Path(path)
    if _first_line(path).split() == SOP_HEADER.split() or path.suffix.lower() == ".txt":
        return "sop", {"all": read_sop_list(path, data_dir)}
    return "csv", read_csv(path)


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
    packer.add(columns[3], [str(int(label)) for label in columns[1]])


def _check_sop_row(line: str, where: str) -> None:
    fields = line.split()
    if len(fields) != 4:
        raise UserError(f"{where}: a row must have 4 columns ({SOP_HEADER}); got {len(fields)}: {line.strip()[:60]!r}.")
    for name, value in zip(SOP_HEADER.split(), fields[:3], strict=False):
        if not (value.isascii() and value.isdigit()):
            raise UserError(f"{where}: {name} must be a whole number; got {value!r}.")


def read_csv(path: Path) -> Parts:
    """Header `path,label[,group][,split]` in any order; paths count from the csv's folder; others are ignored."""
    parts: dict[str, SamplePacker] = {}
    try:
        reader = csv.reader(_lines(path), strict=True)
        columns = _csv_columns(next(reader, []), path)
        for block in blocks((reader.line_num, row) for row in reader if row):
            _csv_block(block, columns, path, parts)
    except csv.Error as error:
        raise UserError(f"{path} is not a csv file: {error}.") from error
    if not parts:
        raise UserError(f"{path} lists no pictures: there is nothing below its header.")
    return {name: packer.packed() for name, packer in parts.items()}


def _csv_columns(header: list[str], path: Path) -> list[str]:
    columns = [name.strip().lower() for name in header]
    for name in COLUMNS:
        if columns.count(name) > 1 or (columns.count(name) == 0 and name in ("path", "label")):
            count = "twice" if name in columns else "not at all"
            got = ",".join(header)[:60]
            raise UserError(
                f"{path}:1: the header must be path,label[,group][,split]; {name!r} is there {count}: {got!r} "
                "(--dataset=folders reads picture folders instead)."
            )
    for name in set(columns) - set(COLUMNS):
        # A column is ignored only if it cannot be a misspelt one: a lost `split` would train on the test pictures.
        near = difflib.get_close_matches(name, [other for other in COLUMNS if other not in columns], 1, cutoff=0.75)
        if near:
            raise UserError(f"{path}:1: the column {name!r} is unknown. Did you mean {near[0]!r}?")
    return columns


def _csv_block(
    rows: list[tuple[int, list[str]]], columns: list[str], path: Path, parts: dict[str, SamplePacker]
) -> None:
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
    split = cell.pop("split", ["all"] * len(rows))
    for part in dict.fromkeys(split):
        here = [name == part for name in split]
        chosen = {name: list(compress(values, here)) for name, values in cell.items()}
        packer = parts.setdefault(part, SamplePacker(str(path.parent)))
        packer.add(chosen["path"], chosen["label"], chosen.get("group"))


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
