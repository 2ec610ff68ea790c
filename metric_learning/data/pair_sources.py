"""What kind of list of pairs a path names, recognised by what lies there."""

from pathlib import Path

from metric_learning.checks import UserError
from metric_learning.data.encoded import read_bin
from metric_learning.data.face_pairs import counts_of, is_row, read_lfw, read_rfw, rfw_lists
from metric_learning.data.pair_lists import PairList, read_csv_pairs
from metric_learning.files import one_line

RFW = "rfw"


def read_pairs(path: str, root: str | None, of_templates: bool = False) -> PairList:
    """Read a list of pairs; `root` is --data_dir, below which its pictures lie unless they lie beside the list.

    of_templates: a csv that names templates. Else, tried in this order: the word rfw, or a folder: RFW. A `.bin`:
    InsightFace's. By the first line: one count, LFW View 1; two, LFW View 2; a row of a person and numbers, one of
    RFW's lists. Anything else: a csv with the header a,b,same[,group]. Raises UserError with file and line.
    """
    where = Path(path)
    if of_templates:
        return read_csv_pairs(where, None, of_templates=True)
    if path.lower() == RFW and not where.exists():
        return _rfw_below(root)
    if where.is_dir():
        lists = rfw_lists(where)
        if not lists:
            raise UserError(
                f"Can't read the pairs {path}: Is a directory, and not RFW's: no txts/<Race>/<Race>_pairs.txt in it."
            )
        return read_rfw(lists, Path(root) if root else None)
    if where.suffix.lower() == ".bin":
        return read_bin(where)
    line = _first_line(where)
    if counts_of(line):
        return read_lfw(where, root)
    if is_row(line):
        return read_rfw([where], Path(root) if root else None)
    return read_csv_pairs(where, root)


def _rfw_below(root: str | None) -> PairList:
    lists = rfw_lists(Path(root)) if root and Path(root).is_dir() else []
    if not lists:
        raise UserError(
            f"--pairs=rfw needs RFW's layout in --data_dir={root}: txts/<Race>/<Race>_pairs.txt and data/<Race>/."
        )
    return read_rfw(lists, Path(str(root)))


def _first_line(path: Path) -> str:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.readline(1000)
    except OSError as error:
        raise UserError(f"Can't read the pairs {path}: {one_line(error)}.") from error
