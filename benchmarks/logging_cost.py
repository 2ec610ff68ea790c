"""Claim: what a run says and shows (lines, log.txt, VisualDL) costs below 1 % of a training's time.

python benchmarks/logging_cost.py [--output logging_cost.json] [--stage pair] [--option=value of the training ...]

One training of a stage in this process, by default on the demo faces with their recipe. Each function that makes or
writes what is shown is timed, the thread that writes VisualDL's file as well (its seconds overlap with the training's,
so to add them is the worst case); the share is of all the time from the first step to the last.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alternate import write

from metric_learning import runtime
from metric_learning.config import ElemOptions, PairOptions, parse

SPENT: dict[str, float] = defaultdict(float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="")
    parser.add_argument("--stage", default="elem", choices=("elem", "pair"))
    options, told = parser.parse_known_args()
    runtime.prepare(0, True)
    with tempfile.TemporaryDirectory() as folder:
        told = [f"--model_save_dir={folder}", *told]  # what is typed goes before
        timed()
        from metric_learning import stages

        if options.stage == "elem":
            stages.train_elem(parse(ElemOptions, told))
        else:
            stages.train_pair(parse(PairOptions, told))
    total = SPENT.pop("training")
    rows = [
        {"what": name, "seconds": round(took, 3), "%": round(100 * took / total, 3)} for name, took in SPENT.items()
    ]
    whole = sum(SPENT.values())
    rows += [{"what": "all of it", "seconds": round(whole, 3), "%": round(100 * whole / total, 3)}]
    rows += [{"what": "the training", "seconds": round(total, 1), "%": 100.0}]
    print(json.dumps(rows, indent=1))
    if options.output:
        write(options.output, "logging_cost", 0, rows)


def timed() -> None:
    from visualdl.writer.record_writer import RecordWriter

    from metric_learning import train, watch
    from metric_learning.log import RunLog
    from metric_learning.stages import training

    places: list[tuple[str, Any, str]] = [
        ("lines", RunLog, "say"),
        ("scalars", RunLog, "scalars"),
        ("histograms", RunLog, "histograms"),
        ("histograms", train, "weights_of"),
        ("histograms", watch, "lying"),
        ("sample pictures", RunLog, "picture"),
        ("sample pictures", training, "grid"),
        ("projector", RunLog, "embeddings"),
        ("projector", watch, "projected"),
        ("writing thread", RecordWriter, "write"),
        ("training", training, "fit"),
    ]
    for name, owner, function in places:
        setattr(owner, function, stopped(name, getattr(owner, function)))


def stopped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*given, **named)
        finally:
            SPENT[name] += time.perf_counter() - start

    return call


if __name__ == "__main__":
    main()
