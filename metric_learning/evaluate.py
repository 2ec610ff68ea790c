"""Embed a set of pictures once, then hand arrays to the metrics."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.data.loader import BadPictures
from metric_learning.data.sources import PictureSet
from metric_learning.engine import Predictor
from metric_learning.extract import Reader, embed
from metric_learning.files import one_line
from metric_learning.metrics.groups import GroupedResult, per_group
from metric_learning.metrics.pairs import all_pairs, scores_of_pairs
from metric_learning.metrics.retrieval import RetrievalMetrics, retrieval_metrics


@dataclass(frozen=True)
class Embedded:
    """Embeddings (N, D) with the labels, groups and paths of their pictures; groups is None where there are none."""

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_] | None
    paths: list[str]


def embed_set(predictor: Predictor, pictures: PictureSet, reader: Reader, bad: BadPictures) -> Embedded:
    kept, embeddings = embed(predictor, pictures.paths, reader, bad)
    groups = np.array(pictures.groups)[kept] if pictures.groups else None
    return Embedded(embeddings, pictures.labels[kept], groups, [pictures.paths[i] for i in kept])


def retrieval(embedded: Embedded) -> RetrievalMetrics:
    """Recall@1 and @10, MAP@R and the like: every picture queries all the others."""
    return retrieval_metrics(embedded.embeddings, embedded.labels)


def verification(embedded: Embedded, fars: Sequence[float]) -> GroupedResult:
    """TAR@FAR over all pairs within each group."""
    return all_pairs(embedded.embeddings, embedded.labels, embedded.groups, fars)


@dataclass(frozen=True)
class PairList:
    """Pairs of pictures with the answer: paths a and b, same person or thing or not, the group of each pair."""

    a: list[str]
    b: list[str]
    same: NDArray[np.bool_]
    groups: list[str]


def read_pairs(path: str, root: str | None) -> PairList:
    """A csv with the header a,b,same[,group]; paths relative to the csv, or else to `root`. same is 1 or 0."""
    where = Path(path)
    a, b, same, groups = [], [], [], []
    try:
        with open(where, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"a", "b", "same"} <= set(rows.fieldnames or []):
                raise UserError(
                    f"{path}:1: the header must be a,b,same[,group]; got {','.join(rows.fieldnames or [])!r}."
                )
            for row in rows:
                if row["same"] not in ("0", "1") or not row["a"] or not row["b"]:
                    raise UserError(
                        f"{path}:{rows.line_num}: a pair needs two pictures and same=0 or 1; got {dict(row)}."
                    )
                a.append(_beside(where, root, row["a"]))
                b.append(_beside(where, root, row["b"]))
                same.append(row["same"] == "1")
                groups.append(row.get("group") or "all")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"Can't read the pairs {path}: {one_line(error)}.") from error
    if not a:
        raise UserError(f"{path} lists no pairs.")
    return PairList(a, b, np.array(same), groups)


def _beside(where: Path, root: str | None, name: str) -> str:
    """The picture beside the csv if there is one, else below `root`."""
    near = where.parent / name
    return str(near if root is None or near.exists() else Path(root) / name)


def verify_pairs(
    predictor: Predictor, pairs: PairList, reader: Reader, bad: BadPictures, fars: Sequence[float]
) -> tuple[GroupedResult, int]:
    """(figures per group over the pairs of a list, how many pairs were left out because a picture can't be read)."""
    paths = sorted({*pairs.a, *pairs.b})
    kept, embeddings = embed(predictor, paths, reader, bad)
    row = {paths[index]: place for place, index in enumerate(kept)}
    usable = np.array([a in row and b in row for a, b in zip(pairs.a, pairs.b, strict=True)])
    left = np.flatnonzero(usable)
    if not len(left):
        raise UserError(
            f"None of the {len(usable)} pairs has two pictures that can be read. Check --pairs and --data_dir."
        )
    scores = scores_of_pairs(embeddings, [row[pairs.a[i]] for i in left], [row[pairs.b[i]] for i in left])
    same, groups = pairs.same[left], np.array(pairs.groups)[left]
    by_group = {
        str(name): (scores[(groups == name) & same], scores[(groups == name) & ~same]) for name in np.unique(groups)
    }
    return per_group(by_group, fars), int((~usable).sum())
