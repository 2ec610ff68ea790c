"""Pictures of results, drawn without pyplot: no window, no state shared with the rest of the process."""

import io
import math
import textwrap
from typing import Any

import numpy as np

from metric_learning.metrics.groups import GroupedResult

# Okabe and Ito's colours, which people of any colour vision can tell apart; past seven groups the line style changes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")


def rate(far: float) -> str:
    """A false-accept rate as people write it: 1e-3, 0.25."""
    mantissa, exponent = f"{far:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if far <= 0.1 else f"{far:g}"


def shortened(text: object, most: int) -> str:
    """At most so many characters: the middle gives way, as both ends of a path tell most."""
    said = str(text)
    return said if len(said) <= most else f"{said[: most // 2]}…{said[len(said) - (most - most // 2 - 1) :]}"


def verification_png(result: GroupedResult, pairs: str) -> bytes:
    """ROC by group over a logarithmic FAR axis; beside it, with several groups, their FRR at the global thresholds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    several = len(result.groups) > 1
    figure = Figure(figsize=(12.5 if several else 6.5, 5.0), dpi=120, layout="constrained")
    panels = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
    _draw_roc(panels[0], result)
    if several:
        _draw_bars(panels[1], result)
    title = textwrap.fill(f"Verification over {pairs}", 140 if several else 70)  # a path may be longer than the plot
    figure.suptitle(verbatim(title), fontsize=12)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def verbatim(name: str) -> str:
    """name as the plot shall show it: a dollar sign would start a formula there, and a leading underscore hide it."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def _draw_roc(panel: Any, result: GroupedResult) -> None:
    fewest, lowest = 0.1, 100.0
    for i, (name, found) in enumerate(result.groups.items()):
        if not found.roc_far.size:
            continue
        # A curve starts at the least FAR that its negatives can show, with the TAR that holds there, and ends at FAR 1.
        least = 1 / found.negatives
        start = found.roc_tar[found.roc_far <= least].max(initial=0.0)
        beyond = found.roc_far > least
        far = np.concatenate([[least], found.roc_far[beyond], [1.0]])
        tar = np.concatenate([[start], found.roc_tar[beyond], [1.0]])
        label = f"{verbatim(name)} (EER {100 * (found.eer or 0.0):.1f} %)"
        look = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i // len(COLOURS) % len(STYLES)]}
        panel.plot(far, 100 * tar, drawstyle="steps-post", linewidth=1.8, label=label, **look)
        fewest, lowest = min(fewest, least), min(lowest, 100 * start)
    for point in result.pooled:
        panel.axvline(point.target_far, color="0.8", linewidth=0.8, zorder=0)
    # Curves that stay near 100 are told apart on a part of the scale only.
    bottom = max(0, 10 * math.floor((lowest - 5) / 10))
    panel.set(xscale="log", xlim=(fewest, 1), ylim=(bottom, 100 + 0.01 * (100 - bottom)))
    panel.set(xlabel="false-accept rate FAR (log scale)", ylabel="true-accept rate TAR, %")
    panel.set_title("Ability: ROC of each group", fontsize=11)
    panel.grid(axis="y", color="0.9")
    panel.legend(loc="best", fontsize=9)


def _draw_bars(panel: Any, result: GroupedResult) -> None:
    measured = [i for i, point in enumerate(result.pooled) if point.threshold is not None]
    width, highest = 0.8 / len(result.groups), 1.0
    for i, (name, points) in enumerate(result.at_global.items()):
        heights = [math.nan if (frr := points[j].frr) is None else 100 * frr for j in measured]
        places = np.arange(len(measured)) + (i - (len(result.groups) - 1) / 2) * width
        bars = panel.bar(places, heights, 0.92 * width, color=COLOURS[i % len(COLOURS)], label=verbatim(name))
        highest = max([highest, *(h for h in heights if h == h)])
        if len(result.groups) <= 5:
            panel.bar_label(bars, ["" if h != h else f"{h:.1f}" for h in heights], fontsize=7, padding=1)
    thresholds = [result.pooled[i].threshold or 0.0 for i in measured]
    names = [
        f"{rate(result.pooled[i].target_far)}\n(cosine >= {t:.3f})" for i, t in zip(measured, thresholds, strict=True)
    ]
    panel.set_xticks(range(len(measured)), names, fontsize=9)
    panel.set(xlabel="FAR of all groups together", ylabel="false-reject rate FRR, %", ylim=(0, 1.08 * highest))
    panel.set_title("Bias: FRR of each group at one threshold for all (lower is better)", fontsize=11)
    panel.grid(axis="y", color="0.9")
    panel.set_axisbelow(True)
