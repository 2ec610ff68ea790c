"""Results in three forms: a plain-text report for the terminal, JSON for programs, a PNG plot for people."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metric_learning.files import atomic_write
from metric_learning.metrics.folds import BestAccuracy, FoldAccuracy
from metric_learning.metrics.groups import GroupedResult, Summary
from metric_learning.metrics.retrieval import RetrievalMetrics
from metric_learning.metrics.stored_points import StoredFigures
from metric_learning.metrics.verification import OperatingPoint
from metric_learning.plot import rate, verification_png

UNDEFINED = "undefined"
COUNTS = ("queries", "valid", "without_positive")


@dataclass(frozen=True)
class Report:
    """What one evaluation found; any part may be left out.

    about: what was measured and how (data, split, model, sizes, seed, versions), in the order to print. pairs: which
    pairs the verification is over, in words. folds: group -> accuracy over folds. best: group -> accuracy at the best
    threshold on the list itself. stored: the same pairs at the thresholds that travel with the weights, which were
    chosen on the pairs that stored_on names. reranked: the figures of retrieval after a re-ranking, and how.
    """

    about: Mapping[str, object] = field(default_factory=dict)
    retrieval: RetrievalMetrics | None = None
    verification: GroupedResult | None = None
    pairs: str = "all unordered pairs within each group"
    folds: Mapping[str, FoldAccuracy] = field(default_factory=dict)
    best: Mapping[str, BestAccuracy] = field(default_factory=dict)
    stored: StoredFigures | None = None
    stored_on: str = ""
    reranked: RetrievalMetrics | None = None
    reranked_how: str = ""

    def text(self) -> str:
        """The report for a terminal, ending in a newline."""
        parts = [table([[name, str(value)] for name, value in self.about.items()], left=2)] if self.about else []
        if self.retrieval is not None:
            parts.append(retrieval_text(self.retrieval, self.reranked, self.reranked_how))
        if self.verification is not None:
            parts.append(verification_text(self.verification, self.pairs))
        if self.folds:
            parts.append(folds_text(self.folds))
        if self.best:
            parts.append(best_text(self.best))
        if self.stored is not None:
            parts.append(stored_text(self.stored, self.stored_on))
        return "\n\n".join(parts) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON types: shares in 0..1, None for what is undefined or not measurable."""
        return {
            "about": {name: plain(value) for name, value in self.about.items()},
            "retrieval": plain(self.retrieval),
            **({"reranked": plain(self.reranked | {"how": self.reranked_how})} if self.reranked else {}),
            "pairs": self.pairs if self.verification is not None else None,
            "verification": plain(self.verification and asdict(self.verification)),
            "folds": {name: plain(asdict(found)) for name, found in self.folds.items()},
            "best_threshold": {name: plain(asdict(found)) for name, found in self.best.items()},
            "stored_threshold": plain(self.stored and {"fitted_on": self.stored_on, **asdict(self.stored)}),
        }

    def write_json(self, path: str | Path) -> None:
        """Write `to_dict` to path, whole or not at all."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        atomic_write(path, text + "\n")

    def write_plot(self, path: str | Path) -> bool:
        """Write the verification plot as a PNG; False, and no file, where no group has both kinds of pairs."""
        if self.verification is None or not any(found.roc_far.size for found in self.verification.groups.values()):
            return False
        atomic_write(path, verification_png(self.verification, self.pairs))
        return True


def plain(value: Any) -> Any:
    """value in types that JSON has; what it can't say (NaN, infinity) becomes None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows of cells as lines with aligned columns: the first `left` columns to the left, the others to the right.

    A row of empty cells is drawn as a line.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        if not any(row):
            lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
            continue
        cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def percent(share: float | None) -> str:
    return UNDEFINED if share is None else f"{100 * share:.2f}"


def number(value: float | None, places: int = 4) -> str:
    return UNDEFINED if value is None else f"{value:.{places}f}"


def retrieval_text(figures: RetrievalMetrics, reranked: RetrievalMetrics | None = None, how: str = "") -> str:
    """The counts in a sentence, then a figure a line, in %; beside it that after a re-ranking, if there was one."""
    queries, valid, without = (int(figures[name] or 0) for name in COUNTS)
    said = f"Retrieval, %: {queries:,} queries, {valid:,} valid, {without:,} without a positive"
    names = [name for name in figures if name not in COUNTS]
    rows = [[figure_title(name), percent(figures[name]).rjust(6), figure_note(name)] for name in names]
    if reranked is not None:
        said += f"; on the right re-ranked by k-reciprocal neighbours ({how})"
        rows = [[*row[:2], percent(reranked[name]).rjust(6), row[2]] for row, name in zip(rows, names, strict=True)]
    return said + "\n" + indent(table(rows, left=len(rows[0]) if rows else 1))


def figure_title(name: str) -> str:
    titles = {"r_precision": "R-Precision", "map@r": "MAP@R", "map": "mAP"}
    return titles.get(name) or name.replace("_all", "").capitalize() + (", all" if "_all" in name else "")


def figure_note(name: str) -> str:
    return "a query without a positive is a miss" if name.startswith("recall_all") else ""


def verification_text(result: GroupedResult, pairs: str) -> str:
    """The pairs by group, then ability (own thresholds) and bias (one threshold for all), each with its summary."""
    parts = [f"Verification over {pairs} (accepted: cosine >= threshold)", indent(_pairs_table(result))]
    own = {name: found.points for name, found in result.groups.items()}
    parts += [
        "Ability: TAR in % (FRR is 100 - TAR), each group at its own threshold (in brackets)",
        indent(_own_table(own, result)),
    ]
    if len(result.groups) > 1:
        parts.append("Bias: TAR and FAR in %, all groups at one threshold, taken over all negatives together")
        parts.append(indent(_global_table(result)))
    return "\n".join(parts)


def indent(text: str) -> str:
    return "\n".join(("  " + line).rstrip() for line in text.splitlines())


def _pairs_table(result: GroupedResult) -> str:
    rows = [["group", "same pairs", "other pairs", "AUC", "EER %"]]
    for name, found in result.groups.items():
        rows.append([name, f"{found.positives:,}", f"{found.negatives:,}", number(found.auc), percent(found.eer)])
    return table(rows)


def _own_table(own: Mapping[str, Sequence[OperatingPoint]], result: GroupedResult) -> str:
    rows = [["group", *(f"TAR @ FAR {rate(point.target_far)}" for point in result.pooled)]]
    rows += [[name, *map(_own_cell, points)] for name, points in own.items()]
    if len(own) > 1:
        rows += _summary_rows(result.own_summary, len(own))
    return table(rows)


def _own_cell(point: OperatingPoint) -> str:
    return _missing(point) or f"{percent(point.tar)} ({number(point.threshold, 3)})"


def _missing(point: OperatingPoint) -> str:
    return f"n/a (needs {point.needs:,} negatives)" if point.needs is not None else ""


def _global_table(result: GroupedResult) -> str:
    rows = [["group", *(f"FAR {rate(point.target_far)}: TAR / FAR" for point in result.pooled)]]
    rows += [[name, *map(_global_cell, points)] for name, points in result.at_global.items()]
    rows.append(["all pairs", *map(_global_cell, result.pooled)])
    rows.append(["threshold", *("" if point.threshold is None else number(point.threshold) for point in result.pooled)])
    return table(rows + _summary_rows(result.global_summary, len(result.groups)))


def _global_cell(point: OperatingPoint) -> str:
    far = UNDEFINED if point.far is None else f"{100 * point.far:.3g}"
    return _missing(point) or f"{percent(point.tar)} / {far}"


def _summary_rows(summaries: Sequence[Summary], groups: int) -> list[list[str]]:
    """Mean, min and so on, a column a FAR; where some groups have no TAR, how many the column is about."""
    rows = [["", *("" for _ in summaries)], ["TAR mean", *(percent(s.mean) for s in summaries)]]
    rows.append(["TAR min", *(percent(s.min) + (f" ({s.worst})" if s.worst is not None else "") for s in summaries)])
    rows.append(["TAR std", *(percent(s.std) for s in summaries)])
    rows.append(["FRR max / min", *(number(s.frr_ratio, 2) for s in summaries)])
    rows.append(["skewed error ratio", *(number(s.skewed_error_ratio, 2) for s in summaries)])
    if any(s.groups != groups for s in summaries):
        rows.append(["groups measured", *(f"{s.groups} of {groups}" for s in summaries)])
    return rows


def folds_text(folds: Mapping[str, FoldAccuracy]) -> str:
    """Accuracy over the folds, mean and population std, a group a line."""
    rows = [["group", "folds", "accuracy %", "std"]]
    for name, found in folds.items():
        rows.append([name, str(len(found.accuracies)), percent(found.mean), percent(found.std)])
    return "Accuracy over folds, threshold chosen on the others\n" + indent(table(rows))


def best_text(best: Mapping[str, BestAccuracy]) -> str:
    """Accuracy and threshold, a group a line, and what to think of it."""
    rows = [["group", "accuracy %", "threshold"]]
    rows += [[name, percent(found.accuracy), number(found.threshold)] for name, found in best.items()]
    said = "Accuracy at the best threshold for this very list (optimistic: chosen on the pairs that it is measured on)"
    return said + "\n" + indent(table(rows))


def stored_text(stored: StoredFigures, on: str) -> str:
    """TAR and FAR at the threshold that the weights came with, a group a line; at the group's own where it has one."""
    said = (
        f"At the stored threshold {number(stored.pooled.threshold)} "
        f"(fitted for FAR {rate(float(f'{stored.pooled.target_far:.3g}'))} on {on})"
    )
    rows = [["group", "TAR / FAR, %", *(["at the group's own stored threshold"] if stored.own else [])]]
    for name, point in stored.groups.items():
        own = stored.own.get(name)
        cell = f"{_global_cell(own)} ({number(own.threshold)})" if own else ""
        rows.append([name, _global_cell(point), *([cell] if stored.own else [])])
    if len(stored.groups) > 1:
        rows.append(["all pairs", _global_cell(stored.pooled), *([""] if stored.own else [])])
    return said + "\n" + indent(table(rows))
