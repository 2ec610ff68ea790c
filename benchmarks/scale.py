"""What the two scale benchmarks share: the machine in words, a run in a process of its own, tables in a page."""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def machine(threads: int) -> dict[str, Any]:
    """Processor, cores, memory, load and versions, for the page and the JSON."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(memory),
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: known(name) for name in ("numpy", "faiss-cpu")},
    }


def known(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def measured(job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run it: what it gives, its seconds (wall clock, and of the processor), and how far its memory rose."""
    before = peak_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    found = job()
    return {
        **found,
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_mb": round(peak_mb()),
        "before_mb": round(before),
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


def middle(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Several runs of one way as one: medians of the times, the highest peak."""
    return found[0] | {
        "seconds": statistics.median(run["seconds"] for run in found),
        "cpu_seconds": statistics.median(run["cpu_seconds"] for run in found),
        "peak_mb": max(run["peak_mb"] for run in found),
        "all_seconds": [run["seconds"] for run in found],
    }


def in_a_process(script: str, arguments: dict[str, Any], threads: int) -> dict[str, Any]:
    """The JSON that `script --job ARGUMENTS` prints, in a process of its own with so many threads."""
    environment = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment |= core_type()
    command = [sys.executable, script, "--job", json.dumps(arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def core_type() -> dict[str, str]:
    """The kernels of OpenBLAS for this processor. faiss-cpu brings a release of 2021, which takes a processor that it
    does not know for one of 2004 and is then about five times slower."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    known_by = {"SkylakeX": "avx512f", "Haswell": "avx2"}
    return next(({"OPENBLAS_CORETYPE": name} for name, flag in known_by.items() if flag in flags), {})


def said(about: dict[str, Any]) -> str:
    """The machine in a sentence."""
    versions = ", ".join(f"{name} {number or 'missing'}" for name, number in about["versions"].items())
    return (
        f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads used, {about['memory_gb']} GB; "
        f"Python {about['python']}, {versions}. Load when it began: {about['load_before']}."
    )


def grid(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in lines)
