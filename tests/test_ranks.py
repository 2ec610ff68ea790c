"""Two and four processes find what one finds: losses, gradients, weights after ten steps, checkpoints.

`METRIC_LEARNING_RANKS` chooses other numbers of processes.
"""

import fcntl
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rank_cases

pytestmark = pytest.mark.filterwarnings("ignore:When training")
HERE = Path(__file__).parent
SIZES = tuple(map(int, os.environ.get("METRIC_LEARNING_RANKS", "2,4").split(",")))


def launch(size: int, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run arguments under Paddle's launcher, in `folder`; its processes' logs are below it."""
    command = [sys.executable, "-m", "paddle.distributed.launch", f"--nproc_per_node={size}", "--log_dir=ranks"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PADDLE_", "FLAGS_"))}
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


def run_cases(size: int, folder: Path, job: str) -> None:
    done = launch(size, folder, str(HERE / "rank_cases.py"), job, str(folder))
    logs = "\n".join(path.read_text()[-3000:] for path in sorted((folder / "ranks").glob("workerlog.*")))
    assert done.returncode == 0, logs


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[int, dict[str, np.ndarray]]:
    """What one, two and four processes found, by name."""
    with warnings.catch_warnings():  # the mark of this file does not reach fixtures
        warnings.filterwarnings("ignore", message="When training")
        worlds = {1: rank_cases.all_cases()}
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ranks"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:  # one of several test processes runs them, the others read what was found
        fcntl.flock(lock, fcntl.LOCK_EX)
        for size in SIZES:
            if not (folder / f"cases-{size}.npz").exists():
                run_cases(size, folder, "cases")
            worlds[size] = dict(np.load(folder / f"cases-{size}.npz"))
    return worlds


def alike(found, size: int, prefix: str, rtol: float = 2e-4) -> None:
    names = [name for name in found[1] if name.startswith(prefix)]
    assert names and names == [name for name in found[size] if name.startswith(prefix)]
    for name in names:
        a, b = found[1][name], found[size][name]
        scale = max(float(np.abs(a).max(initial=0)), 1e-3)
        np.testing.assert_allclose(b, a, atol=rtol * scale, rtol=0, err_msg=name)


CASES = [rank_cases.key(*case) for case in (*rank_cases.ELEMENT, *rank_cases.PAIRS)]


@pytest.mark.distributed
@pytest.mark.parametrize("size", SIZES)
class TestRanks:
    @pytest.mark.parametrize("case", CASES)
    def test_one_batch_has_one_loss_and_one_gradient(self, found, size, case):
        alike(found, size, f"one {case}/", rtol=1e-5)

    @pytest.mark.parametrize("case", CASES)
    def test_ten_steps_end_at_the_same_weights(self, found, size, case):
        alike(found, size, f"ten {case}/")

    @pytest.mark.parametrize("case", ["momentum all", "momentum partial", "adam all", "adam partial"])
    def test_either_optimizer_moves_them_alike(self, found, size, case):
        alike(found, size, f"{case}/", rtol=1e-3)

    def test_the_loss_chooses_the_same_parts_to_cover(self, found, size):
        alike(found, size, "covered/")

    @pytest.mark.parametrize("case", [rank_cases.key(*case) for case in rank_cases.POOLS])
    def test_a_pool_has_one_loss_one_gradient_and_one_content(self, found, size, case):
        alike(found, size, f"one pool {case}/", rtol=1e-5)
        alike(found, size, f"six pool {case}/")

    def test_each_process_has_the_whole_classifier(self, found, size):
        alike(found, size, "classes/", rtol=1e-7)

    def test_what_processes_tell_each_other(self, found, size):
        alike(found, size, "talk/")


@pytest.mark.distributed
@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("after", [1, *SIZES])
def test_a_checkpoint_of_some_processes_is_gone_on_with_by_others(found, tmp_path, before, after):
    if before == 1:
        rank_cases.saved(tmp_path)
    else:
        run_cases(before, tmp_path, "save")
    if after == 1:
        gone_on = rank_cases.resumed(tmp_path)
    else:
        run_cases(after, tmp_path, "resume")
        gone_on = dict(np.load(tmp_path / f"resume-{after}.npz"))
    straight = {name.removeprefix("straight/"): a for name, a in found[1].items() if name.startswith("straight/")}
    assert gone_on.keys() == straight.keys()
    for name, a in straight.items():
        np.testing.assert_allclose(gone_on[name], a, atol=1e-4 * max(np.abs(a).max(), 0.05), rtol=0, err_msg=name)
