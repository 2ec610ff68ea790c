"""Real runs of train_elem.py that are killed and resumed: they end with the weights of one that never was.

The slow test kills 20 times (`METRIC_LEARNING_KILLS`); `METRIC_LEARNING_KILL_SEED` chooses its moments.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import SMALL, equal_arrays, write_pictures

import metric_learning
from metric_learning.files import read_tensors

ROOT = Path(metric_learning.__file__).parents[1]
STEPS = 24
OPTIONS = {
    **SMALL,
    "total_iter_num": STEPS,
    "display_iter_step": 4,
    "save_iter_step": 4,
    "test_iter_step": 8,
    "test_classes": 2,
    "val_classes": 2,
    "lr": 0.02,
    "lr_strategy": "cosine_decay",
    "color_jitter": 0.2,
    "keep": 1,
    "threads": 1,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_pictures(folder, classes=12, each=6)
    return folder


def start(data: Path, output: Path, workers: int, checkpoint: Path | None = None, **changed) -> subprocess.Popen:
    """train_elem.py of a new run, or of one that is resumed."""
    options = {**OPTIONS, **changed, "data_dir": data} if checkpoint is None else {"checkpoint": checkpoint}
    flags = [f"--{name}={value}" for name, value in options.items()]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLAGS_")}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = "2"  # a resumed run has to remember its own --threads=1
    output.mkdir(exist_ok=True)
    log = open(output / "said.txt", "ab")  # noqa: SIM115 - the process keeps it
    with log:
        return subprocess.Popen(
            [sys.executable, ROOT / "train_elem.py", *flags, f"--num_workers={workers}", f"--model_save_dir={output}"],
            cwd=output,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def finish(process: subprocess.Popen, output: Path) -> None:
    assert process.wait(timeout=300) == 0, (output / "said.txt").read_text()[-2000:]


def run_folder(output: Path) -> Path | None:
    found = list(output.glob("elem-*/config.json"))
    assert len(found) <= 1
    return found[0].parent if found else None


def whole_run(data: Path, output: Path, **changed) -> Path:
    finish(start(data, output, 0, **changed), output)
    return run_folder(output)


def kill_when(process: subprocess.Popen, moment) -> bool:
    """SIGKILL once moment() is true; False if the run ended before."""
    limit = time.monotonic() + 300
    while process.poll() is None:
        if moment():
            process.kill()
            process.wait()
            return True
        assert time.monotonic() < limit
        time.sleep(0.002)
    return False


def same_end(one: Path, other: Path, steps: int = STEPS) -> None:
    last = f"step-{steps:08d}.safetensors"
    for name in ("best.safetensors", "checkpoints/latest.safetensors", f"checkpoints/{last}"):
        expected, about = read_tensors(one / name)
        found, same = read_tensors(other / name)
        equal_arrays(expected, found)
        assert about == same
    assert (other / "results.json").is_file()
    left = sorted(os.listdir(other / "checkpoints"))
    assert left == ["latest.safetensors", last]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(data, tmp_path):
    """Killed once, as soon as its first checkpoint is there."""
    short = {"total_iter_num": 8, "onednn": False, "val_classes": 0, "precision": "float32"}
    whole = whole_run(data, tmp_path / "whole", **short)
    output = tmp_path / "killed"
    process = start(data, output, 2, **short)
    assert kill_when(process, lambda: list(output.glob("*/checkpoints/latest.safetensors")))
    folder = run_folder(output)
    assert not (folder / "results.json").exists()
    finish(start(data, output, 2, folder), output)
    assert "Resumed at step 4 from" in (output / "said.txt").read_text()
    same_end(whole, folder, 8)


@pytest.mark.slow
def test_twenty_kills_at_random_moments(data, tmp_path):
    wanted = int(os.environ.get("METRIC_LEARNING_KILLS", "20"))
    seed = int(os.environ.get("METRIC_LEARNING_KILL_SEED", time.time_ns() % 10**6))
    print(f"METRIC_LEARNING_KILL_SEED={seed}")
    chance = random.Random(seed)
    started = time.monotonic()
    whole = whole_run(data, tmp_path / "whole")
    length = time.monotonic() - started
    kills, ends = 0, 0
    while kills < wanted:
        output = tmp_path / f"killed {ends}"
        process = start(data, output, 2)
        while True:
            folder = run_folder(output)
            kind = chance.choice(["time", "time", "time", "saving", "early"])
            moment = _moment(kind, chance, length, output, folder)
            if kills == wanted or not kill_when(process, moment):
                break
            kills += 1
            folder = run_folder(output)
            process = start(data, output, 2, folder)
        finish(process, output)
        ends += 1
        same_end(whole, run_folder(output))
    print(f"{kills} kills over {ends} runs")


def _moment(kind: str, chance: random.Random, length: float, output: Path, folder: Path | None):
    """When to kill: at a random time, while a file is being written, or as soon as there is a run."""
    if kind == "saving":
        return lambda: list(output.glob("*/checkpoints/.*.part")) or list(output.glob("*/.*.part"))
    if kind == "early" and folder is None:
        return lambda: list(output.glob("*/config.json"))
    until = time.monotonic() + chance.uniform(0.2, 1.0) * length
    return lambda: time.monotonic() > until


@pytest.mark.slow
def test_a_run_that_is_being_trained_is_not_gone_on_with_by_another_process(data, tmp_path):
    first = start(data, tmp_path, 0, total_iter_num=10_000, save_iter_step=2)
    limit = time.monotonic() + 120
    while not (saved := list(tmp_path.glob("*/checkpoints/latest.safetensors"))):
        assert first.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    second = start(data, tmp_path / "second", 0, checkpoint=saved[0].parents[1])
    assert second.wait(timeout=120) == 2
    said = (tmp_path / "second" / "said.txt").read_text()
    assert f"train_elem.py: Process {first.pid} is training in" in said and "Traceback" not in said
    assert first.poll() is None
    first.kill()
    assert first.wait() and not list((tmp_path / "second").glob("*/config.json"))


@pytest.mark.slow
def test_sigterm_ends_the_step_and_says_how_to_go_on(data, tmp_path):
    output = tmp_path / "stopped"
    long = {"total_iter_num": 10_000, "save_iter_step": 10_000, "test_iter_step": 10_000, "display_iter_step": 1}
    process = start(data, output, 1, **long)
    limit = time.monotonic() + 120
    while "step 1/" not in (output / "said.txt").read_text():
        assert process.poll() is None and time.monotonic() < limit, (output / "said.txt").read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    said = (output / "said.txt").read_text()
    assert "Traceback" not in said
    step, folder = re.findall(r"terminated\. Step (\d+) is saved; go on with --checkpoint=(.+)", said)[0]
    assert read_tensors(Path(folder) / "checkpoints" / "latest.safetensors")[1]["state"]["step"] == int(step) >= 1


@pytest.mark.slow
def test_what_kills_left_goes_also_where_nothing_is_saved_any_more(data, tmp_path):
    folder = whole_run(data, tmp_path, total_iter_num=2, val_classes=0)
    left = [folder / ".best.safetensors.0.part", folder / "checkpoints" / ".latest.safetensors.0.part"]
    for path in left:
        path.write_bytes(b"half")
    finish(start(data, tmp_path, 0, folder), tmp_path)
    assert not [path for path in left if path.exists()]
