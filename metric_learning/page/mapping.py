"""The embedding on paper: a sample of pictures, near where their neighbours are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metric_learning.evaluate import Embedded
from metric_learning.metrics.confusion import ConfusedPair
from metric_learning.metrics.projection import map_sample, neighbour_map, principal_axes
from metric_learning.page import svg
from metric_learning.page.parts import Chart, Charts, Key, Section, Text, short

MOST = 800  # pictures on the map
SIZE = svg.WIDTH
EDGE = 12


def section(found: Embedded, classes: Sequence[str], confused: Sequence[ConfusedPair]) -> Section:
    """The map; colours and markers by group, or for want of groups of the classes that are most confused."""
    rows = map_sample(found.labels, found.groups, MOST)
    embeddings = found.embeddings[rows]
    points = neighbour_map(embeddings)
    _, shares = principal_axes(embeddings)
    said = (
        f"{len(rows):,} of {len(found.paths):,} pictures, laid out by t-SNE so that neighbours in the embedding are "
        "neighbours here. Tight islands are classes that the network holds together. How far apart islands lie, and "
        "how large they are, means little. "
        f"(Two straight axes alone would show {100 * float(shares.sum()):.0f} % of the variance.)"
    )
    return Section(
        "map", "Map of the embedding", [Text(said), Charts([_chart(points, rows, found, classes, confused)])]
    )


def _chart(
    points: NDArray[np.float64],
    rows: NDArray[np.int64],
    found: Embedded,
    classes: Sequence[str],
    confused: Sequence[ConfusedPair],
) -> Chart:
    names, series = _series(found, rows, classes, confused)
    low, high = points.min(axis=0), points.max(axis=0)
    spread = float((high - low).max()) or 1.0
    placed = EDGE + (points - (low + high) / 2 + spread / 2) / spread * (SIZE - 2 * EDGE)
    drawn = [svg.element("rect", x=0.5, y=0.5, width=SIZE - 1.0, height=SIZE - 1.0, class_="field", rx=6)]
    for i in np.argsort(-series, kind="stable"):  # the gray ones first, below the others
        title = svg.element("title", short(classes[found.labels[rows[i]]], 40))
        size = 3.2 if series[i] < svg.SERIES else 2.2
        drawn.append(svg.marker(int(series[i]), float(placed[i, 0]), float(placed[i, 1]), size, title))
    keys = [Key(svg.sample(i, dashed=False), short(name, 40)) for i, name in enumerate(names)]
    if (series >= svg.SERIES).any():
        keys.append(Key(svg.sample(svg.SERIES, dashed=False), "others"))
    by = "group" if found.groups is not None else "some classes that are confused"
    said = (
        f"A point for each of {len(rows):,} pictures, marked by {by}: {', '.join(short(name, 40) for name in names)}."
    )
    name = "Map of the embedding"
    return Chart(name, svg.drawing("map", name, said, *drawn, height=SIZE), keys, f"Colour and marker: {by}.")


def _series(
    found: Embedded, rows: NDArray[np.int64], classes: Sequence[str], confused: Sequence[ConfusedPair]
) -> tuple[list[str], NDArray[np.int64]]:
    """The names in the legend, and for each picture on the map the place of its own among them, SERIES for others."""
    if found.groups is not None:
        names, counts = np.unique(found.groups[rows], return_counts=True)
        kept = sorted(names[np.argsort(-counts, kind="stable")][: svg.SERIES].tolist())
        place = {name: i for i, name in enumerate(kept)}
        return kept, np.array([place.get(name, svg.SERIES) for name in found.groups[rows].tolist()], np.int64)
    labels = found.labels[rows]
    there = set(labels.tolist())
    wanted = [label for pair in confused for label in (pair.first, pair.second)]
    wanted += np.argsort(-np.bincount(labels), kind="stable").tolist()
    chosen = list(dict.fromkeys(label for label in wanted if label in there))[: svg.SERIES]
    code = {label: i for i, label in enumerate(chosen)}
    series = np.array([code.get(label, svg.SERIES) for label in labels.tolist()], np.int64)
    return [classes[label] for label in chosen], series
