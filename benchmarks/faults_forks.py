"""Processes forked from one that has imported Paddle: a script runs in them as if it were started, seconds sooner."""

import importlib
import json
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from scale import ROOT

from metric_learning import runtime

SHIM = ROOT / "benchmarks" / "faults_shim.py"


def prepare() -> None:
    """Import what all of them need. Nothing may be computed here: what Paddle then starts would not come along."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs ignore it, and so would all here
    runtime.prepare(threads=1, onednn=True)
    importlib.import_module("metric_learning.stages")


class Forked:
    """What is used of subprocess.Popen, for `script typed...` run through the shim, with the working folder `log`."""

    def __init__(self, log: Path, shim: dict[str, Any], script: str, typed: list[str]) -> None:
        self.args, self.returncode = [script, *typed], None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                self._become(log, [str(SHIM), json.dumps(shim), script, *typed])
                runpy.run_path(str(SHIM), run_name="__main__")
            except SystemExit as end:
                status = int(end.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)

    def _become(self, log: Path, words: list[str]) -> None:
        os.chdir(log)
        for number, name in ((1, "said.txt"), (2, "err.txt")):
            os.dup2(os.open(log / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.argv = words

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 300.0) -> int:
        limit = time.monotonic() + timeout
        while (found := self.poll()) is None:
            if time.monotonic() > limit:
                self.kill()
                raise SystemExit(f"{self.args} hangs.")
            time.sleep(0.005)
        return found

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
