"""Claim: TAR@FAR over 10^9 pairs takes little more than their matrix product, in bounded memory, and is exact.

python benchmarks/verification_scale.py [--threads 2] [--repeats 3] [--update docs/scale_evaluation.md]

Prints JSON. Every run is a process of its own, and they alternate: the bare product (the same tiles, which nobody looks
at), TAR at FAR 1e-6 alone (curves=False), and everything at the default rates as well (EER, AUC, ROC). Exactness:
thresholds, TAR and AUC of 12,000 pictures against one full sort of all their negatives.
Faces are drawn: 10 pictures a class, 512 numbers each, a class centre and noise.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from plan import put_between
from scale import grid, in_a_process, machine, measured, middle, said

ALTERNATING = ("product", "tar", "everything")
FAR = 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--sorted", type=int, default=12_000, help="pictures for the comparison with a full sort")
    parser.add_argument("--update", help="page to put the table into")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        arguments = json.loads(options.job)
        print(json.dumps(job(arguments["way"], arguments["pictures"])))
        return
    about = machine(options.threads)
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ALTERNATING}
    for _ in range(options.repeats):
        for way in ALTERNATING:
            runs[way].append(in_a_process(__file__, {"way": way, "pictures": options.pictures}, options.threads))
    results = {way: middle(found) for way, found in runs.items()}
    for found in results.values():
        for name in ("seconds", "cpu_seconds"):
            found[f"product_{name}_share"] = round(results["product"][name] / found[name], 2)
    exact = in_a_process(__file__, {"way": "full_sort", "pictures": options.sorted}, options.threads)
    print(json.dumps({"machine": about, "pictures": options.pictures, "results": results, "exact": exact}, indent=1))
    if options.update:
        put_between(Path(options.update), "verification", page(about, options, results, exact))


def job(way: str, pictures: int) -> dict[str, Any]:
    embeddings, labels = faces(pictures)
    return measured(lambda: WAYS[way](embeddings, labels))


def faces(pictures: int) -> Any:
    import numpy as np

    rng = np.random.default_rng(0)
    labels = np.arange(pictures) // 10
    rng.shuffle(labels)
    centres = rng.standard_normal((labels.max() + 1, 512), dtype=np.float32)
    return centres[labels] + 1.5 * rng.standard_normal((pictures, 512), dtype=np.float32), labels


def product(embeddings: Any, labels: Any) -> dict[str, Any]:
    """The tiles of all pairs, multiplied and forgotten."""
    import numpy as np

    from metric_learning.metrics.cosine import unit_rows
    from metric_learning.metrics.pairs import COLUMNS, ROWS

    units = unit_rows(embeddings)
    room = np.empty((ROWS, COLUMNS), np.float32)
    for start in range(0, len(units), ROWS):
        for left in range(start, len(units), COLUMNS):
            rows, columns = units[start : start + ROWS], units[left : left + COLUMNS]
            np.matmul(rows, columns.T, out=room.ravel()[: len(rows) * len(columns)].reshape(len(rows), len(columns)))
    return {}


def tar(embeddings: Any, labels: Any) -> dict[str, Any]:
    from metric_learning.metrics import all_pairs

    return figures(all_pairs(embeddings, labels, fars=(FAR,), curves=False), FAR)


def everything(embeddings: Any, labels: Any) -> dict[str, Any]:
    from metric_learning.metrics import FARS, all_pairs

    return figures(all_pairs(embeddings, labels, fars=(*FARS, FAR)), FAR)


def figures(found: Any, far: float) -> dict[str, Any]:
    group = found.groups["all"]
    point = next(point for point in group.points if point.target_far == far)
    return {"positives": group.positives, "negatives": group.negatives, "auc": group.auc, "eer": group.eer} | {
        "threshold": point.threshold,
        "tar": point.tar,
        "far": point.far,
    }


def full_sort(embeddings: Any, labels: Any) -> dict[str, Any]:
    """Is each figure that of a full sort of the same scores?"""
    import numpy as np

    from metric_learning.metrics import all_pairs

    kept: dict[bool, list[Any]] = {True: [], False: []}

    def watch(name: str, same: Any, other: Any) -> None:
        kept[True].append(same.copy())
        kept[False].append(other.copy())

    fars = (0.1, 1e-3, FAR)
    group = all_pairs(embeddings, labels, fars=fars, watch=watch).groups["all"]
    same, other = (np.sort(np.concatenate(kept[kind])) for kind in (True, False))
    agree = True
    for point in group.points:
        threshold = np.nextafter(other[::-1][int(point.target_far * other.size + 1e-9)], np.float32(np.inf))
        agree &= point.threshold == float(threshold) and point.tar == float(np.mean(same >= threshold))
    wins = np.searchsorted(other, same, side="left").sum() + np.searchsorted(other, same, side="right").sum()
    agree &= abs(float(wins) / (2 * same.size * other.size) - group.auc) < 1e-12
    return {"pictures": len(labels), "negatives": int(other.size), "equal_to_a_full_sort": bool(agree)}


def page(about: dict[str, Any], options: argparse.Namespace, results: dict[str, Any], exact: dict[str, Any]) -> str:
    names = {
        "product": "the bare matrix product of the pairs",
        "tar": "TAR@FAR 1e-6 (`curves=False`)",
        "everything": "TAR at five FARs, EER, AUC, ROC",
    }
    rows = [
        [
            names[way],
            f"{found['seconds']:,.1f}",
            f"{found['cpu_seconds']:,.1f}",
            f"{found['product_seconds_share']:.2f}",
            f"{found['product_cpu_seconds_share']:.2f}",
            f"{found['peak_mb']:,}",
        ]
        for way, found in results.items()
    ]
    found = results["tar"]
    pairs = (
        f"{options.pictures:,} pictures x 512: {found['positives']:,} positive and {found['negatives']:,} negative "
        f"pairs. TAR@FAR 1e-6 is {100 * found['tar']:.2f} % at cosine {found['threshold']:.4f}, in either run: "
        f"{'yes' if found['threshold'] == results['everything']['threshold'] else 'NO'}."
    )
    check = (
        f"Of {exact['pictures']:,} pictures ({exact['negatives']:,} negative pairs) thresholds, TAR and AUC "
        f"{'equal' if exact['equal_to_a_full_sort'] else 'DO NOT equal'} those of one full sort."
    )
    head = ["run", "seconds", "processor s", "product s / s", "product processor s / processor s", "peak MB"]
    return f"{pairs}\n\n{grid(head, rows)}\n\n{check}\n\n{said(about)}"


WAYS = {"product": product, "tar": tar, "everything": everything, "full_sort": full_sort}

if __name__ == "__main__":
    main()
