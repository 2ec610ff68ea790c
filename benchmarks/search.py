"""Claims: a search gives the same with faiss and without it, and what it costs; what a re-ranking gives, and costs.

python benchmarks/search.py [--threads 2] [--repeats 3] [--sizes 10000 60502] [--update docs/search.md]
python benchmarks/search.py --embeddings all.npz --data_dir <data>/grocery_sop

The first draws faces (5 pictures a class, each a class centre and noise, 512 numbers), searches them for one picture
and for 1,000, and measures their retrieval with and without re-ranking; every run is a process of its own. The second
takes embeddings that `infer.py --output=all.npz` wrote of the test pictures of the data, and orders them by cosine,
re-ranked, and re-ranked among each query's nearest M alone, as `infer.py --rerank` does. Both print JSON. Times are
medians of those that all threads spent on a processor, so that other work beside them counts little.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plan import put_between
from scale import grid, in_a_process, machine, measured, middle, said

WIDTH, NOISE = 512, 2.7
SHORTLISTS = (50, 100, 200, 400)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 60_502])
    parser.add_argument("--update", help="page to put the tables into")
    parser.add_argument("--embeddings", help="a file of infer.py")
    parser.add_argument("--data_dir", help="the data that it is of")
    parser.add_argument("--queries", type=int, default=300, help="how many of the pictures are asked")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        given = json.loads(options.job)
        print(json.dumps(JOBS[given.pop("name")](**given)))
        return
    if options.embeddings:
        print(json.dumps(shortlists(Path(options.embeddings), options.data_dir, options.queries), indent=1))
        return
    about = machine(options.threads)
    found: dict[str, Any] = {}
    for count in options.sizes:
        for name, how in (("search", "numpy"), ("search", "faiss"), ("rank", "plain"), ("rank", "rerank")):
            job = {"name": name, "count": count, "how": how}
            runs = [in_a_process(__file__, job, options.threads) for _ in range(options.repeats)]
            found[f"{name} {how} {count}"] = middle(runs)
    for count in options.sizes:
        if found[f"search numpy {count}"].pop("answers") != found[f"search faiss {count}"].pop("answers"):
            raise SystemExit(f"faiss and NumPy differ in {count} pictures.")
    print(json.dumps({"machine": about, "results": found}, indent=1))
    if options.update:
        put_between(Path(options.update), "search", page(about, found, options.sizes))


def page(about: dict[str, Any], found: dict[str, Any], sizes: list[int]) -> str:
    searches = [["pictures", "by", "made ready, s", "one query, ms", "1,000 queries, s", "peak MB"]]
    ranks = [["pictures", "order", "s", "peak MB", "Recall@1", "MAP@R"]]
    for count in sizes:
        for how in ("numpy", "faiss"):
            run = found[f"search {how} {count}"]
            searches.append([f"{count:,}", how, run["ready_s"], run["one_ms"], run["many_s"], run["peak_mb"]])
        for how in ("plain", "rerank"):
            run = found[f"rank {how} {count}"]
            figures = [f"{100 * run[name]:.2f}" for name in ("recall@1", "map@r")]
            ranks.append(
                [
                    f"{count:,}",
                    {"plain": "cosine", "rerank": "re-ranked"}[how],
                    run["cpu_seconds"],
                    run["peak_mb"],
                    *figures,
                ]
            )
    return "\n\n".join([said(about), *(grid(rows[0], rows[1:]) for rows in (searches, ranks))])


# ---- drawn faces


def drawn(count: int) -> tuple[Any, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    labels = np.arange(count) // 5
    centres = rng.standard_normal((labels[-1] + 1, WIDTH), np.float32)
    return centres[labels] + NOISE * rng.standard_normal((count, WIDTH), np.float32), labels


def search(count: int, how: str) -> dict[str, Any]:
    import numpy as np

    from metric_learning.metrics import neighbours

    rows, _ = drawn(count)
    queries = rows[:1000] + np.random.default_rng(1).standard_normal((1000, WIDTH), np.float32)

    def job() -> dict[str, Any]:
        start = time.process_time()
        index = neighbours.Index(rows, how)
        if how == "faiss":
            index._flat  # noqa: B018 - made now, not by the first search
            neighbours.FEW = 0  # one query as well by faiss
        ready = time.process_time() - start
        index.search(queries[:1], 5)
        one = statistics.median(seconds(lambda i=i: index.search(queries[i : i + 1], 5)) for i in range(20))
        many = seconds(lambda: index.search(queries, 5, chunk=64))
        cosines, places = index.search(queries, 5, chunk=64)
        answers = [float(cosines.sum(dtype=np.float64)), places.tolist()[::50]]
        return {
            "ready_s": round(ready, 2),
            "one_ms": round(1000 * one, 1),
            "many_s": round(many, 2),
            "answers": answers,
        }

    return measured(job)


def rank(count: int, how: str) -> dict[str, Any]:
    from metric_learning.metrics.reranking import Rerank
    from metric_learning.metrics.retrieval import retrieval_metrics

    rows, labels = drawn(count)
    return measured(lambda: dict(retrieval_metrics(rows, labels, rerank=Rerank() if how == "rerank" else None)))


JOBS: dict[str, Callable[..., dict[str, Any]]] = {"search": search, "rank": rank}


def seconds(act: Callable[[], object]) -> float:
    start = time.process_time()
    act()
    return time.process_time() - start


# ---- embeddings of pictures


def shortlists(file: Path, data_dir: str, count: int) -> dict[str, Any]:
    """Recall@1, MAP@R and the processor's time of every order, over `count` of the pictures as queries."""
    import numpy as np

    from metric_learning.gallery import Gallery
    from metric_learning.metrics.cosine import hide_self
    from metric_learning.metrics.reranking import Rerank, Reranked, reranked_hits

    gallery = Gallery.read(file)
    rows, labels = gallery.embeddings, labels_of(gallery.paths, data_dir)
    asked = np.unique(np.linspace(0, len(rows) - 1, count).astype(int))
    found: dict[str, Any] = {"pictures": len(rows), "classes": len(np.unique(labels)), "queries": len(asked)}

    def note(name: str, orders: dict[int, Any], start: float) -> None:
        spent = (time.process_time() - start) / (len(rows) if "all" in name else len(orders))
        found[name] = figures_of(orders, labels) | {"cpu_ms_a_query": round(1000 * spent, 1)}

    start = time.process_time()
    _, nearest = gallery.search(rows[asked], max(SHORTLISTS) + 1)
    near = {i: hits[hits != i] for i, hits in zip(asked.tolist(), nearest, strict=True)}
    note("cosine", near, start)
    start, orders = time.process_time(), {}
    for first, slab in Reranked(rows, None, Rerank()).slabs():
        hide_self(slab, first)
        for i, row in enumerate(slab, first):
            if i in near:
                orders[i] = np.argsort(-row, kind="stable")
    note("re-ranked, all", orders, start)
    for most in SHORTLISTS:
        start = time.process_time()
        for i, hits in near.items():
            scores = reranked_hits(rows[i], rows[hits[:most]], Rerank())
            orders[i] = np.concatenate([hits[:most][np.argsort(-scores, kind="stable")], hits[most:]])
        note(f"re-ranked, nearest {most}", orders, start)
    return found


def labels_of(paths: list[str], data_dir: str) -> Any:
    import numpy as np

    from metric_learning.data.splits import load_splits

    splits = load_splits(
        data_dir, test_classes=None if (Path(data_dir) / "Ebay_test.txt").is_file() else 0.0, val_classes=0.0
    )
    classes = {}
    for part in (splits.train, splits.test):
        classes |= {
            str(Path(path).resolve()): part.classes[label] for path, label in zip(part.paths, part.labels, strict=True)
        }
    return np.array([classes[str(Path(path).resolve())] for path in paths])


def figures_of(orders: dict[int, Any], labels: Any) -> dict[str, Any]:
    """Recall@1 and MAP@R of queries with their orders; what lies behind the end of an order counts as missed."""
    import numpy as np

    first, areas = [], []
    for i, order in orders.items():
        r = int((labels == labels[i]).sum()) - 1
        if r:
            near = labels[order[:r]] == labels[i]
            first.append(bool(near[0]))
            areas.append(float((np.cumsum(near) / np.arange(1, len(near) + 1) * near).sum() / r))
    return {"recall@1": round(float(np.mean(first)), 4), "map@r": round(float(np.mean(areas)), 4)}


if __name__ == "__main__":
    main()
