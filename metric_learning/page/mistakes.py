"""Where retrieval goes wrong: queries that find their class last, and classes that are taken for one another."""

from collections.abc import Sequence

import numpy as np

from metric_learning.evaluate import Embedded
from metric_learning.metrics.confusion import ConfusedPair
from metric_learning.metrics.cosine import Floats, Indices, unit_rows
from metric_learning.metrics.retrieval import nearest
from metric_learning.page.parts import LONGEST_PATH, Row, Rows, Section, Table, Text, Thumb, short
from metric_learning.page.thumbnails import thumb
from metric_learning.report import percent

WORST, NEIGHBOURS, CONFUSED, SHOWN = 12, 4, 12, 8


def worst_queries(ranks: Indices, labels: Indices, most: int = WORST) -> Indices:
    """Queries whose nearest positive ranks furthest down, at most one of a class; none that has it first."""
    order = np.argsort(-ranks, kind="stable")
    order = order[ranks[order] > 1]
    firsts = np.sort(np.unique(labels[order], return_index=True)[1])
    return np.asarray(order[firsts][:most], np.int64)


def worst_section(ranks: Indices, found: Embedded, classes: Sequence[str]) -> Section:
    """Rows of a query, its nearest, and the nearest of its class."""
    queries = worst_queries(ranks, found.labels)
    title = "The worst retrievals"
    if not len(queries):
        said = "None: every picture that has another of its class finds it first."
        return Section("worst", title, [Text(said)])
    wrong, valid = int((ranks > 1).sum()), int((ranks > 0).sum())
    said = (
        f"{wrong:,} of {valid:,} queries have a picture of another class nearest. These have to look furthest for one "
        "of their own; of a class at most one is shown. The number below a picture is its cosine with the query."
    )
    units = unit_rows(found.embeddings)
    cosines, places = nearest(units[queries], units, NEIGHBOURS + 1)
    rows = [
        _worst_row(number, int(i), int(ranks[i]), list(zip(c.tolist(), p.tolist(), strict=True)), units, found, classes)
        for number, (i, c, p) in enumerate(zip(queries, cosines, places, strict=True), 1)
    ]
    return Section("worst", title, [Text(said), Rows("Query, its nearest, and the nearest of its class", rows)])


def _worst_row(
    number: int,
    i: int,
    rank: int,
    near: list[tuple[float, int]],
    units: Floats,
    found: Embedded,
    classes: Sequence[str],
) -> Row:
    wrong = [(c, p) for c, p in near if p >= 0 and found.labels[p] != found.labels[i]][: min(NEIGHBOURS, rank - 1)]
    own = np.flatnonzero(found.labels == found.labels[i])
    own = own[own != i]
    to_own = units[own] @ units[i]
    best = int(own[to_own.argmax()])

    def name(place: int) -> str:
        return classes[int(found.labels[place])]

    thumbs = [thumb(found.paths[i], "query", "Query", name(i))]
    thumbs += [
        thumb(found.paths[p], "wrong", f"{place}: ✗ wrong", name(p), f"{c:.3f}")
        for place, (c, p) in enumerate(wrong, 1)
    ]
    thumbs.append(thumb(found.paths[best], "right", f"{rank:,}: ✓ right", name(best), f"{float(to_own.max()):.3f}"))
    title = f"{number}. {short(name(i))}: first right one at rank {rank:,}"
    return Row(title, short(found.paths[i], LONGEST_PATH), thumbs)


def confused_section(
    pairs: Sequence[ConfusedPair], neighbours: Indices, found: Embedded, classes: Sequence[str]
) -> Section:
    """A table of pairs of classes, and for the first of them pictures; neighbours (N,): the nearest of each picture."""
    title = "The most confused classes"
    if not pairs:
        return Section("confused", title, [Text("None: the nearest neighbour of every picture is of its class.")])
    said = "Two classes, and how many of their pictures have the nearest neighbour in the other one. Pictures that are "
    said += "alone in their class have nothing right to find, and do not count."
    cells = []
    for pair in pairs:
        names = f"{short(classes[pair.first])} – {short(classes[pair.second])}"
        cells.append([names, f"{pair.wrong:,}", f"{pair.pictures:,}", percent(pair.wrong / pair.pictures)])
    table = Table("Pairs of classes", ["Classes", "Confused", "Of both", "%"], cells)
    rows = []
    for number, pair in enumerate(pairs[:SHOWN], 1):
        names = f"{number}. {short(classes[pair.first])} – {short(classes[pair.second])}"
        rows.append(Row(names, "", _examples(pair, neighbours, found, classes)))
    return Section("confused", title, [Text(said), table, Rows("A picture of each, and what is nearest to it", rows)])


def _examples(pair: ConfusedPair, neighbours: Indices, found: Embedded, classes: Sequence[str]) -> list[Thumb]:
    thumbs = []
    for i in pair.examples:
        p = int(neighbours[i])
        a, b = unit_rows(found.embeddings[[i, p]])
        thumbs.append(thumb(found.paths[i], "query", "Picture", classes[found.labels[i]]))
        thumbs.append(thumb(found.paths[p], "wrong", "✗ its nearest", classes[found.labels[p]], f"{float(a @ b):.3f}"))
    return thumbs
