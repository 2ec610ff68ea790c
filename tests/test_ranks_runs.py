"""Real runs of several processes: on demand of the launcher, killed in one process or in all, resumed by others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_runs import SMALL, equal_arrays, write_pictures

import metric_learning
from metric_learning.files import read_json, read_metadata, read_tensors

ROOT = Path(metric_learning.__file__).parents[1]
STEPS = 8
OPTIONS = {
    **SMALL,
    "model": "SmallCNN",
    "total_iter_num": STEPS,
    "display_iter_step": 2,
    "save_iter_step": 2,
    "test_iter_step": 4,
    "test_classes": 3,
    "val_classes": 3,
    "lr": 0.0003,
    "warmup_steps": 2,
    "scale": 8,
    # Statistics of eight pictures at one place of the last map make a jump of each rounding; test_ranks.py has them.
    "freeze": "norms",
    "use_gpu": False,
    "onednn": False,
    "precision": "float32",
    "loss_name": "arcmargin",
    "centers": "partial",
    "partial_rate": 0.5,
}

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_pictures(folder, classes=13, each=5)
    return folder


def start(script: str, output: Path, size: int, flags: dict[str, object], said: str = "said.txt") -> subprocess.Popen:
    """A script on so many processes; what they say goes to a file, and to `ranks` below the folder."""
    launcher = ["-m", "paddle.distributed.launch", f"--nproc_per_node={size}", "--log_dir=ranks"] if size > 1 else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FLAGS_", "PADDLE_"))}
    environment["OMP_NUM_THREADS"] = "1"
    output.mkdir(exist_ok=True)
    typed = [f"--{name}={value}" for name, value in flags.items()]
    with open(output / said, "ab") as log:
        return subprocess.Popen(
            [sys.executable, *launcher, ROOT / script, *typed, "--model_save_dir=."],
            cwd=output,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def run(script: str, output: Path, size: int, flags: dict[str, object]) -> Path:
    process = start(script, output, size, flags)
    assert process.wait(timeout=300) == 0, (output / "said.txt").read_text()[-3000:]
    return folder_of(output)


def folder_of(output: Path) -> Path:
    (found,) = {path.parent for path in output.glob("*/config.json")}
    return found


def ranks_of(process: subprocess.Popen) -> list[int]:
    """The process numbers of the ranks, in their order."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return sorted(int(number) for number in children.stdout.split())


def wait_for(process: subprocess.Popen, there) -> None:
    limit = time.monotonic() + 200
    while not there():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)


def checkpoint_at(output: Path, step: int):
    return lambda: any(output.glob(f"*/checkpoints/step-{step:08d}.safetensors"))


def whole_arrays(run_folder: Path) -> dict[str, np.ndarray]:
    """The last checkpoint, what is divided put together."""
    path = run_folder / "checkpoints" / f"step-{STEPS:08d}.safetensors"
    arrays, saved = read_tensors(path)[0], read_metadata(path)["state"]
    others = [f"part-{STEPS:08d}-{rank}-of-{saved['processes']}.safetensors" for rank in range(1, saved["processes"])]
    parts = [read_tensors(path.with_name(name))[0] for name in others]
    assert sorted(path.parent.glob(f"part-{STEPS:08d}-*")) == sorted(path.with_name(name) for name in others)
    return arrays | {name: np.concatenate([arrays[name], *(part[name] for part in parts)]) for name in saved["sharded"]}


def alike(one: Path, other: Path) -> None:
    """The weights of two runs, to rounding and what a few steps make of it."""
    a, b = whole_arrays(one), whole_arrays(other)
    assert a.keys() == b.keys()
    for group in ("embedder.", "loss.centers.weight"):
        names = [name for name in a if name.startswith(group)]
        apart = sum(float(np.square(a[name] - b[name]).sum()) for name in names)
        size = sum(float(np.square(a[name]).sum()) for name in names)
        assert np.sqrt(apart) <= 1e-3 * np.sqrt(size), group


@pytest.fixture(scope="module")
def never_stopped(data, tmp_path_factory) -> Path:
    return run("train_elem.py", tmp_path_factory.mktemp("whole"), 2, OPTIONS | {"data_dir": data})


KILLED = [("one", 1), ("one", 2), ("all", 4)]
SIZES = {1, *map(int, os.environ.get("METRIC_LEARNING_RANKS", "2,4").split(","))}


@pytest.mark.parametrize(("victims", "after"), [case for case in KILLED if case[1] in SIZES])
def test_a_run_that_was_killed_is_gone_on_with_by_any_number(data, tmp_path, never_stopped, victims, after):
    process = start("train_elem.py", tmp_path, 2, OPTIONS | {"data_dir": data})
    wait_for(process, checkpoint_at(tmp_path, 4))
    for number in ranks_of(process)[1 if victims == "one" else 0 :]:
        os.kill(number, signal.SIGKILL)
    assert process.wait(timeout=120) != 0
    resumed = run("train_elem.py", tmp_path, after, {"checkpoint": folder_of(tmp_path)})
    assert (
        "Resumed at step 4" in (resumed / "log.txt").read_text()
        or "Resumed at step 6" in (resumed / "log.txt").read_text()
    )
    assert (resumed / "results.json").is_file()
    alike(never_stopped, resumed)
    if after == 2:
        equal_arrays(whole_arrays(never_stopped), whole_arrays(resumed))


def test_one_process_finds_the_same(data, tmp_path, never_stopped):
    alone = run("train_elem.py", tmp_path, 1, OPTIONS | {"data_dir": data})
    alike(never_stopped, alone)


def test_stage_two_and_eval_run_on_several_too(data, tmp_path):
    own = ("centers", "partial_rate", "loss_name", "scale")
    flags = {name: value for name, value in OPTIONS.items() if name not in own}
    flags |= {"data_dir": data, "loss_name": "multi_similarity", "samples_each_class": 2, "memory_size": 16}
    flags |= {"memory_start": 2, "ema": 0.5, "accumulate": 2}
    found = [run("train_pair.py", tmp_path / str(size), size, flags) for size in (1, 2)]
    alike(*found)
    results = []
    for size, folder in zip((1, 2), found, strict=True):
        output = tmp_path / f"eval{size}"
        told = {"checkpoint": folder, "data_dir": data, "precision": "float32", "report": tmp_path / f"{size}.html"}
        run_eval = start("eval.py", output, size, told)
        assert run_eval.wait(timeout=300) == 0, (output / "said.txt").read_text()[-2000:]
        results.append(read_json(folder / "eval.json"))
        assert "Learning curves" in (tmp_path / f"{size}.html").read_text(encoding="utf-8")
    assert results[0]["retrieval"] == pytest.approx(results[1]["retrieval"], abs=0.05)
    embedded = []
    for size, output in ((1, tmp_path / "a.npz"), (2, tmp_path / "b.npz")):
        flags = {"checkpoint": found[0], "input": data, "output": output, "precision": "float32"}
        infer = start("infer.py", tmp_path / f"infer{size}", size, flags)
        assert infer.wait(timeout=300) == 0
        with np.load(output) as file:
            embedded.append((file["paths"].tolist(), file["embeddings"]))
    assert embedded[0][0] == embedded[1][0] and len(embedded[0][0]) == 65
    np.testing.assert_allclose(embedded[1][1], embedded[0][1], rtol=1e-3, atol=1e-3)


def test_a_signal_to_one_process_stops_and_saves_all(data, tmp_path):
    process = start("train_elem.py", tmp_path, 2, OPTIONS | {"data_dir": data, "total_iter_num": 5000})
    wait_for(process, checkpoint_at(tmp_path, 2))
    os.kill(ranks_of(process)[1], signal.SIGTERM)
    assert process.wait(timeout=120) != 0
    folder = folder_of(tmp_path)
    saved = read_metadata(folder / "checkpoints" / "latest.safetensors")["state"]
    assert saved["processes"] == 2 and f"Step {saved['step']} is saved" in (tmp_path / "said.txt").read_text()


@pytest.mark.slow
def test_a_process_that_is_late_is_waited_for(tmp_path):
    """Gloo alone gives up after 30 seconds: a large checkpoint, or the figures of a large test set, take longer."""
    program = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from metric_learning import runtime
runtime.prepare(threads=1)
import paddle
paddle.set_device("cpu")
from metric_learning import dist
dist.start()
time.sleep(40 * dist.rank())
dist.barrier()
print(dist.all_gather_object(dist.rank()), flush=True)
"""
    (tmp_path / "late.py").write_text(program)
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node=2", "--log_dir=ranks", "late.py"]
    done = subprocess.run([sys.executable, *launcher], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and "[0, 1]" in done.stdout, done.stdout[-2000:]


def test_a_batch_that_can_not_be_divided_is_refused_before_there_is_a_run(data, tmp_path):
    process = start("train_elem.py", tmp_path, 3, OPTIONS | {"data_dir": data})
    assert process.wait(timeout=120) != 0
    assert "--train_batch_size=8 must be a multiple of 3" in (tmp_path / "said.txt").read_text()
    assert not list(tmp_path.glob("*/config.json"))
