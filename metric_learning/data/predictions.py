"""What was said of pictures, as a csv: one row a picture, a column `p(<class>)` for the probability of each class."""

import csv
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.files import ODD, one_line, write_csv


class Predictions(NamedTuple):
    """paths (N,), labels (N,): the class that the data says, '' for none; probabilities (N, C) of the classes (C,)."""

    paths: list[str]
    labels: list[str]
    probabilities: NDArray[np.float64]
    classes: list[str]

    @classmethod
    def join(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Those of several, of the same classes, one behind the other."""
        names = [[name for part in parts for name in part[i]] for i in (0, 1)]
        return cls(names[0], names[1], np.concatenate([part.probabilities for part in parts]), parts[0].classes)

    def take(self, rows: NDArray[np.int64]) -> "Predictions":
        """Those of some rows, in their order."""
        names = [[column[i] for i in rows] for column in (self.paths, self.labels)]
        return Predictions(names[0], names[1], self.probabilities[rows], self.classes)


def column(name: str) -> str:
    return f"p({name})"


def shown(probabilities: NDArray[np.floating]) -> list[str]:
    """Probabilities with the digits that float32 has."""
    return [f"{value:.7g}" for value in probabilities]


def write_predictions(path: str | Path, found: Predictions) -> None:
    """path,label,predicted and the probabilities, atomically."""
    best = found.probabilities.argmax(axis=1) if len(found.paths) else []
    each = zip(found.paths, found.labels, best, found.probabilities, strict=True)
    rows = ([name, label, found.classes[top], *shown(row)] for name, label, top, row in each)
    write_csv(path, ["path", "label", "predicted", *map(column, found.classes)], rows)


def read_predictions(path: str | Path) -> Predictions:
    """The reverse of `write_predictions`; a UserError for what is none."""
    names: list[str] = []
    labels: list[str] = []
    numbers = array("d")
    try:
        with open(path, newline="", encoding="utf-8", errors=ODD) as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            classes = [name[2:-1] for name in header[3:]]
            if header != ["path", "label", "predicted", *map(column, classes)] or len(set(classes)) < len(header) - 3:
                raise ValueError("its header is not path,label,predicted,p(<class>),...")
            known = {"", *classes}
            for row in reader:
                numbers.extend(_shares(row, known, header, f"line {reader.line_num}"))
                names.append(row[0])
                labels.append(row[1])
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is no list of predictions of this toolkit: {one_line(error)}.") from error
    if not classes:
        raise UserError(f"{path} is no list of predictions of this toolkit: it has no classes.")
    return Predictions(names, labels, np.array(numbers).reshape(len(names), len(classes)), classes)


def _shares(row: list[str], known: set[str], header: list[str], where: str) -> list[float]:
    """The probabilities of a row; ValueError where it is not one."""
    if len(row) != len(header):
        raise ValueError(f"{where} has {len(row)} columns, its header {len(header)}")
    if row[1] not in known:
        raise ValueError(f"the label of {where} is {row[1][:40]!r}, which is no class of its header")
    shares = [float(cell) for cell in row[3:]]
    if not all(0 <= share <= 1.001 for share in shares):  # NaN fails too
        raise ValueError(f"{where} has a probability outside 0..1")
    return shares
