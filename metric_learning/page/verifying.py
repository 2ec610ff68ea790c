"""Pairs: how many of one class are accepted, and how many of two, group by group."""

from collections.abc import Mapping

from metric_learning.metrics.folds import FoldAccuracy
from metric_learning.metrics.groups import GroupedResult
from metric_learning.metrics.verification import OperatingPoint
from metric_learning.page.material import Material
from metric_learning.page.pair_charts import FEW, frr_chart, histogram_charts, measured, roc_chart
from metric_learning.page.parts import Block, Card, Charts, Row, Rows, Section, Table, Text, short
from metric_learning.page.thumbnails import thumb
from metric_learning.plot import listed, rate
from metric_learning.report import UNDEFINED, number, percent

LISTED = 40  # groups in tables
HEADLINE = 1e-3


def section(material: Material) -> Section:
    """Tables, ROC, FRR and histograms; of a list of pairs also the hardest."""
    result = material.report.verification
    assert result is not None
    several = len(result.groups) > 1
    blocks: list[Block] = [
        Text(
            f"Over {short(material.report.pairs, 200)}. Two pictures are taken for the same where the cosine of their "
            "embeddings is at least the threshold. TAR: the share of pairs of one class that are accepted. FAR: the "
            "share of pairs of two classes that are accepted, 1e-3 being one in a thousand. FRR: 100 % less TAR."
        ),
        own_table(result),
        *([global_table(result)] if several else []),
        *_others(material),
    ]
    charts, panels = [roc_chart(result)], histogram_charts(material.histograms, result)
    said = [Text(_histograms(result))] if panels else []
    if several:
        charts += [frr_chart(result)] if measured(result) else []
        blocks += [Charts(charts), *said, *([Charts(panels)] if panels else [])]
    else:
        blocks += [*said, Charts([*charts, *panels])]
    return Section("verification", "Verification", [*blocks, *hardest_rows(material)])


def _histograms(result: GroupedResult) -> str:
    at = [f"FAR {rate(p.target_far)} at {number(p.threshold, 3)}" for p in result.pooled if p.threshold is not None]
    said = "How the cosines are spread: the further the two hills lie apart, the easier it is to tell. "
    return said + (f"Upright lines: the thresholds for all pairs together ({', '.join(at)})." if at else "")


def headline(result: GroupedResult) -> int | None:
    """Which of the operating points stands at the top: FAR 1e-3, or the strictest that can be measured."""
    known = [i for i, point in enumerate(result.pooled) if point.tar is not None]
    wanted = [i for i in known if result.pooled[i].target_far == HEADLINE]
    return wanted[0] if wanted else min(known, key=lambda i: result.pooled[i].target_far, default=None)


def cards(result: GroupedResult) -> list[Card]:
    """TAR at one threshold, and the worst and the best group there; of one group its EER."""
    at = headline(result)
    if at is None:
        return []
    pooled, summary = result.pooled[at], result.global_summary[at]
    pairs = sum(found.positives for found in result.groups.values())
    others = sum(found.negatives for found in result.groups.values())
    far, threshold = rate(pooled.target_far), number(pooled.threshold, 3)
    accepted = round((pooled.far or 0.0) * others)
    said = f"of {pairs:,} pairs of one class accepted at cosine {threshold}, and {accepted:,} of {others:,} of two"
    found = [Card(f"TAR at FAR {far}", _share(pooled.tar), said)]
    if len(result.groups) > 1 and summary.worst is not None:
        tars = {name: tar for name, points in result.at_global.items() if (tar := points[at].tar) is not None}
        best = max(tars, key=lambda name: tars[name])
        note = f"{_named(summary.worst, result)}, at the same threshold; the best: {_named(best, result)}"
        found.append(Card("TAR of the worst group", _share(summary.min), f"{note}, {_share(tars[best])}"))
    elif len(result.groups) == 1:
        eer = next(iter(result.groups.values())).eer
        found.append(Card("EER", _share(eer), "where as many false pairs are accepted as true ones rejected"))
    return found


def _named(group: str, result: GroupedResult) -> str:
    few = result.groups[group].positives < FEW
    return short(group, 30) + (f" (only {result.groups[group].positives:,} pairs)" if few else "")


def fold_cards(folds: Mapping[str, FoldAccuracy]) -> list[Card]:
    """Accuracy over the folds; of several groups the mean over them, and the worst."""
    means = {name: found.mean for name, found in folds.items() if found.mean is not None}
    if not means:
        return []
    worst = min(means, key=lambda name: means[name])
    number = len(folds[worst].accuracies)
    title = f"Accuracy over {number} folds"
    if len(means) == 1:
        return [Card(title, _share(means[worst]), f"std {percent(folds[worst].std)}; threshold chosen on the others")]
    said = f"mean over {len(means)} groups; the worst is {short(worst, 30)}: {_share(means[worst])}"
    return [Card(title, _share(sum(means.values()) / len(means)), said)]


def _share(share: float | None) -> str:
    return UNDEFINED if share is None else f"{percent(share)} %"


# ---- tables


def own_table(result: GroupedResult) -> Table:
    """Ability: each group at its own thresholds."""
    fars = [f"FAR {rate(point.target_far)}" for point in result.pooled]
    rows = []
    for name in listed(result, LISTED):
        found = result.groups[name]
        few = " (few)" if found.positives < FEW else ""
        counts = [f"{found.positives:,}{few}", f"{found.negatives:,}", number(found.auc), percent(found.eer)]
        rows.append([short(name), *counts, *map(_own_cell, found.points)])
    head = ["Group", "Same pairs", "Other pairs", "AUC", "EER %", *fars]
    several = len(result.groups) > 1
    caption = "Ability: TAR in %, each group at its own threshold (in brackets)"
    return Table(caption if several else "TAR in % (in brackets the threshold)", head, rows, _note(result))


def _note(result: GroupedResult) -> str:
    said = []
    if any(found.positives < FEW for found in result.groups.values()):
        said.append(f"Few: less than {FEW} pairs of one class, so the figures are rough.")
    needs = {p.target_far: p.needs for g in result.groups.values() for p in g.points if p.needs is not None}
    if needs:
        asked = ", ".join(f"FAR {rate(far)} takes {needed:,}" for far, needed in sorted(needs.items(), reverse=True))
        said.append(f"n/a: too few pairs of two classes; {asked}.")
    if len(result.groups) > LISTED:
        said.append(f"{LISTED} of {len(result.groups)} groups, those with the most pairs; the json has all.")
    return " ".join(said)


def _own_cell(point: OperatingPoint) -> str:
    if point.needs is not None:
        return "n/a"
    return f"{percent(point.tar)} ({number(point.threshold, 3)})"


def global_table(result: GroupedResult) -> Table:
    """Bias: all groups at the same thresholds."""
    head = ["Group", *(f"FAR {rate(point.target_far)}" for point in result.pooled)]
    rows = [[short(name), *map(_global_cell, result.at_global[name])] for name in listed(result, LISTED)]
    rows.append(["All pairs", *map(_global_cell, result.pooled)])
    rows.append(["Threshold", *(number(p.threshold) if p.threshold is not None else "n/a" for p in result.pooled)])
    rows.append(["FRR, highest / lowest", *(number(s.frr_ratio, 2) for s in result.global_summary)])
    rows.append(["Skewed error ratio", *(number(s.skewed_error_ratio, 2) for s in result.global_summary)])
    note = "A system has one threshold. The FAR in the head is that of all groups together."
    if any(summary.frr_ratio is None and summary.groups for summary in result.global_summary):
        note += " Undefined: the lowest is 0."
    return Table("Bias: TAR / FAR in %, all groups at one threshold", head, rows, note)


def _global_cell(point: OperatingPoint) -> str:
    if point.needs is not None:
        return "n/a"
    return f"{percent(point.tar)} / {UNDEFINED if point.far is None else f'{100 * point.far:.3g}'}"


def _others(material: Material) -> list[Block]:
    """What a report may hold besides: folds, the best threshold, the stored one."""
    report, blocks = material.report, list[Block]()
    if report.folds:
        rows = [[short(n), str(len(f.accuracies)), percent(f.mean), percent(f.std)] for n, f in report.folds.items()]
        head = ["Group", "Folds", "Accuracy %", "Std"]
        blocks.append(Table("Accuracy over folds, threshold chosen on the others", head, rows[:LISTED]))
    if report.best:
        rows = [[short(n), percent(f.accuracy), number(f.threshold)] for n, f in report.best.items()]
        note = "Optimistic: chosen on the pairs that it is measured on."
        head = ["Group", "Accuracy %", "Threshold"]
        blocks.append(Table("Accuracy at the best threshold for this very list", head, rows[:LISTED], note))
    if report.stored is not None:
        points = dict(report.stored.groups)
        if len(points) > 1:
            points["All pairs"] = report.stored.pooled
        rows = [[short(name), _global_cell(point)] for name, point in points.items()]
        threshold, far = number(report.stored.pooled.threshold), rate(float(f"{report.stored.pooled.target_far:.3g}"))
        note = f"Fitted for FAR {far} on {short(report.stored_on, 200)}."
        caption = f"At the stored threshold {threshold}, which travels with the weights"
        blocks.append(Table(caption, ["Group", "TAR / FAR %"], [*rows[:LISTED], rows[-1]][: len(rows)], note))
    return blocks


# ---- the hardest of a list


def hardest_rows(material: Material) -> list[Block]:
    """Pairs of one class that are least alike, and of two that are most."""
    found = list[Block]()
    for same, title in ((True, "Same, and least alike"), (False, "Not the same, and most alike")):
        rows = [
            Row(
                f"{number + 1}: cosine {pair.cosine:.3f}" + (f", {short(pair.group, 30)}" if pair.group else ""),
                "",
                [thumb(pair.a, "query", short(pair.a)), thumb(pair.b, "right" if same else "wrong", short(pair.b))],
            )
            for number, pair in enumerate([pair for pair in material.hardest if pair.same == same])
        ]
        if rows:
            found.append(Rows(title, rows))
    return found
