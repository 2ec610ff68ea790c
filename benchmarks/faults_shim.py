"""Runs a script with a fault planted in it: python benchmarks/faults_shim.py '{"kill_at": 7}' train_elem.py ...

kill_at N       SIGKILL instead of the N-th call that writes, renames, links, removes or syncs something in `place`
refuse_at N     the N-th such call finds no space left; count: only count them, into the file of that name
slow S          S seconds more for each step
nan_weights K   a weight becomes NaN behind step K; nan_batch K: a pixel of the batch of step K is NaN
no_memory N     the N-th picture that is read finds no memory; no_files N: no file handle
clock S         the clock is S seconds off from step `from` on (0: from the start), and so are the dates of new files
"""

import errno
import importlib
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CALLS = ("fsync", "replace", "link", "unlink", "mkdir")


class Calls:
    """Counts the calls that change the disk below a folder, and does something at one of them."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec, self.number = spec, 0
        for name in CALLS:
            setattr(os, name, self.watched(getattr(os, name)))

    def watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(target: Any, *rest: Any, **named: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
            if str(path).startswith(self.spec["place"]):
                self.step()
            return call(target, *rest, **named)

        return instead

    def step(self) -> None:
        self.number += 1
        if self.number == self.spec.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.number == self.spec.get("refuse_at"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if "count" in self.spec:
            Path(self.spec["count"]).write_text(str(self.number))


def plant_in_steps(spec: dict[str, Any]) -> None:
    """What happens at a step of the training."""
    import numpy as np
    import paddle

    from metric_learning import train

    plain = train._step

    def step(state: Any, batch: Any, *rest: Any) -> float:
        time.sleep(spec.get("slow", 0))
        if spec.get("from") and state.step == spec["from"]:
            shift_clock(spec["clock"])
        if state.step == spec.get("nan_batch"):
            batch.images[0, 0, 0, 0] = np.nan
        value = plain(state, batch, *rest)
        if state.step == spec.get("nan_weights"):
            weight = state.embedder.parameters()[0]
            weight.set_value(paddle.full_like(weight, float("nan")))
        return value

    train._step = step


def plant_in_pictures(spec: dict[str, Any]) -> None:
    from metric_learning.data import loader

    plain, read = loader.open_picture, iter(range(1, sys.maxsize))

    def opened(path: Any) -> Any:
        number = next(read)
        if number == spec.get("no_memory"):
            raise MemoryError
        if number == spec.get("no_files"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return plain(path)

    loader.open_picture = opened


def shift_clock(seconds: float) -> None:
    """time.time, and what it is printed from, are off; files that are renamed get such dates."""
    now, text, replace = time.time, time.strftime, os.replace
    time.time = lambda: now() + seconds
    time.strftime = lambda form, *at: text(form, *(at or [time.localtime(time.time())]))

    def dated(source: Any, target: Any) -> None:
        os.utime(source, (time.time(), time.time()))
        replace(source, target)

    os.replace = dated


def main() -> None:
    spec, script = json.loads(sys.argv[1]), sys.argv[2]
    sys.argv = [str(ROOT / script), *sys.argv[3:]]
    sys.path.insert(0, str(ROOT))
    if "place" in spec:
        Calls(spec)
    if "clock" in spec and not spec.get("from"):
        shift_clock(spec["clock"])
    plain = importlib.import_module

    def imported(name: str, *rest: Any) -> Any:
        found = plain(name, *rest)
        if name == "metric_learning.stages":  # Paddle is there now, and the training has not begun
            plant_in_steps(spec)
            plant_in_pictures(spec)
        return found

    importlib.import_module = imported
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
