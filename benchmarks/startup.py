"""Claim: --help answers in under 0.3 s, without Paddle; a run's first step is done within seconds of the command.

python benchmarks/startup.py [--output startup.json] [--rounds 5]

Medians of whole processes, taking turns: --help of each script; a training on the demo faces up to the line of its
first and of its second step (the first one builds the network's graph and meets fresh memory), and up to its end, with
one process that only imports torch and pytorch-metric-learning beside it, where they are installed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from alternate import write

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("train_elem", "train_pair", "eval", "infer")
PEER = "import torch, pytorch_metric_learning.losses"
STEPS = ["--total_iter_num=2", "--display_iter_step=1", "--save_iter_step=2", "--test_iter_step=2"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        helps = {f"{name}.py --help": [str(ROOT / f"{name}.py"), "--help"] for name in SCRIPTS}
        train = [str(ROOT / "train_elem.py"), f"--model_save_dir={folder}/output", *STEPS]
        commands = {**helps, "import torch, pytorch_metric_learning": ["-c", PEER], "first steps": train}
        seconds: dict[str, list[float]] = {}
        until(train, folder, {})  # draws the demo faces, and fills the system's cache
        for _ in range(options.rounds):
            for name, command in commands.items():
                lines = {"step 1/": "the first step", "step 2/": "the second step"} if command is train else {}
                for what, took in until(command, folder, lines).items():
                    seconds.setdefault(what or name, []).append(took)
    rows = [{"what": name, "seconds": round(statistics.median(took), 3)} for name, took in seconds.items()]
    print(json.dumps(rows, indent=1))
    if options.output:
        write(options.output, "startup", 0, rows)


def until(command: list[str], folder: str, lines: dict[str, str]) -> dict[str, float]:
    """Seconds until each of these lines, by their names, and until the end ('' or 'the end'); {} where it failed."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    found: dict[str, Any] = {}
    assert process.stdout is not None
    for line in process.stdout:
        for part, name in lines.items():
            if part in line and name not in found:
                found[name] = time.perf_counter() - start
    if process.wait():
        return {}
    return found | {"the end of two steps" if lines else "": time.perf_counter() - start}


if __name__ == "__main__":
    main()
