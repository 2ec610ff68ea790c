"""Claim: what a step costs grows with the rows of the class centres that take part, and processes divide them.

python benchmarks/centers_scale.py [--batch 128] [--steps 4] [--ranks] [--update docs/scale.md]

Prints JSON: seconds of a step (loss, gradients and update over given embeddings of 512 numbers, arcmargin, momentum)
and the peak memory of the process, for every kind of centres and number of classes, each in a process of its own; the
median of the steps after the first. --ranks: also two processes under Paddle's launcher, each with half of the classes
and a thread. Kinds whose centres and gradients can't fit in the memory are left out. --update puts the tables between
the marks of a page and draws its picture beside it.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
DIM = 512
CELLS = [("all", 1.0), ("partial", 0.1), ("partial", 0.01), ("pool", 100_000)]  # the last: slots
CLASSES = (100_000, 1_000_000, 4_000_000)
GIB = 2**30
# Rows of centres, gradient and momentum, and eight arrays like the logits, in bytes.
NEEDS = {"all": lambda classes, batch: classes * (3 * 4 * DIM + 8 * 4 * batch)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--classes", type=int, nargs="+", default=list(CLASSES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ranks", action="store_true")
    parser.add_argument("--update", help="page to put the tables into")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "RATE", "CLASSES"), help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, rate, classes = options.one
        measure(kind, float(rate), int(classes), options)
        return
    from metric_learning.runtime import paddle_version

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found: dict[str, Any] = {"paddle": paddle_version()[0], "threads": options.threads, "batch": options.batch}
    found["one_process"] = []
    for classes in options.classes:
        for kind, rate in CELLS:
            if kind in NEEDS and NEEDS[kind](classes, options.batch) > 0.9 * memory:
                continue
            found["one_process"] += run(kind, rate, classes, 1, options)
            print(json.dumps(found["one_process"][-1]), file=sys.stderr, flush=True)
    if options.ranks:
        found["two_processes"] = [
            row for kind, rate in CELLS for row in run(kind, rate, sorted(options.classes)[-2], 2, options)
        ]
    found["load"] = os.getloadavg()[0]
    print(json.dumps(found, indent=1))
    if options.update:
        publish(found, Path(options.update))


def run(kind: str, rate: float, classes: int, size: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What each process of a cell measured."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = ["-m", "paddle.distributed.launch", f"--nproc_per_node={size}", f"--log_dir={folder}/log"]
        command = [sys.executable, *(launcher if size > 1 else []), __file__, "--one", kind, str(rate), str(classes)]
        command += [f"--batch={options.batch}", f"--steps={options.steps}", f"--out={folder}"]
        command += [f"--threads={max(options.threads // size, 1)}"]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(size)]


def measure(kind: str, rate: float, classes: int, options: argparse.Namespace) -> None:
    """One process's part of a cell, as JSON into the folder `out`."""
    from metric_learning import runtime

    runtime.prepare(threads=options.threads)
    import numpy as np
    import paddle

    from metric_learning import dist
    from metric_learning.losses import element_loss, pool_loss
    from metric_learning.optimizer import Optimizer

    paddle.set_device("cpu")
    runtime.keep_freed_memory()
    dist.start()
    paddle.seed(0)
    arc = {"scale": 64.0, "margin": 0.5}
    if kind == "pool":
        loss = pool_loss("arcmargin", classes, DIM, int(rate), **arc)
    else:
        loss = element_loss("arcmargin", classes, DIM, centers=kind, partial_rate=rate, **arc)
    optimizer = Optimizer("momentum", paddle.nn.Linear(1, 1), loss, momentum=0.9, weight_decay=5e-4)
    optimizer.set_lr(0.1)
    rng, seconds = np.random.default_rng(0), []
    for number in range(options.steps + 1):
        x = paddle.to_tensor(rng.normal(size=(options.batch, DIM)).astype(np.float32), stop_gradient=False)
        labels = paddle.to_tensor(rng.integers(0, classes, options.batch))
        paddle.seed(number)
        dist.barrier()
        start = time.perf_counter()
        (pool_gradients if kind == "pool" else plain_gradients)(loss, x, labels)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    centers = loss.element.centers if kind == "pool" else loss.centers
    rows = centers.last - centers.first
    found = {
        "kind": kind if kind == "all" else f"{kind} {rate:,g}",
        "classes": classes,
        "processes": dist.size(),
        "rows_held": rows,
        "rows_taking_part": {"all": rows, "pool": 2 * rows}.get(kind) or len(centers.sample()),
        "seconds": round(statistics.median(seconds[1:]), 3),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 2),
    }
    (Path(options.out) / f"{dist.rank()}.json").write_text(json.dumps(found))


def plain_gradients(loss: Any, x: Any, labels: Any) -> None:
    loss(x, labels).backward()


def pool_gradients(loss: Any, x: Any, labels: Any) -> None:
    """Both halves of the batch in turn, one as the network's, one as its copy's."""
    first, second = slice(None, len(x) // 2), slice(len(x) // 2, None)
    for probes, others, keep in ((first, second, False), (second, first, True)):
        loss(x[probes], labels[probes], x[others].detach(), labels[others], keep).backward()


def publish(found: dict[str, Any], page: Path) -> None:
    from plan import put_between

    head = "| centres | classes | rows taking part | seconds a step | peak memory, GiB |\n|---|---|---|---|---|\n"
    rows = [
        f"| {r['kind']} | {r['classes']:,} | {r['rows_taking_part']:,} | {r['seconds']:.2f} | {r['peak_gib']:.1f} |"
        for r in found["one_process"]
    ]
    about = f"\n\n{found['paddle']}, {found['threads']} threads, batch {found['batch']}, load {found['load']:.1f}."
    put_between(page, "centers", head + "\n".join(rows) + about)
    if "two_processes" in found:
        head = "| centres | classes | rows that each holds | seconds a step | peak memory of each, GiB |\n"
        head += "|---|---|---|---|---|\n"
        pairs = zip(found["two_processes"][::2], found["two_processes"][1::2], strict=True)
        rows = [
            f"| {a['kind']} | {a['classes']:,} | {a['rows_held']:,} and {b['rows_held']:,} | {a['seconds']:.2f} | "
            f"{a['peak_gib']:.1f} and {b['peak_gib']:.1f} |"
            for a, b in pairs
        ]
        put_between(page, "centers of two processes", head + "\n".join(rows))
    draw(found["one_process"], page.with_name("scale_centers.png"))


def draw(rows: list[dict[str, Any]], place: Path) -> None:
    """Seconds a step by the number of classes, a line a kind."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from metric_learning.plot import COLOURS

    figure = Figure(figsize=(6.5, 4.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    for kind, colour, mark in zip(kinds, COLOURS, "os^Dv", strict=False):
        mine = [row for row in rows if row["kind"] == kind]
        label = "all" if kind == "all" else kind
        axes.loglog([r["classes"] for r in mine], [r["seconds"] for r in mine], marker=mark, color=colour, label=label)
    axes.set(xlabel="classes", ylabel="seconds a step")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(title="centres that take part")
    figure.savefig(place)


if __name__ == "__main__":
    main()
