"""Retrieval: the share of pictures whose nearest are of their class."""

from collections.abc import Sequence

import numpy as np

from metric_learning.evaluate import Embedded
from metric_learning.metrics.cosine import Indices
from metric_learning.metrics.retrieval import RetrievalMetrics
from metric_learning.page import svg
from metric_learning.page.parts import Card, Chart, Charts, Key, Section, Table, Text, short
from metric_learning.report import COUNTS, Report, figure_note, figure_title, percent

KS = (1, 2, 3, 5, 10, 20, 30, 50, 100)


def cards(figures: RetrievalMetrics) -> list[Card]:
    """Recall@1 and MAP@R, with what they are over."""
    if not figures["valid"]:
        return []
    valid, queries = int(figures["valid"] or 0), int(figures["queries"] or 0)
    said = f"of {valid:,} pictures have one of their own class nearest; each searches all {queries - 1:,} others"
    found = [Card("Recall@1", f"{percent(figures['recall@1'])} %", said)]
    if figures.get("map@r") is not None:
        note = "how well the nearest R are of the class, R being how many others it has"
        found.append(Card("MAP@R", f"{percent(figures['map@r'])} %", note))
    return found


def section(report: Report, figures: RetrievalMetrics, ranks: Indices, found: Embedded) -> Section:
    """ranks (N,): of the nearest positive of each picture, 0 without one."""
    queries, valid, without = (int(figures[name] or 0) for name in COUNTS)
    said = (
        f"Every picture searches all the others: {queries:,} queries. {valid:,} have another picture of their class to "
        f"find; {without:,} have none, and count only where that is said."
    )
    rows = [[figure_title(name), percent(value)] for name, value in figures.items() if name not in COUNTS]
    head, note = ["Figure", "%"], f"All: {figure_note('recall_all')}."
    if report.reranked is not None:
        names = [name for name in figures if name not in COUNTS]
        rows = [[*row, percent(report.reranked[name])] for row, name in zip(rows, names, strict=True)]
        head.append("Re-ranked, %")
        note += f" Re-ranked by k-reciprocal neighbours ({short(report.reranked_how)}); all else here is without it."
    table = Table("Figures of retrieval", head, rows, note)
    return Section("retrieval", "Retrieval", [Text(said), Charts([recall_chart(ranks, found), table])])


def recall_at(ranks: Indices, ks: Sequence[int]) -> list[float | None]:
    """ranks (N,) of the nearest positives, 0 for none -> Recall@k for each k; None without a valid query."""
    valid = ranks[ranks > 0]
    return [float((valid <= k).mean()) if valid.size else None for k in ks]


def recall_chart(ranks: Indices, found: Embedded) -> Chart:
    """Recall@k over k, and for each group of queries where there are groups."""
    ks = [k for k in KS if k < max(len(ranks), 3)]
    parts = _by_group(ranks, found)
    lines = {name: recall_at(part, ks) for name, part in parts.items()}
    known = [value for line in lines.values() for value in line if value is not None]
    bottom = max(0.0, 5 * np.floor((100 * min(known, default=0.0) - 2) / 5))
    frame = svg.Frame(
        svg.Axis("k: how many of the nearest count (log scale)", 1, ks[-1], log=True),
        svg.Axis("Recall@k, %", bottom, 100.0),
    )
    drawn, keys = [frame.drawn()], []
    for i, (name, values) in enumerate(lines.items()):
        xs = [frame.at_x(k) for k, value in zip(ks, values, strict=True) if value is not None]
        ys = [frame.at_y(100 * value) for value in values if value is not None]
        if xs:
            drawn.append(svg.curve(i, xs, ys, marks=len(xs)))
        keys.append(Key(svg.sample(i), f"{short(name, 30)} ({int((parts[name] > 0).sum()):,} queries)"))
    rows = [[str(k), *(percent(line[j]) for line in lines.values())] for j, k in enumerate(ks)]
    everyone = lines["All"]
    said = f"Recall@1 is {percent(everyone[0])} %, Recall@{ks[-1]} {percent(everyone[-1])} %."
    note = "The share of queries with a picture of their class among the k nearest."
    if len(lines) > 1:
        note += " A group's queries search the pictures of all groups."
    name = "Recall@k"
    numbers = Table("Recall@k, %", ["k", *map(short, lines)], rows)
    return Chart(name, svg.drawing("recall", name, said, *drawn), keys if len(keys) > 1 else (), note, numbers)


def _by_group(ranks: Indices, found: Embedded) -> dict[str, Indices]:
    """The ranks of the queries of each group, of those with the most queries, and of all."""
    if found.groups is None:
        return {"All": ranks}
    names, counts = np.unique(found.groups[ranks > 0], return_counts=True)
    kept = sorted(names[np.argsort(-counts, kind="stable")][: svg.SERIES - 1].tolist()) if len(names) > 1 else []
    return {name: ranks[found.groups == name] for name in kept if name != "All"} | {"All": ranks}
