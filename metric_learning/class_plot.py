"""The picture of a classification: accuracy by group, ROC by group, and which classes are taken for which."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metric_learning.metrics.classification import Classification, wilson
from metric_learning.plot import COLOURS, STYLES, label, png_of

MOST_SHOWN = 12  # classes whose matrix can be read
MOST_ROWS = 30  # groups or classes in the panel of accuracies: the worst ones
MOST_CURVES = 14
Mistake = tuple[str, str, int, float]  # true class, predicted class, pictures, share of the true class


def classification_png(found: Classification, split: str, mistakes: Sequence[Mistake]) -> bytes:
    """Accuracy by group (recall by class without groups) with 95 % intervals; the confusion matrix; ROC by group.

    mistakes: shown in place of the matrix for more than MOST_SHOWN classes. There is a ROC for two classes only.
    """
    from matplotlib.figure import Figure

    draw = [_draw_accuracies, _draw_matrix if len(found.classes) <= MOST_SHOWN else _draw_mistakes]
    draw += [_draw_roc] if found.pooled.roc_fpr.size else []
    rows = min(MOST_ROWS, max(len(found.groups), len(found.classes)))
    figure = Figure(figsize=(6.0 * len(draw), max(5.0, 1.8 + 0.3 * rows)), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(draw), squeeze=False)[0]
    for panel, drawing in zip(panels, draw, strict=True):
        drawing(panel, found, mistakes)
    count = f"{found.pooled.count:,} picture{'s' if found.pooled.count != 1 else ''}"
    figure.suptitle(f"Classification ({label(split)}), {count}, {len(found.classes):,} classes", fontsize=12)
    return png_of(figure)


def _accuracies(found: Classification) -> list[tuple[str, int, int]]:
    """(name, right, pictures) of each group, or of each class where there are no groups; none without pictures."""
    if found.groups:
        counts = {name: figures.confusion for name, figures in found.groups.items()}
        rows = [(name, int(np.trace(matrix)), int(matrix.sum())) for name, matrix in counts.items()]
    else:
        matrix = found.pooled.confusion
        totals = matrix.sum(axis=1).tolist()
        rows = [(found.classes[i], int(matrix[i, i]), total) for i, total in enumerate(totals)]
    return [row for row in rows if row[2]]


def _draw_accuracies(panel: Any, found: Classification, _: Sequence[Mistake]) -> None:
    """Points with whiskers, the worst at the bottom."""
    rows = sorted(_accuracies(found), key=lambda row: row[1] / row[2])
    shown = rows[:MOST_ROWS]
    for place, (_name, right, count) in enumerate(shown):
        low, high = (100 * end for end in wilson(right, count) or (0.0, 1.0))
        at = 100 * right / count
        panel.plot([low, high], [place, place], color="0.45", linewidth=1.6, zorder=2)
        panel.plot([at], [place], "o", color=COLOURS[0], markersize=7, zorder=3)
        look = {
            "ha": "center",
            "fontsize": 8,
            "bbox": {"facecolor": "w", "alpha": 0.6, "edgecolor": "none", "pad": 0.5},
        }
        panel.annotate(f"{at:.1f}", (at, place), (0, 7), textcoords="offset points", zorder=4, **look)
    accuracy = 100 * (found.pooled.accuracy or 0.0)
    low, high = (100 * end for end in found.pooled.interval or (0.0, 1.0))
    panel.axvspan(low, high, color=COLOURS[1], alpha=0.15, linewidth=0, zorder=0)
    panel.axvline(accuracy, color=COLOURS[1], linewidth=1.5, zorder=1, label=f"all: {accuracy:.1f} %")
    panel.set_yticks(range(len(shown)), [f"{label(name)} ({count:,})" for name, _right, count in shown], fontsize=9)
    panel.set(ylim=(-0.6, len(shown) - 0.2), xlabel="accuracy, %" if found.groups else "recall, %")
    some = f", the {MOST_ROWS} worst of {len(rows):,}" if len(rows) > MOST_ROWS else ""
    what = "Accuracy by group" if found.groups else "Recall by class"
    panel.set_title(f"{what}{some} (bars: 95 % intervals)", fontsize=11)
    panel.grid(axis="x", color="0.9")
    panel.set_axisbelow(True)
    panel.legend(loc="best", fontsize=9)


def _draw_matrix(panel: Any, found: Classification, _: Sequence[Mistake]) -> None:
    """Counts, and below them the share of the row in %, which is the shade too."""
    counts = found.pooled.confusion
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    panel.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    size = 11 if len(counts) <= 4 else 9 if len(counts) <= 7 else 7
    for (i, j), count in np.ndenumerate(counts):
        share = f"\n{100 * shares[i, j]:.1f} %" if totals[i, 0] else ""
        panel.text(
            j, i, f"{count:,}{share}", ha="center", va="center", fontsize=size, color="w" if shares[i, j] > 0.6 else "k"
        )
    places, wide = range(len(counts)), len(counts) > 4 or max(map(len, found.classes)) > 14
    turn = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if wide else {}
    panel.set_xticks(places, [label(name) for name in found.classes], fontsize=9, **turn)
    panel.set_yticks(places, [label(name) for name in found.classes], fontsize=9)
    panel.set(xlabel="predicted class", ylabel="true class")
    panel.set_title("Confusion: pictures, and % of the true class", fontsize=11)


def _draw_mistakes(panel: Any, _: Classification, mistakes: Sequence[Mistake]) -> None:
    names = [f"{label(true, 18)} → {label(predicted, 18)}" for true, predicted, _, _ in mistakes]
    bars = panel.barh(range(len(names)), [count for _, _, count, _ in mistakes], color=COLOURS[0])
    panel.bar_label(
        bars, [f"{count:,} ({100 * share:.1f} %)" for _, _, count, share in mistakes], fontsize=8, padding=2
    )
    panel.set_yticks(range(len(names)), names, fontsize=9)
    panel.invert_yaxis()
    panel.margins(x=0.25)
    panel.set(xlabel="pictures")
    panel.set_title("Most frequent mistakes, true → predicted (% of the true class)", fontsize=11)


def _draw_roc(panel: Any, found: Classification, _: Sequence[Mistake]) -> None:
    """The curve of each group, and of all in black; of too many groups only those with the least area."""
    curves = sorted((name for name, group in found.groups.items() if group.roc_fpr.size), key=_area_of(found))
    shown = set(curves[:MOST_CURVES])
    for i, name in enumerate(name for name in found.groups if name in shown):
        group = found.groups[name]
        colours = COLOURS[:-1]  # black is for all
        look = {"color": colours[i % len(colours)], "linestyle": STYLES[i // len(colours) % len(STYLES)]}
        said = f"{label(name)} (AUC {group.roc_auc:.3f})"
        panel.plot(100 * group.roc_fpr, 100 * group.roc_tpr, linewidth=1.4, label=said, **look)
    pooled = found.pooled
    said = f"all (AUC {pooled.roc_auc:.3f})"
    panel.plot(100 * pooled.roc_fpr, 100 * pooled.roc_tpr, color="k", linewidth=2.2, label=said, zorder=3)
    panel.plot([0, 100], [0, 100], color="0.7", linewidth=0.8, linestyle=":", zorder=0)
    # Good curves are told apart in the corner only.
    lowest = min([pooled.roc_auc or 0.0, *(found.groups[name].roc_auc or 0.0 for name in curves)])
    side = 50 if lowest >= 0.9 else 100
    panel.set(xlim=(-0.01 * side, 1.01 * side), ylim=(100 - 1.01 * side, 100 + 0.01 * side))
    panel.set(xlabel="false-positive rate, %", ylabel="true-positive rate, %")
    some = f", the {MOST_CURVES} lowest groups" if len(curves) > MOST_CURVES else ""
    panel.set_title(f"ROC, positive: {label(found.classes[1])}{some}", fontsize=11)
    panel.grid(color="0.9")
    panel.set_axisbelow(True)
    panel.legend(loc="lower right", fontsize=8)


def _area_of(found: Classification) -> Any:
    return lambda name: found.groups[name].roc_auc
