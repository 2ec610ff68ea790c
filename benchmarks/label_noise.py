"""Claim: pictures put into another person's folder on purpose are found, and come first in the list of eval --clean.

python benchmarks/label_noise.py --weights mobilefacenet.pt --data_dir=celeba_faces --data_dir=lfw_races
                                 [--seeds 0,1,2] [--share 0.05] [--tune 7] [--update docs/label_noise.md]

Embeds all pictures of each folder once, then changes labels in memory:
- moved: that share of the pictures gets the label of another person, at random;
- strangers: a fifth of the people is set aside, and pictures of theirs, that share of the others' in number, are
  labelled at random as one of the others.
- in two: every second picture of a fifth of the people with four or more gets a label of its own, as if they had two
  folders; how many of these pairs of classes are found, and how many other pairs are called close.
Prints for the first two the suspects, how much of what was planted is among them (recall), how many of them were
planted (precision), and the average precision of all pictures ranked by suspicion. Data sets have wrong labels of their
own, which count against precision; so beside it stands how many of the suspects that were not planted are not suspects
of the data as it is, either. --tune SEED prints the F1 of the suspects by the threshold `far` for that seed instead.
--update puts the tables into a page, between the marks `<!-- planted -->` and `<!-- end -->`.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from plan import put_between
from scale import grid

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from metric_learning import runtime
from metric_learning.metrics.identity_noise import FAR_BELOW, IdentityErrors, identity_errors

FARS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
KINDS = ("moved", "strangers")


class Planted(NamedTuple):
    """Embeddings and labels with wrong ones among them: rows of the data (N,), labels (N,), which are wrong (N,)."""

    rows: np.ndarray
    labels: np.ndarray
    wrong: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="a network that was trained on other people")
    parser.add_argument("--data_dir", required=True, action="append", help="pictures; may be given several times")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are made wrong")
    parser.add_argument("--tune", type=int, help="seed to choose `far` by, instead of the tables")
    parser.add_argument("--update", help="page to put the tables into")
    options = parser.parse_args()
    runtime.prepare(onednn=True)
    data = {Path(folder).name: embedded(options.weights, folder) for folder in options.data_dir}
    if options.tune is not None:
        print(grid(["data", "planted", *(f"far {far:g}" for far in FARS)], tuned(data, options)))
        return
    seeds = [int(seed) for seed in options.seeds.split(",")]
    text = tables(data, seeds, options.share)
    print(text)
    if options.update:
        put_between(Path(options.update), "planted", text)


def embedded(weights: str, folder: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(embeddings (N, D), labels (N,), names of the classes)."""
    from metric_learning.config import EvalOptions, parse
    from metric_learning.data.loader import BadPictures
    from metric_learning.engine import Predictor
    from metric_learning.evaluate import embed_set
    from metric_learning.extract import Reader
    from metric_learning.stages import measuring, setup

    config = parse(EvalOptions, [f"--pretrained_model={weights}", f"--data_dir={folder}", "--test_classes=0"])
    file, _ = setup.find_weights(config)
    embedder = setup.load_embedder(file, config, tell)
    pictures, _ = measuring.choose("all", setup.load_data(config, tell))
    spec = embedder.spec.picture
    predictor = Predictor(embedder, spec.shape, "float32")
    found = embed_set(predictor, pictures, Reader(spec), BadPictures(len(pictures)))
    return found.embeddings, found.labels, pictures.classes


def tell(line: str) -> None:
    print(line, file=sys.stderr)


# ---- wrong labels


def planted(kind: str, labels: np.ndarray, seed: int, share: float) -> Planted:
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    if kind == "moved":
        new, chosen = labels.copy(), rng.choice(len(labels), round(share * len(labels)), replace=False)
        new[chosen] = classes[
            (np.searchsorted(classes, labels[chosen]) + rng.integers(1, len(classes), len(chosen))) % len(classes)
        ]
        return Planted(np.arange(len(labels)), new, np.isin(np.arange(len(labels)), chosen))
    away = np.isin(labels, rng.choice(classes, len(classes) // 5, replace=False))
    stay, others = np.flatnonzero(~away), np.flatnonzero(away)
    chosen = rng.choice(others, min(round(share * len(stay)), len(others)), replace=False)
    rows = np.concatenate([stay, chosen])
    given = np.concatenate([labels[stay], rng.choice(np.unique(labels[stay]), len(chosen))])
    return Planted(rows, given, np.arange(len(rows)) >= len(stay))


def figures(found: IdentityErrors, made: Planted, before: set[int]) -> dict[str, Any]:
    """What the list is worth; before: rows of the data that are suspects with its own labels."""
    hits = made.wrong[found.suspects]
    order = np.argsort(-found.suspicion, kind="stable")
    ranked = made.wrong[order]
    precisions = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    unplanted = made.rows[found.suspects[~hits]].tolist()
    whose = found.classes[found.other_class]
    return {
        "planted": int(made.wrong.sum()),
        "suspects": len(hits),
        "precision": float(hits.mean()) if len(hits) else 0.0,
        "recall": float(hits.sum() / made.wrong.sum()),
        "average precision": float(precisions[ranked].mean()),
        "unplanted": len(unplanted),
        "new": sum(row not in before for row in unplanted),
        "nearest": whose,
    }


def in_two(embeddings: np.ndarray, labels: np.ndarray, seed: int) -> tuple[int, int, int]:
    """(people with two folders, pairs of folders that were found, other pairs that were called close)."""
    rng = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    people = rng.choice(classes[sizes >= 4], int((sizes >= 4).sum()) // 5, replace=False)
    new, first = labels.copy(), int(labels.max()) + 1
    for place, person in enumerate(people):
        new[np.flatnonzero(labels == person)[::2]] = first + place
    made = {(int(person), first + place) for place, person in enumerate(people)}
    found = identity_errors(embeddings, new)
    close = {(int(found.classes[a]), int(found.classes[b])) for a, b, _ in found.close}
    return len(people), len(close & made), len(close - made)


# ---- tables


def tables(data: dict[str, Any], seeds: list[int], share: float) -> str:
    rows, own, pairs, split = [], [], [], []
    for name, (embeddings, labels, classes) in data.items():
        as_is = identity_errors(embeddings, labels)
        counts = [as_is.reasons.count(reason) for reason in ("nearer", "far", "pair")]
        own.append([name, f"{len(labels):,}", f"{len(classes):,}", len(as_is.suspects), *counts])
        pairs += [f"{name} {classes[a]} and {classes[b]} ({cosine:.2f})" for a, b, cosine in as_is.close]
        counts = [sum(column) for column in zip(*(in_two(embeddings, labels, seed) for seed in seeds), strict=True)]
        split.append([name, *counts])
        for kind in KINDS:
            runs = []
            for seed in seeds:
                made = planted(kind, labels, seed, share)
                found = identity_errors(embeddings[made.rows], made.labels)
                run = figures(found, made, set(as_is.suspects.tolist()))
                run["right"] = float((run.pop("nearest") == labels[made.rows])[made.wrong].mean())
                runs.append(run)
            rows.append([name, kind, *cells(runs, kind)])
    head = ["data", "planted", "how many", "suspects", "recall, %", "precision, %", "average precision, %"]
    head += ["nearest is whose it is, %", "unplanted suspects", "of them new"]
    plain = grid(["data", "pictures", "classes", "suspects", "nearer", "far", "pair"], own)
    said = f"Classes that are close: {'; '.join(pairs)}." if pairs else "No classes are close."
    folders = grid(["data", "people with two folders", "found", "other pairs called close"], split)
    return "\n\n".join(
        [
            *("With the labels as they are:", plain, said),
            *(f"With {100 * share:g} % wrong labels planted, seeds {', '.join(map(str, seeds))}:", grid(head, rows)),
            *("With the pictures of some people in two folders, the same seeds together:", folders),
        ]
    )


def cells(runs: list[dict[str, Any]], kind: str) -> list[str]:
    """Means over the seeds, shares with their standard deviation (n - 1)."""

    def mean(name: str) -> str:
        return f"{statistics.mean(run[name] for run in runs):.0f}"

    def share(name: str) -> str:
        values = [100 * run[name] for run in runs]
        return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")

    shares = [share(name) for name in ("recall", "precision", "average precision")]
    whose = share("right") if kind == "moved" else ""
    return [mean("planted"), mean("suspects"), *shares, whose, mean("unplanted"), mean("new")]


def tuned(data: dict[str, Any], options: argparse.Namespace) -> list[list[str]]:
    """F1 of the suspects by `far`, a line a data set and kind."""
    rows = []
    for name, (embeddings, labels, _) in data.items():
        for kind in KINDS:
            made = planted(kind, labels, options.tune, options.share)
            line = [name, kind]
            for far in FARS:
                run = figures(identity_errors(embeddings[made.rows], made.labels, far), made, set())
                both = run["precision"] + run["recall"]
                f1 = 2 * run["precision"] * run["recall"] / both if both else 0.0
                line.append(f"{100 * f1:.1f}{' *' if far == FAR_BELOW else ''}")
            rows.append(line)
    return rows


if __name__ == "__main__":
    main()
