"""How a run learnt: the curves in its VisualDL records."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metric_learning.page import svg
from metric_learning.page.parts import Block, Chart, Charts, Key, Section, Table, Text, short

POINTS = 200  # of a curve


class Curve(NamedTuple):
    """steps (P,), rising, and values (P,)."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def read_curves(folder: Path) -> dict[str, Curve]:
    """Tag -> curve, of all records of a run; where a resumed run has gone over steps again, its newer values.

    What can't be read is left out: the end of a record may have been cut off.
    """
    found: dict[str, dict[float, float]] = {}
    for file in sorted((folder / "visualdl").glob("vdlrecords*.log"), key=lambda file: file.name):
        for tag, points in _scalars(file).items():
            before = found.setdefault(tag, {})
            first = min(points, default=0.0)
            found[tag] = {step: value for step, value in before.items() if step < first} | points
    return {tag: _curve(points) for tag, points in found.items() if points}


def _scalars(file: Path) -> dict[str, dict[float, float]]:
    from visualdl import LogReader

    try:
        reader = LogReader(file_path=str(file))
        tags = reader.get_tags().get("scalar", [])
        return {tag: {item.id: item.value for item in reader.get_data("scalar", tag)} for tag in tags}
    except Exception:  # a damaged record raises nearly anything
        return {}


def _curve(points: Mapping[float, float]) -> Curve:
    steps = np.array(sorted(points), np.float64)
    values = np.array([points[step] for step in steps.tolist()])
    finite = np.isfinite(values)
    return Curve(steps[finite], values[finite])


def thinned(curve: Curve, most: int = POINTS) -> Curve:
    """At most so many of the points, evenly; the first and the last stay."""
    keep = np.unique(np.linspace(0, len(curve.steps) - 1, min(most, len(curve.steps))).round().astype(int))
    return Curve(curve.steps[keep], curve.values[keep])


def section(folder: Path, curves: Mapping[str, Curve]) -> Section:
    """Loss, validation scores, learning rate, and the FRR of groups where the run watched them."""
    charts = [
        _chart("loss", "Loss in training", "", curves, ["train/loss"], 1.0),
        _chart("val", "Scores on the validation classes", "%", curves, _below(curves, "val/"), 100.0),
        _chart("lr", "Learning rate", "", curves, ["train/lr"], 1.0),
        _chart("group-frr", "FRR of groups in validation", "%", curves, _below(curves, "group_frr/"), 100.0),
    ]
    blocks: list[Block] = [Text(f"Of the run {short(folder.name)}."), Charts([chart for chart in charts if chart])]
    return Section("learning", "Learning curves", blocks)


def _below(curves: Mapping[str, Curve], start: str) -> list[str]:
    return [tag for tag in curves if tag.startswith(start)][: svg.SERIES]


def _chart(
    name: str, title: str, unit: str, curves: Mapping[str, Curve], tags: list[str], scale: float
) -> Chart | None:
    drawn = {
        tag.split("/", 1)[1].removeprefix("val "): curves[tag]
        for tag in tags
        if tag in curves and len(curves[tag].steps)
    }
    if not drawn:
        return None
    values = np.concatenate([curve.values for curve in drawn.values()]) * scale
    low, high = float(values.min()), float(values.max())
    low = 0.0 if 0 <= low < 0.5 * high else low
    pad = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    last = max(float(curve.steps[-1]) for curve in drawn.values())
    x = svg.Axis("Step", 0.0, max(last, 1.0), label="{:,.0f}".format)
    frame = svg.Frame(x, svg.Axis(unit, low if low == 0 else low - pad, high + pad, label=_tick), height=240)
    parts = [frame.drawn()]
    for i, curve in enumerate(map(thinned, drawn.values())):
        xs = [frame.at_x(step) for step in curve.steps.tolist()]
        parts.append(svg.curve(i, xs, [frame.at_y(scale * value) for value in curve.values.tolist()]))
    keys = [Key(svg.sample(i), short(tag, 30)) for i, tag in enumerate(drawn)] if len(drawn) > 1 else []
    rows = [[short(tag, 30), *map(_digits, _ends(curve, scale))] for tag, curve in drawn.items()]
    said = " ".join(f"{tag}: from {first} to {last}." for tag, first, last, *_ in rows)
    numbers = Table(title, ["Curve", "First", "Last", "Lowest", "Highest"], rows)
    return Chart(title, svg.drawing(name, title, said, *parts, height=240), keys, "", numbers)


def _ends(curve: Curve, scale: float) -> list[float]:
    values = scale * curve.values
    return [float(value) for value in (values[0], values[-1], values.min(), values.max())]


def _tick(value: float) -> str:
    return f"{value:.3g}".replace("e-0", "e-")


def _digits(value: float) -> str:
    return f"{value:.4g}"
