"""Every kind of fault of benchmarks/faults.py, once, in real runs: nothing is lost. What must hold is said there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import metric_learning

ROOT = Path(metric_learning.__file__).parents[1]
KINDS = [
    *("kill", "kill_saving", "sigterm", "ctrl_c", "commands", "two", "damaged", "damaged_run", "vanish", "reader"),
    *(
        "nan",
        "nan_file",
        "clock_between",
        "clock_within",
        "enospc",
        "disk_full",
        "read_only",
        "power",
        "tmp",
        "visualdl",
    ),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[str, dict]:
    output = tmp_path_factory.mktemp("faults") / "faults.json"
    seed = os.environ.get("METRIC_LEARNING_FAULT_SEED", "1")
    command = [sys.executable, "benchmarks/faults.py", f"--output={output}", "--count=1", f"--seed={seed}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200)
    assert output.is_file(), done.stderr[-2000:]
    return {row["kind"]: row for row in json.loads(output.read_text())["rows"]}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost(rows, kind):
    if kind not in rows:
        pytest.skip("no file system can be mounted here")
    assert rows[kind]["injected"] == rows[kind]["survived"] == 1, rows[kind]
