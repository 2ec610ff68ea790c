"""One process at a time in a run's folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import metric_learning
from metric_learning.checks import UserError
from metric_learning.lock import held

pytest.importorskip("fcntl")
ROOT = Path(metric_learning.__file__).parents[1]
HOLD = """
import sys
from pathlib import Path
from metric_learning.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_that_another_process_holds_is_refused(tmp_path, other):
    with (
        pytest.raises(UserError, match=rf"^Process {other.pid} is training in .*; two would overwrite"),
        held(tmp_path),
    ):
        pass


def test_the_other_s_end_lets_go_however_it_comes(tmp_path, other):
    other.kill()
    other.wait()
    with held(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_fork_that_outlives_the_holder_holds_nothing(tmp_path):
    forking = HOLD.replace(
        "    sys.stdin.read()", "    import os, time\n    if not os.fork():\n        time.sleep(5)\n    os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", forking, tmp_path], cwd=ROOT, stdout=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0
    with held(tmp_path):
        pass


def test_a_folder_that_is_gone_is_told(tmp_path):
    with pytest.raises(UserError, match=r"Can't write .*No such file"), held(tmp_path / "gone"):
        pass
