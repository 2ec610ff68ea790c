"""Results of a classification in three forms: a plain-text report, JSON for programs, a PNG plot for people."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from metric_learning.class_plot import MOST_SHOWN, classification_png
from metric_learning.files import atomic_write
from metric_learning.metrics.classification import ClassFigures, Classification
from metric_learning.report import indent, number, percent, plain, table

MOST_CONFUSED = 10
MOST_IN_JSON = 100  # classes: a matrix of more would be most of the file


@dataclass(frozen=True)
class ClassReport:
    """What one classification found.

    about: what was measured and how, in the order to print. split: which pictures, in a word. notes: lines for the end.
    """

    about: Mapping[str, object]
    figures: Classification
    split: str = "test"
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The report for a terminal, ending in a newline."""
        parts = [table([[name, str(value)] for name, value in self.about.items()], left=2)] if self.about else []
        parts += [figures_text(self.figures, self.split), confusion_text(self.figures)]
        if self.notes:
            parts.append("\n".join(self.notes))
        return "\n\n".join(parts) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON types: shares in 0..1, None for what is undefined.

        confusion is None for more than MOST_IN_JSON classes; most_confused is there for any number.
        """
        found = self.figures
        return {
            "about": {name: plain(value) for name, value in self.about.items()},
            "split": self.split,
            "classes": list(found.classes),
            "all": _figures_dict(found.pooled),
            "groups": {name: _figures_dict(figures) for name, figures in found.groups.items()},
            "worst_group": found.worst,
            "accuracy_gap": found.gap,
            "most_confused": [
                {"true": true, "predicted": predicted, "count": count, "share": share}
                for true, predicted, count, share in most_confused(found)
            ],
            "notes": list(self.notes),
        }

    def write_json(self, path: str | Path) -> None:
        """Write `to_dict` to path, whole or not at all."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        atomic_write(path, text + "\n")

    def write_plot(self, path: str | Path) -> bool:
        """Write the plot as a PNG; False, and no file, where there is no picture to speak of."""
        if not self.figures.pooled.count:
            return False
        atomic_write(path, classification_png(self.figures, self.split, most_confused(self.figures)))
        return True


def _figures_dict(found: ClassFigures) -> dict[str, Any]:
    values = {item.name: plain(getattr(found, item.name)) for item in fields(found) if item.name != "confusion"}
    return {**values, "confusion": plain(found.confusion) if len(found.confusion) <= MOST_IN_JSON else None}


def most_confused(found: Classification) -> list[tuple[str, str, int, float]]:
    """(true class, predicted class, pictures, share of the true class) of the MOST_CONFUSED most frequent mistakes.

    Of equally frequent ones the first by true, then by predicted class.
    """
    counts = found.pooled.confusion
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    places = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [divmod(int(place), len(counts)) for place in places if wrong.flat[place]]
    return [
        (found.classes[i], found.classes[j], int(wrong[i, j]), float(wrong[i, j] / counts[i].sum())) for i, j in pairs
    ]


def figures_text(found: Classification, split: str) -> str:
    """A row for all and one a group, then the worst group and the gap."""
    said = (
        f"Classification ({split}), {len(found.classes):,} classes; "
        "95 % interval: Wilson's, of the accuracy; balanced: mean recall over classes"
    )
    head = [
        "group",
        "pictures",
        "accuracy %",
        "95 % interval",
        "balanced %",
        "ROC-AUC",
        "log loss",
        "calibration error",
    ]
    rows = [head, _row("all", found.pooled)]
    if found.groups:
        rows += [["" for _ in head], *(_row(name, figures) for name, figures in found.groups.items())]
    lines = [said, indent(table(rows))]
    if found.worst is not None and found.gap is not None:
        worst = percent(found.groups[found.worst].accuracy)
        lines.append(f"  worst group: {found.worst} ({worst} %); gap, best less worst: {percent(found.gap)} points")
    return "\n".join(lines)


def _row(name: str, found: ClassFigures) -> list[str]:
    interval = "..".join(map(percent, found.interval)) if found.interval else percent(None)
    shares = [percent(found.accuracy), interval, percent(found.balanced_accuracy)]
    return [name, f"{found.count:,}", *shares, *map(number, (found.roc_auc, found.log_loss, found.calibration_error))]


def confusion_text(found: Classification) -> str:
    """The whole matrix for up to MOST_SHOWN classes; the most frequent mistakes for more."""
    if len(found.classes) <= MOST_SHOWN:
        counts = found.pooled.confusion
        totals = counts.sum(axis=1)
        rows = [["true class", *found.classes, "total", "recall %"]]
        for i, name in enumerate(found.classes):
            recall = percent(float(counts[i, i] / totals[i]) if totals[i] else None)
            rows.append([name, *(f"{count:,}" for count in counts[i].tolist()), f"{totals[i]:,}", recall])
        return "Confusion matrix: a row a true class, a column a predicted one\n" + indent(table(rows))
    mistakes = [[true, predicted, f"{n:,}", percent(share)] for true, predicted, n, share in most_confused(found)]
    if not mistakes:
        return "No picture was mistaken."
    rows = [["true class", "predicted", "pictures", "% of the true class"], *mistakes]
    return "Most frequent mistakes\n" + indent(table(rows, left=2))
