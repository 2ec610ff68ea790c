"""Side by side: each side in a process of its own that stays, the sides take turns, medians and ratios come out.

A benchmark gives `compare` its cases and `SIDES`, a dict name -> prepare(case) -> run(); `serve` is its worker. One
side's libraries, threads and memory never touch the other's, and a machine that slows down slows all sides alike.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scale import core_type, machine

Run = Callable[[], Any]
Prepare = Callable[[dict[str, Any]], Run]
REST = 0.3  # seconds between two turns: the threads of the last one keep spinning for a while


def compare(
    script: str,
    sides: Sequence[str],
    case: dict[str, Any],
    threads: int = 1,
    rounds: int = 7,
    rest: float = REST,
) -> dict[str, dict[str, Any]]:
    """side -> {seconds (median of the rounds), fastest, cpu_seconds, peak_mb, about} of one run of `case`, alternating.

    A side whose worker can't be made (its library is not installed, or refuses the case) is {error}.
    """
    workers = {name: Worker(script, name, case, threads) for name in sides}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, worker in workers.items():
            if worker.error is None:
                time.sleep(rest)
                seconds[name].append(worker.run())
    return {name: worker.close(seconds[name]) for name, worker in workers.items()}


class Worker:
    """A side's process: made and warmed up at construction."""

    def __init__(self, script: str, side: str, case: dict[str, Any], threads: int) -> None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = os.environ | {name: str(threads) for name in names} | core_type()
        command = [sys.executable, script, "--worker", side, json.dumps(case | {"threads": threads})]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.error: str | None = None
        self.cpu_seconds: list[float] = []
        self.about = self._answer()

    def run(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        found = self._answer()
        self.cpu_seconds.append(float(found["cpu_seconds"]))
        return float(found["seconds"])

    def close(self, seconds: list[float]) -> dict[str, Any]:
        if self.error is not None:
            return {"error": self.error}
        assert self.process.stdin is not None
        self.process.stdin.close()
        last = self._answer()
        self.process.wait()
        return {
            "seconds": statistics.median(seconds),
            "fastest": min(seconds),
            "cpu_seconds": statistics.median(self.cpu_seconds),
            "all_seconds": [round(value, 5) for value in seconds],
            **last,
            "about": self.about,
        }

    def _answer(self) -> dict[str, Any]:
        """The next JSON line of the process; other lines that its libraries print are passed over."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith('{"worker'):
                found: dict[str, Any] = json.loads(line)["worker"]
                return found
        assert self.process.stderr is not None
        lines = self.process.stderr.read().strip().splitlines()
        self.error = lines[-1] if lines else f"status {self.process.wait()}"
        return {}


def serve(sides: dict[str, Prepare], arguments: Sequence[str]) -> bool:
    """Whether this process is a worker; if so, it has done its work when this returns.

    run() may return a dict, which then stands in the side's result (an agreement, a count).
    """
    if len(arguments) != 3 or arguments[0] != "--worker":
        return False
    case = json.loads(arguments[2])
    before = peak_mb()
    run = sides[arguments[1]](case)
    for _ in range(int(case.get("warm_up", 2))):
        run()
    say({"versions": versions()})
    found = None
    for _ in sys.stdin:
        start, spent = time.perf_counter(), time.process_time()
        found = run()
        say({"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - spent})
    say({"peak_mb": round(peak_mb()), "before_mb": round(before)} | (found if isinstance(found, dict) else {}))
    return True


def say(value: dict[str, Any]) -> None:
    print(json.dumps({"worker": value}), flush=True)


def versions() -> dict[str, str]:
    """Of the libraries that this process has imported."""
    names = (
        "paddle",
        "torch",
        "numpy",
        "cv2",
        "PIL",
        "onnxruntime",
        "paddle2onnx",
        "faiss",
        "sklearn",
        "pytorch_metric_learning",
    )
    loaded = {name: sys.modules[name] for name in names if name in sys.modules}
    return {name: str(getattr(module, "__version__", "?")) for name, module in loaded.items()}


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


def write(path: str, claim: str, threads: int, rows: list[dict[str, Any]]) -> None:
    """The rows of a claim with the machine, as JSON: what benchmarks/performance.py makes the page of."""
    about = machine(threads)
    Path(path).write_text(json.dumps({"claim": claim, "machine": about, "rows": rows}, indent=1) + "\n")
