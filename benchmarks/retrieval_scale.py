"""Claim: Recall@1 over 60,502 pictures takes less time than faiss's flat index. There, and for 1,000 queries in a
million pictures, it takes far less time than PaddleCV's algorithm, less memory than either, and is the same figure.

python benchmarks/retrieval_scale.py [--threads 2] [--repeats 3] [--only 60502x512] [--update docs/scale_evaluation.md]

Prints JSON. Every run is a process of its own, the ways alternate, seconds are medians. faiss: IndexFlatIP over rows
of length 1, two nearest, self left out by index. PaddleCV (metric_learning/utility.py, recall_topk): the queries in 100
parts; of each part all squared distances, an argsort of every whole row, and its first ten columns. It does so in four
processes, each with a copy of the embeddings; here in --threads threads, which share them. Of it only --share of the
queries is run, once, and the time scaled up: each row costs the same.
Faces are drawn: 5 pictures a class, each a class centre and noise, so that Recall@1 is neither 0 nor 1.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from plan import put_between
from scale import grid, in_a_process, machine, measured, middle, said

CASES = {
    "60502x512": {"pictures": 60502, "size": 512, "queries": None},
    "60502x2048": {"pictures": 60502, "size": 2048, "queries": None},
    "1000000x512": {"pictures": 1_000_000, "size": 512, "queries": 1000},
}
NOISE = 2.7
PARTS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.05, help="of the queries, for PaddleCV's algorithm")
    parser.add_argument("--only", help="one of " + ", ".join(CASES))
    parser.add_argument("--update", help="page to put the table into")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(job(**json.loads(options.job))))
        return
    about = machine(options.threads)
    cases = {name: case for name, case in CASES.items() if options.only in (None, name)}
    results = {name: compared(case, options) for name, case in cases.items()}
    print(json.dumps({"machine": about, "results": results}, indent=1))
    if options.update:
        put_between(Path(options.update), "retrieval", page(about, results))


def compared(case: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Way -> medians; faiss is left out where it is missing."""
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for turn in range(options.repeats):
        for way in WAYS:
            if way == "paddlecv" and turn:
                continue
            share = options.share if way == "paddlecv" and case["queries"] is None else 1.0
            found = in_a_process(
                __file__, {"way": way, "share": share, "threads": options.threads, **case}, options.threads
            )
            if found["recall"] is not None:
                runs[way].append(found)
    medians = {way: middle(found) for way, found in runs.items() if found}
    for way in medians:
        for name in ("seconds", "cpu_seconds"):
            medians[way][f"{name}_to_ours"] = round(medians[way][name] / medians["ours"][name], 2)
    return medians


def job(way: str, pictures: int, size: int, queries: int | None, share: float, threads: int) -> dict[str, Any]:
    embeddings, labels = faces(pictures + (queries or 0), size)
    cut = queries or 0
    sides = (embeddings[:cut], labels[:cut]) if cut else (embeddings, labels)
    gallery = (embeddings[cut:], labels[cut:]) if cut else None
    found = measured(lambda: {"recall": WAYS[way](sides, gallery, share, threads)})
    return found | {
        "seconds": round(found["seconds"] / share, 2),
        "cpu_seconds": round(found["cpu_seconds"] / share, 2),
    }


def faces(pictures: int, size: int) -> Any:
    import numpy as np

    rng = np.random.default_rng(0)
    labels = np.arange(pictures) // 5
    rng.shuffle(labels)
    embeddings = np.empty((pictures, size), np.float32)
    centres = rng.standard_normal((labels.max() + 1, size), dtype=np.float32)
    for start in range(0, pictures, 8192):
        here = slice(start, start + 8192)
        embeddings[here] = centres[labels[here]]
        embeddings[here] += NOISE * rng.standard_normal(embeddings[here].shape, dtype=np.float32)
    return embeddings, labels


def ours(sides: Any, gallery: Any, share: float, threads: int) -> float | None:
    from metric_learning.metrics import retrieval_metrics

    others = {} if gallery is None else {"gallery": gallery[0], "gallery_labels": gallery[1]}
    return retrieval_metrics(*sides, **others, ks=(1,), map_at_r=False)["recall@1"]


def faiss(sides: Any, gallery: Any, share: float, threads: int) -> float | None:
    import numpy as np

    try:
        import faiss as library
    except ImportError:
        return None
    library.omp_set_num_threads(threads)
    (queries, labels), (rows, names) = sides, gallery or sides
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    index = library.IndexFlatIP(units.shape[1])
    index.add(units)
    if gallery is None:
        _, near = index.search(units, 2)
        return hits(np.where(near[:, 0] == np.arange(len(near)), near[:, 1], near[:, 0]), labels, names, True)
    _, near = index.search(queries / np.linalg.norm(queries, axis=1, keepdims=True), 1)
    return hits(near[:, 0], labels, names, False)


def paddlecv(sides: Any, gallery: Any, share: float, threads: int) -> float | None:
    import numpy as np

    (queries, labels), (rows, names) = sides, gallery or sides
    queries, rows = (one / np.sqrt(np.sum(one**2, 1)).reshape(-1, 1) for one in (queries, rows))
    a, b = np.sum(queries**2, 1).reshape(-1, 1), np.sum(rows**2, 1).reshape(1, -1)

    def part(which: Any) -> Any:
        distances = a[which] + b - 2 * np.dot(queries[which], rows.T)
        if gallery is None:
            distances[np.arange(len(which)), which] += 1e8
        return np.argsort(distances, 1)[:, :10]

    parts = np.array_split(np.arange(len(queries)), PARTS)[: round(PARTS * share)]
    with ThreadPoolExecutor(threads) as pool:
        found = np.vstack(list(pool.map(part, parts)))
    return hits(found[:, 0], labels, names, gallery is None)


def hits(found: Any, labels: Any, names: Any, alone: bool) -> float:
    """Share of the first queries, of those with a positive, whose nearest is one."""
    import numpy as np

    classes, counts = np.unique(names, return_counts=True)
    sizes = dict(zip(classes.tolist(), counts.tolist(), strict=True))
    labels = labels[: len(found)]
    valid = np.array([sizes.get(label, 0) > alone for label in labels.tolist()])
    return float((names[found] == labels)[valid].mean())


def page(about: dict[str, Any], results: dict[str, Any]) -> str:
    names = {"ours": "this toolkit", "faiss": "faiss IndexFlatIP", "paddlecv": "PaddleCV's algorithm"}
    rows = [
        [
            name.replace("x", " x "),
            "all" if CASES[name]["queries"] is None else f"{CASES[name]['queries']:,}",
            names[way],
            f"{found['seconds']:,.1f}",
            f"{found['cpu_seconds']:,.1f}",
            f"{found['seconds_to_ours']:.2f}",
            f"{found['cpu_seconds_to_ours']:.2f}",
            f"{found['peak_mb']:,}",
            f"{100 * found['recall']:.2f}",
        ]
        for name, case in results.items()
        for way, found in case.items()
    ]
    head = ["pictures x size", "queries", "way", "seconds", "processor s", "s / ours", "processor s / ours"]
    head += ["peak MB", "Recall@1, %"]
    return f"{grid(head, rows)}\n\n{said(about)}"


WAYS = {"ours": ours, "faiss": faiss, "paddlecv": paddlecv}

if __name__ == "__main__":
    main()
