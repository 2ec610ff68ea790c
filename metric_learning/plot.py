"""Pictures of results, drawn without pyplot: no window, no state shared with the rest of the process."""

import io
import math
import re
import textwrap
import warnings
from typing import Any

import numpy as np

from metric_learning import fonts
from metric_learning.metrics.groups import GroupedResult

# Okabe and Ito's colours, which people of any colour vision can tell apart; past seven groups the line style changes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xxx")  # of bars, as styles are of lines
MOST_GROUPS = 14
LONGEST = 24  # letters of a name


def rate(far: float) -> str:
    """A false-accept rate as people write it: 1e-3, 0.25."""
    mantissa, exponent = f"{far:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if far <= 0.1 else f"{far:g}"


def shortened(text: object, most: int) -> str:
    """At most so many characters: the middle gives way, as both ends of a path tell most."""
    said = str(text)
    return said if len(said) <= most else f"{said[: most // 2]}…{said[len(said) - (most - most // 2 - 1) :]}"


def listed(result: GroupedResult, most: int) -> list[str]:
    """The groups in their order; of more than `most` those with the most pairs of one class."""
    names = list(result.groups)
    kept = sorted(names, key=lambda name: -result.groups[name].positives)[:most]
    return [name for name in names if name in kept]


def verification_png(result: GroupedResult, pairs: str) -> bytes:
    """ROC by group over a logarithmic FAR axis; beside it, with several groups, their FRR at the global thresholds.

    Of more than MOST_GROUPS groups those with the most pairs of one class are drawn, and the title says so.
    """
    from matplotlib.figure import Figure

    several, many = len(result.groups) > 1, len(result.groups) > len(COLOURS)
    figure = Figure(figsize=(12.5 if several else 6.5, 6.5 if many else 5.0), dpi=120, layout="constrained")
    panels = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
    _draw_roc(panels[0], result)
    if several:
        _draw_bars(panels[1], result)
    title = f"Verification over {pairs}"
    if len(result.groups) > MOST_GROUPS:
        title += f"; drawn: {MOST_GROUPS} of {len(result.groups)} groups, those with the most pairs"
    lines = textwrap.wrap(title, 140 if several else 70)  # a path may be longer than the plot
    figure.suptitle("\n".join(map(verbatim, lines)), fontsize=12)
    return png_of(figure)


def png_of(figure: Any) -> bytes:
    """A matplotlib Figure as PNG. What its font has no letter for is taken from those of `fonts` that this machine has,
    and is an empty box without one."""
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    families = [*rcParams["font.family"], *fonts.eastern()]
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ ")  # one for each letter that is an empty box
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def verbatim(name: str) -> str:
    """name as the plot shall show it: a dollar sign would start a formula there, and a leading underscore hide it.

    Control characters and halves of surrogate pairs (bytes of names that are no text) become U+FFFD.
    """
    name = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", "\ufffd", name)
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def label(name: str, longest: int = LONGEST) -> str:
    """A name of a group or a class, shortened."""
    return verbatim(shortened(name, longest))


def _draw_roc(panel: Any, result: GroupedResult) -> None:
    fewest, lowest = 0.1, 100.0
    for i, name in enumerate(listed(result, MOST_GROUPS)):
        found = result.groups[name]
        if not found.roc_far.size:
            continue
        # A curve starts at the least FAR that its negatives can show, with the TAR that holds there, and ends at FAR 1.
        least = 1 / found.negatives
        start = found.roc_tar[found.roc_far <= least].max(initial=0.0)
        beyond = found.roc_far > least
        far = np.concatenate([[least], found.roc_far[beyond], [1.0]])
        tar = np.concatenate([[start], found.roc_tar[beyond], [1.0]])
        said = f"{label(name)} (EER {100 * (found.eer or 0.0):.1f} %)"
        look = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i // len(COLOURS) % len(STYLES)]}
        panel.plot(far, 100 * tar, drawstyle="steps-post", linewidth=1.8, label=said, **look)
        fewest, lowest = min(fewest, least), min(lowest, 100 * start)
    for point in result.pooled:
        panel.axvline(point.target_far, color="0.8", linewidth=0.8, zorder=0)
    # Curves that stay near 100 are told apart on a part of the scale only.
    bottom = max(0, 10 * math.floor((lowest - 5) / 10))
    panel.set(xscale="log", xlim=(fewest, 1), ylim=(bottom, 100 + 0.01 * (100 - bottom)))
    panel.set(xlabel="false-accept rate FAR (log scale)", ylabel="true-accept rate TAR, %")
    panel.set_title("Ability: ROC of each group", fontsize=11)
    panel.grid(axis="y", color="0.9")
    _legend(panel, len(result.groups))


def _draw_bars(panel: Any, result: GroupedResult) -> None:
    measured = [i for i, point in enumerate(result.pooled) if point.threshold is not None]
    groups = listed(result, MOST_GROUPS)
    width, highest = 0.8 / len(groups), 1.0
    for i, name in enumerate(groups):
        rates = [result.at_global[name][j].frr for j in measured]
        heights = [math.nan if frr is None else 100 * frr for frr in rates]
        places = np.arange(len(measured)) + (i - (len(groups) - 1) / 2) * width
        look = {"color": COLOURS[i % len(COLOURS)], "hatch": HATCHES[i // len(COLOURS) % len(HATCHES)]}
        bars = panel.bar(places, heights, 0.92 * width, edgecolor="w", linewidth=0, label=label(name), **look)
        highest = max([highest, *(h for h in heights if h == h)])
        if len(groups) <= 5:
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
    if len(groups) > len(COLOURS):  # the lines beside it say the colours, not the hatches
        _legend(panel, len(groups))


def _legend(panel: Any, groups: int) -> None:
    """Inside where there is room for it, below the panel for many groups."""
    if groups > len(COLOURS):
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=8, ncols=2)
    else:
        panel.legend(loc="best", fontsize=9)
