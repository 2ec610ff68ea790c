"""What the kinds of faults share: small pictures, real runs of the scripts, and what must hold of a run."""

import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from faults_forks import SHIM, Forked, prepare
from scale import ROOT

from metric_learning.checks import UserError
from metric_learning.files import read_json, read_tensors

STEPS, SAVE = 24, 2
OPTIONS = dict(
    option.split("=")
    for option in (
        "model=SmallCNN embedding_size=8 image_shape=3,32,32 train_batch_size=8 precision=float32 threads=1 "
        f"total_iter_num={STEPS} display_iter_step=1 save_iter_step={SAVE} test_iter_step=6 keep=3 val_classes=2 "
        "test_classes=2 lr=0.02 lr_strategy=cosine_decay num_workers=2 use_gpu=False"
    ).split()
)
LIMIT = 300.0  # seconds that no process may take


@dataclass
class Row:
    """A kind of fault: how it is injected, what must hold of each, how often it did."""

    fault: str
    how: str
    holds: str
    injected: int = 0
    survived: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    def count(self, held: bool, status: int | str = "", why: str = "") -> None:
        self.injected += 1
        self.survived += held
        if status != "":
            self.statuses[str(status)] += 1
        if not held:
            self.lost.append(why or f"status {status}")

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "statuses": dict(self.statuses), "lost": len(self.lost), "why": self.lost}


class Bench:
    """A folder to work in, pictures, and a run that nothing happened to, which the others must end like."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.chance, self._number = work, random.Random(seed), 0
        prepare()
        self.data = pictures(work / "data")
        self.whole = self.place("whole")
        begun = time.monotonic()
        process = self.train(self.whole, {"place": str(self.whole), "count": str(work / "calls")})
        assert process.wait(LIMIT) == 0, self.said(self.whole)
        self.seconds = time.monotonic() - begun
        self.calls = int((work / "calls").read_text())
        self.run = run_in(self.whole)

    def place(self, name: str) -> Path:
        """A new folder."""
        self._number += 1
        folder = self.work / f"{self._number:04d}-{name}"
        folder.mkdir()
        return folder

    # ---- processes

    def start(self, log: Path, *command: Any, shim: dict[str, Any] | None = None, **environment: str) -> Any:
        """A script of the toolkit, or `-m` a module of it; what it says goes to said.txt and err.txt in `log`."""
        planted = [SHIM, json.dumps(shim)] if shim else []
        script = command if shim or command[0] == "-m" else (ROOT / command[0], *command[1:])
        kept = {name: text for name, text in os.environ.items() if not name.startswith("FLAGS_")}
        about = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **environment}
        with open(log / "said.txt", "ab") as out, open(log / "err.txt", "ab") as err:
            typed = [str(part) for part in (sys.executable, *planted, *script)]
            return subprocess.Popen(typed, cwd=log, env=kept | about, stdout=out, stderr=err)

    def train(
        self, output: Path, shim: dict[str, Any] | None = None, log: Path | None = None, **changed: Any
    ) -> Forked:
        """train_elem.py of a new run in `output`, or on with the one that is there."""
        return Forked(log or output, shim or {}, "train_elem.py", self.flags(output, **changed))

    def flags(self, output: Path, **changed: Any) -> list[str]:
        run = run_in(output)
        options = {"checkpoint": run} if run else {**OPTIONS, "data_dir": self.data, "model_save_dir": output}
        return [f"--{name}={value}" for name, value in (options | changed).items()]

    def said(self, log: Path, name: str = "said.txt") -> str:
        return (log / name).read_text(errors="replace") if (log / name).exists() else ""

    def refused(self, log: Path) -> bool:
        """Whether all that stands in err.txt is one line, which is no traceback."""
        text = self.said(log, "err.txt").strip()
        return re.fullmatch(r"(\w+\.py|python -m [\w.]+): .*", text) is not None

    def when(self, process: Any, moment: Callable[[], Any], do: Callable[[], None]) -> bool:
        """do() once moment() holds; False if the process ended before."""
        limit = time.monotonic() + LIMIT
        while process.poll() is None:
            if moment():
                do()
                return True
            if time.monotonic() > limit:
                process.kill()
                raise SystemExit(f"{process.args} hangs.")
            time.sleep(0.002)
        return False

    def after(self, low: float, high: float) -> Callable[[], bool]:
        """A moment, drawn between two shares of the length of a whole run."""
        until = time.monotonic() + self.chance.uniform(low, high) * self.seconds
        return lambda: time.monotonic() > until

    def at_step(self, log: Path, step: int) -> Callable[[], bool]:
        return lambda: f"step {step}/" in self.said(log)

    # ---- what must hold

    def finish(self, output: Path, log: Path | None = None, **changed: Any) -> str:
        """'' where the run can be gone on with and ends as the whole one did, to the last bit; else why not."""
        status = self.train(output, log=log, **changed).wait(LIMIT)
        if status:
            return f"the resumed run ended with {status}: {self.said(log or output, 'err.txt')[-300:]}"
        found = run_in(output)
        return unlike(self.run, found) if found else "there is no run"


def pictures(folder: Path, classes: int = 12, each: int = 6, side: int = 40) -> Path:
    """<class>/<number>.png: noise round a colour of the class."""
    for label in range(classes):
        colour = np.random.default_rng(label).integers(40, 216, 3)
        for number in range(each):
            noise = np.random.default_rng([label, number]).integers(-40, 40, (side, side, 3))
            path = folder / f"class{label:02d}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), (colour + noise).astype(np.uint8))
    return folder


def run_in(output: Path) -> Path | None:
    """The newest run in a folder that notes what it was started with."""
    return max((path.parent for path in output.glob("elem-*/config.json")), default=None)


def latest_step(run: Path | None) -> int:
    """Of the newest checkpoint; -1 where there is none."""
    file = run / "checkpoints" / "latest.safetensors" if run else None
    return int(read_tensors(file)[1]["state"]["step"]) if file and file.exists() else -1


def torn(folder: Path) -> str:
    """'' where every file of weights and every JSON below a folder is whole; else the first that is not."""
    try:
        for path in folder.rglob("*.safetensors"):
            read_tensors(path)
        for path in folder.rglob("*.json"):
            read_json(path)
    except UserError as error:
        return str(error)
    return ""


def unlike(one: Path, other: Path) -> str:
    """'' where two finished runs have the same weights, best and newest, and the same figures; else what differs."""
    for name in ("best.safetensors", "checkpoints/latest.safetensors", f"checkpoints/step-{STEPS:08d}.safetensors"):
        if not (other / name).exists():
            return f"{name} is missing"
        (a, about), (b, same) = read_tensors(one / name), read_tensors(other / name)
        if about != same or a.keys() != b.keys() or any(a[key].tobytes() != b[key].tobytes() for key in a):
            return f"{name} differs"
    if figures(one / "results.json") != figures(other / "results.json"):
        return "results.json differs"
    return "" if not list(other.rglob(".*.part")) else "half-written files are left"


def figures(path: Path) -> Any:
    return {name: value for name, value in read_json(path).items() if name in ("retrieval", "verification")}
