"""What SIGTERM and Ctrl-C do to a command."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cli_cases import races

import metric_learning
from metric_learning.checks import Terminated
from metric_learning.data.command import Parser, run
from metric_learning.files import atomic_path
from metric_learning.stopping import end_quietly, later, on_sigterm

ROOT = Path(metric_learning.__file__).parents[1]


def test_sigterm_is_raised_inside_and_not_behind():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_may_have_to_wait(number, kind):
    done = []

    def work():
        with later():
            os.kill(os.getpid(), number)
            done.append(1)

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert done and caught.type is kind
    with later():
        pass


def test_what_is_half_made_goes_quietly(monkeypatch, capfd):
    class Half:
        def __del__(self):
            raise AttributeError

    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    Half()
    assert "Exception ignored" in capfd.readouterr().err
    end_quietly()
    Half()
    assert capfd.readouterr().err == ""


def test_other_threads_set_no_handlers():
    seen = []

    def inside():
        with on_sigterm(), later():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_data_command_that_is_stopped_leaves_nothing_half_written(tmp_path, capsys, number, status):
    def job(options):
        with atomic_path(tmp_path / "list.csv") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), number)
            time.sleep(5)

    assert run(Parser("tool", "Does it."), job, []) == status
    ended = {143: "terminated", 130: "interrupted"}[status]
    assert capsys.readouterr().err == f"python -m metric_learning.data.tool: {ended}.\n"
    assert not os.listdir(tmp_path)


@pytest.mark.slow
def test_eval_and_align_stopped_by_sigterm(tmp_path):
    """Whenever it comes: before anything is set up the system's own end, then ours; never a page of Paddle's."""
    data = races(tmp_path / "data")
    (tmp_path / "points.csv").write_text("A/x.jpg,1,1,2,2,3,3,4,4,5,5\n")
    align = ["-m", "metric_learning.data.align", f"--data_dir={data}", f"--landmarks={tmp_path / 'points.csv'}"]
    for wait in (0.3, 0.8, 1.5, 2.5):
        for typed in (
            ["eval.py", "--pretrained_model=none.pt", "--model=ResNet50"],
            [*align, f"--output={tmp_path}/out"],
        ):
            process = subprocess.Popen([sys.executable, *typed], cwd=ROOT, stderr=subprocess.PIPE, text=True)
            time.sleep(wait)
            process.terminate()
            _, said = process.communicate()
            assert process.returncode in (143, -15, 2), said
            assert "Traceback" not in said and "C++" not in said and len(said.splitlines()) <= 1, said
    assert not list(tmp_path.rglob("*.part"))
