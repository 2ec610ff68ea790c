"""Drawings of pairs: ROC, FRR at one threshold, histograms of cosines."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from metric_learning.metrics.groups import GroupedResult
from metric_learning.metrics.histogram import BINS, EDGES
from metric_learning.metrics.scores import allowed
from metric_learning.metrics.verification import ROC_POINTS, VerificationResult
from metric_learning.page import svg
from metric_learning.page.parts import Chart, Key, Table, short
from metric_learning.plot import listed, rate
from metric_learning.report import UNDEFINED, number, percent

BESIDE = 14  # units between two names of upright lines
DRAWN = svg.SERIES  # groups in drawings
FEW = 100  # pairs of one class below which a group's figures are rough
DECADES = [float(f"1e-{power}") for power in range(1, 13)]


def roc_chart(result: GroupedResult) -> Chart:
    """TAR over a logarithmic FAR, a line a group."""
    drawn = {name: result.groups[name] for name in listed(result, DRAWN)}
    lines = {name: _roc(found) for name, found in drawn.items() if found.roc_far.size}
    fewest = min([0.1, *(far[0] for far, _ in lines.values())])
    lowest = min([1.0, *(tar[0] for _, tar in lines.values())])
    bottom = max(0.0, 5 * np.floor((100 * lowest - 2) / 5))
    frame = svg.Frame(
        svg.Axis("False-accept rate FAR (log scale)", fewest, 1.0, log=True, label=rate),
        svg.Axis("True-accept rate TAR, %", bottom, 100.0),
    )
    parts = [frame.drawn()]
    for i, name in enumerate(drawn):
        if name in lines:
            far, tar = lines[name]
            at = np.unique(np.linspace(0, len(far) - 1, 120).astype(int))
            parts.append(svg.curve(i, [frame.at_x(far[j]) for j in at], [frame.at_y(100 * tar[j]) for j in at], True))
    keys = [
        Key(svg.sample(i), f"{short(name, 30)} (EER {_eer(found)})") for i, (name, found) in enumerate(drawn.items())
    ]
    said = "TAR by FAR. " + " ".join(f"{short(name)}: EER {_eer(found)}." for name, found in drawn.items())
    left = len(result.groups) - len(drawn)
    note = "Higher is better; how far left a line begins, says how many pairs of two classes there were."
    note += f" {left} groups with fewer pairs are not drawn." if left else ""
    title = "ROC of each group" if len(result.groups) > 1 else "ROC"
    return Chart(title, svg.drawing("roc", title, said, *parts), keys, note, _decades(title, drawn))


def _decades(title: str, groups: Mapping[str, VerificationResult]) -> Table | None:
    """The curves as numbers: TAR at FAR 0.1, 0.01, ... as far down as the pairs of any group say."""
    curves = {name: found for name, found in groups.items() if found.roc_far.size}
    fars = [far for far in DECADES if any(allowed(far, found.negatives) for found in curves.values())]
    if not fars:
        return None
    rows = [[rate(far), *(_at(found, far) for found in curves.values())] for far in fars]
    note = "Each group at its own thresholds. "
    note += f"Rates that are not in the table above are read off the curve, which has at most {ROC_POINTS} points: "
    note += "TAR is at least what stands here."
    return Table(f"{title}: TAR in %", ["FAR", *map(short, curves)], rows, note)


def _at(found: VerificationResult, far: float) -> str:
    """TAR at a FAR: exact where that was asked for, else the highest corner of the curve that has no higher FAR."""
    if not allowed(far, found.negatives):
        return "n/a"
    known = [point.tar for point in found.points if point.target_far == far]
    return percent(known[0] if known else found.roc_tar[found.roc_far <= far].max(initial=0.0))


def _eer(found: VerificationResult) -> str:
    return UNDEFINED if found.eer is None else f"{100 * found.eer:.2f} %"


def _roc(found: VerificationResult) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From the least FAR that its negatives can show, with the TAR that holds there, to FAR 1."""
    least = 1 / found.negatives
    start = found.roc_tar[found.roc_far <= least].max(initial=0.0)
    beyond = found.roc_far > least
    return (
        np.concatenate([[least], found.roc_far[beyond], [1.0]]),
        np.concatenate([[start], found.roc_tar[beyond], [1.0]]),
    )


def measured(result: GroupedResult) -> list[int]:
    return [i for i, point in enumerate(result.pooled) if point.threshold is not None]


def frr_chart(result: GroupedResult) -> Chart:
    """FRR of each group at the global thresholds: a block of bars for each."""
    names, at = listed(result, 3 * DRAWN), measured(result)
    rates = {i: [result.at_global[name][i].frr for name in names] for i in at}
    highest = max([0.01, *(frr for row in rates.values() for frr in row if frr is not None)])
    left, right, bar, y = 128.0, svg.WIDTH - 68.0, 18.0, 4.0
    parts = []
    for i in at:
        point = result.pooled[i]
        y += 16
        said = f"FAR {rate(point.target_far)}: cosine at least {number(point.threshold, 3)}"
        parts.append(svg.text(said, 4, y, "start", "name"))
        y += 5
        for j, (name, frr) in enumerate(zip(names, rates[i], strict=True)):
            parts.append(svg.text(svg.fitted(name, left - 8), left - 6, y + 13.5, "end"))
            if frr is not None:
                wide = (right - left) * frr / highest
                look = f"bar {svg.colour_class(j)}"
                parts.append(svg.element("rect", x=left, y=y + 2, width=max(wide, 1.0), height=bar - 4, class_=look))
            end = left + ((right - left) * frr / highest if frr is not None else 0.0)
            shown = UNDEFINED if frr is None else f"{100 * frr:.1f} %"
            parts.append(svg.text(shown, end + 5, y + 13.5, "start"))
            y += bar
        y += 6
    head = ["Group", *(f"FAR {rate(result.pooled[i].target_far)}" for i in at)]
    rows = [[short(name), *(percent(rates[i][j]) for i in at)] for j, name in enumerate(names)]
    title = "FRR of each group at one threshold for all"
    said = "Bars, the same figures as in the table below the drawing."
    note = "The share of true pairs that are rejected; lower is better."
    numbers = Table(f"{title}, %", head, rows)
    return Chart(title, svg.drawing("frr", title, said, *parts, height=y + 4), (), note, numbers)


def histogram_charts(counts: Mapping[str, NDArray[np.int64]], result: GroupedResult) -> list[Chart]:
    """A panel a group, over one range of cosines."""
    names = [name for name in listed(result, DRAWN) if name in counts and counts[name].sum()]
    used = np.flatnonzero(sum((counts[name].sum(axis=0) for name in names), np.zeros(BINS, np.int64)))
    if not len(used):
        return []
    low, high = float(EDGES[used[0]]), float(EDGES[used[-1] + 1])
    order = list(listed(result, DRAWN))
    return [_histogram(order.index(name), name, counts[name], result, (low, high)) for name in names]


def _histogram(
    series: int, name: str, counts: NDArray[np.int64], result: GroupedResult, ends: tuple[float, float]
) -> Chart:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    most = float(shares.max())
    x, y = svg.Axis("Cosine", *ends), svg.Axis("Share of pairs, %", 0.0, 112 * most)
    frame = svg.Frame(x, y, height=220)
    parts = [frame.drawn()]
    for kind, row in (("other-pairs", shares[1]), ("same-pairs", shares[0])):
        used = np.flatnonzero(row)
        if len(used):
            first, last = int(used[0]), int(used[-1]) + 1
            xs = [frame.at_x(edge) for edge in EDGES[first : last + 1].tolist()]
            ys = [frame.at_y(100 * share) for share in row[first:last].tolist()]
            parts.append(svg.element("path", d=_hill(xs, ys, frame.bottom), class_=f"hill {kind}"))
    named = -np.inf
    for point in sorted(result.pooled, key=lambda point: -point.target_far):
        if point.threshold is not None and ends[0] <= point.threshold <= ends[1]:
            room = frame.at_x(point.threshold) >= named + BESIDE
            parts.append(frame.upright(point.threshold, f"FAR {rate(point.target_far)}" if room else ""))
            named = frame.at_x(point.threshold) if room else named
    same, other = (int(row.sum()) for row in counts)
    keys = [
        Key(_swatch("same-pairs"), f"same class ({same:,})"),
        Key(_swatch("other-pairs"), f"two classes ({other:,})"),
    ]
    title = "Cosines of pairs"
    if len(result.groups) > 1:
        title = short(name, 40) + (" (few pairs)" if same < FEW else "")
    said = f"Histogram of cosines. Pairs of one class: {_middle(counts[0])}. Pairs of two: {_middle(counts[1])}."
    return Chart(title, svg.drawing(f"histogram{series}", title, said, *parts, height=220), keys)


def _hill(xs: Sequence[float], ys: Sequence[float], bottom: float) -> str:
    """A staircase from the axis and back to it: xs are the edges of the bins."""
    return (
        f"M{xs[0]:.1f} {bottom:.1f}"
        + "".join(f"V{y:.1f}H{x:.1f}" for x, y in zip(xs[1:], ys, strict=True))
        + (f"V{bottom:.1f}Z")
    )


def _swatch(kind: str) -> Markup:
    box = svg.element("rect", x=1, y=2, width=30, height=10, class_=f"hill {kind}")
    return svg.element("svg", box, class_="key", viewBox="0 0 32 14", aria_hidden="true")


def _middle(counts: NDArray[np.int64]) -> str:
    """The bin with the median, in words."""
    if not counts.sum():
        return "none"
    i = int(np.searchsorted(np.cumsum(counts), (counts.sum() + 1) // 2))
    return f"median between {EDGES[i]:.2f} and {EDGES[i + 1]:.2f}"
