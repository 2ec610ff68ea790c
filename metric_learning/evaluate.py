"""Embed a set of pictures once, then hand arrays to the metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.data.loader import BadPictures
from metric_learning.data.names import taken
from metric_learning.data.pair_lists import PairList, TemplateList
from metric_learning.data.pictures import PictureError, Source
from metric_learning.data.questions import Questions
from metric_learning.data.sources import PictureSet
from metric_learning.engine import Predictor
from metric_learning.extract import Reader, embed
from metric_learning.metrics.cosine import Floats, Indices
from metric_learning.metrics.folds import BestAccuracy, FoldAccuracy, best_accuracy, ten_fold_accuracy
from metric_learning.metrics.group_means import GroupMeans
from metric_learning.metrics.groups import GroupedResult, per_group
from metric_learning.metrics.histogram import ScoreHistograms
from metric_learning.metrics.pairs import all_pairs, scores_of_pairs
from metric_learning.metrics.reranking import Rerank
from metric_learning.metrics.retrieval import RetrievalMetrics, retrieval_metrics
from metric_learning.metrics.stored_points import StoredCounts
from metric_learning.metrics.team import Team
from metric_learning.metrics.templates import template_embeddings


@dataclass(frozen=True)
class Embedded:
    """Embeddings (N, D) with the labels, groups and paths of their pictures; groups is None where there are none."""

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_] | None
    paths: Sequence[str]

    def less(self, means: GroupMeans | None) -> "Embedded":
        """As pairs are compared: each embedding normalised and less the mean of its group, where those are known."""
        return self if means is None else replace(self, embeddings=means.taken_off(self.embeddings, self.groups))


def embed_set(predictor: Predictor, pictures: PictureSet, reader: Reader, bad: BadPictures) -> Embedded:
    kept, embeddings = embed(predictor, pictures.paths, reader, bad)
    groups = np.array(pictures.groups)[kept] if pictures.groups else None
    return Embedded(embeddings, pictures.labels[kept], groups, taken(pictures.paths, kept))


def retrieval(embedded: Embedded, team: Team = dist.EVERYONE, rerank: Rerank | None = None) -> RetrievalMetrics:
    """Recall@1 and @10, MAP@R and the like: every picture queries all the others. A team shares the work."""
    return retrieval_metrics(embedded.embeddings, embedded.labels, team=team, rerank=rerank)


def verification(
    embedded: Embedded,
    fars: Sequence[float],
    stored: StoredCounts | None = None,
    team: Team = dist.EVERYONE,
    histograms: ScoreHistograms | None = None,
) -> GroupedResult:
    """TAR@FAR over all pairs within each group; `stored` counts the same pairs at thresholds chosen before.

    Each process of a team gets the figures over all pairs, and the counts in `stored` and `histograms`.
    """
    watchers = [watcher for watcher in (stored, histograms) if watcher is not None]

    def watch(group: str, positives: Floats, negatives: Floats) -> None:
        for watcher in watchers:
            watcher.add(group, positives, negatives)

    seen = watch if watchers else None
    found = all_pairs(embedded.embeddings, embedded.labels, embedded.groups, fars, watch=seen, team=team)
    for watcher in watchers:
        watcher.gather(team)
    return found


LEVELS = (1e-3, 1e-2, 1e-1)


def rejected_by_group(embedded: Embedded) -> tuple[float | None, dict[str, float]]:
    """(FAR, group -> FRR): which share of each group's true pairs one threshold for all groups rejects.

    Over all pairs within each group. The threshold is the loosest that accepts at most FAR of the negatives of all
    groups together, and FAR is the lowest of LEVELS that so many negatives can measure: 0.001 from 1,000 on, 0.01 from
    100, 0.1 from 10; with fewer it is None, and so is every FRR. A group without a true pair has none.
    """
    result = verification(embedded, LEVELS)
    for far, pooled in zip(LEVELS, result.pooled, strict=True):
        if pooled.threshold is not None:
            points = {name: points[LEVELS.index(far)] for name, points in result.at_global.items()}
            return far, {name: point.frr for name, point in points.items() if point.frr is not None}
    return None, {}


HARDEST = 6


class HardPair(NamedTuple):
    """A pair of a list of pictures that is most wrong: of one class and little alike, or of two and much alike."""

    a: Source
    b: Source
    same: bool
    cosine: float
    group: str


@dataclass(frozen=True)
class PairFigures:
    """What a list of pairs says of an embedding, group by group; left_out: pairs with a picture that can't be read.

    folds: accuracy over folds, where the list has them or they were asked for. best: accuracy at the best threshold,
    where the list has no folds of its own. scores: group -> (positive scores, negative scores). hardest: of either kind
    of pairs of pictures the HARDEST that are most wrong, the most wrong first.
    """

    verification: GroupedResult
    scores: dict[str, tuple[Floats, Floats]]
    folds: dict[str, FoldAccuracy]
    best: dict[str, BestAccuracy]
    left_out: int
    hardest: list[HardPair] = field(default_factory=list)


def verify_pairs(
    predictor: Predictor,
    pairs: PairList,
    reader: Reader,
    bad: BadPictures,
    fars: Sequence[float],
    folds: int | None = None,
    templates: TemplateList | None = None,
    means: GroupMeans | None = None,
) -> PairFigures:
    """Figures over the pairs of a list of pictures or, with `templates`, of templates made of pictures.

    folds: so many for the accuracy, instead of those that the list itself has. means: taken off, by the pairs' groups.
    """
    embeddings, row = (
        _templates(predictor, pairs, templates, reader, bad) if templates else _pictures(predictor, pairs, reader, bad)
    )
    a, b = row[pairs.a], row[pairs.b]
    if means is not None:
        names = np.array(pairs.group_names)[pairs.groups]
        embeddings = means.taken_off_pairs(embeddings, a, b, names)
    left = np.flatnonzero((a >= 0) & (b >= 0))
    if not len(left):
        raise UserError(f"None of the {len(a)} pairs has two pictures that can be read. Check --pairs and --data_dir.")
    scores, same = scores_of_pairs(embeddings, a[left], b[left]), pairs.same[left]
    groups, numbers = pairs.groups[left], pairs.fold_numbers(folds)
    members = {pairs.group_names[code]: np.flatnonzero(groups == code) for code in np.unique(groups)}
    cut = {name: (scores[here], same[here]) for name, here in members.items()}
    judged = {name: (score[truth], score[~truth]) for name, (score, truth) in cut.items()}
    return PairFigures(
        verification=per_group(judged, fars),
        scores=judged,
        folds={}
        if numbers is None
        else {name: ten_fold_accuracy(*cut[name], numbers[left[here]]) for name, here in members.items()},
        best={} if pairs.folds is not None else {name: best_accuracy(*both) for name, both in cut.items()},
        left_out=len(a) - len(left),
        hardest=[] if templates else _hardest(pairs, left, scores, same),
    )


def _hardest(pairs: PairList, left: Indices, scores: Floats, same: NDArray[np.bool_]) -> list[HardPair]:
    rows = []
    for truth in (True, False):
        here = np.flatnonzero(same == truth)
        rows += here[np.argsort(scores[here] if truth else -scores[here], kind="stable")[:HARDEST]].tolist()
    name = pairs.group_names if len(pairs.group_names) > 1 else [""] * len(pairs.group_names)
    return [
        HardPair(
            pairs.items[int(pairs.a[left[i]])],
            pairs.items[int(pairs.b[left[i]])],
            bool(same[i]),
            float(scores[i]),
            name[pairs.groups[left[i]]],
        )
        for i in rows
    ]


def _pictures(predictor: Predictor, pairs: PairList, reader: Reader, bad: BadPictures) -> tuple[Floats, Indices]:
    """(embeddings, for each item of the list its row or -1)."""
    check_missing(pairs, bad)
    kept, embeddings = embed(predictor, pairs.items, reader, bad)
    row = np.full(len(pairs.items), -1)
    row[kept] = np.arange(len(kept))
    return embeddings, row


def _templates(
    predictor: Predictor, pairs: PairList, templates: TemplateList, reader: Reader, bad: BadPictures
) -> tuple[Floats, Indices]:
    """The same for templates, each of those of its pictures that can be read."""
    known = set(templates.templates)
    unknown = [str(name) for name in pairs.items if name not in known]
    if unknown:
        raise UserError(f"--pairs names {len(unknown)} templates that --templates has not, {unknown[0]!r} the first.")
    paths = list(dict.fromkeys(templates.paths))
    kept, embeddings = embed(predictor, paths, reader, bad)
    row = {paths[index]: place for place, index in enumerate(kept)}
    of = [i for i, path in enumerate(templates.paths) if path in row]
    names, rows = template_embeddings(
        embeddings[[row[templates.paths[i]] for i in of]],
        [templates.templates[i] for i in of],
        [templates.media[i] for i in of],
    )
    place = {str(name): i for i, name in enumerate(names)}
    return rows, np.array([place.get(str(name), -1) for name in pairs.items])


def check_missing(pairs: PairList | Questions, bad: BadPictures) -> None:
    """Note the pictures that are not there; a UserError before the first is embedded, if they are too many."""
    reasons = list(pairs.missing.values())
    if len(reasons) > bad.max_share * bad.total:
        raise UserError(
            f"{len(reasons)} of the {len(pairs.items)} pictures of --pairs are missing, more than "
            f"--max_bad_pictures={bad.max_share:g} allows: {'; '.join(reasons[:3])}; check --data_dir."
        )
    for item, why in pairs.missing.items():
        bad.add(str(pairs.items[item]), PictureError(why))
