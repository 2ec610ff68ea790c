"""Runs and their checkpoints: a folder a run, one file a checkpoint, exact resume.

output/elem-arcmargin-20260131-120000/
  config.json classes.json log.txt results.json visualdl/
  checkpoints/step-00000100.safetensors   everything that a resumed run needs
  checkpoints/part-00000100-1-of-2.safetensors  of several processes, what the others hold of the class centres
  checkpoints/latest.safetensors          the newest of them
  best.safetensors                        the embedder alone, at its best on the validation classes
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn

from metric_learning import dist
from metric_learning.average import Average
from metric_learning.batch_norm import mean_statistics
from metric_learning.checks import UserError
from metric_learning.config import check_saved
from metric_learning.embedder import arrays_of, check_finite, put_arrays
from metric_learning.files import (
    Arrays,
    atomic_path,
    read_json,
    read_rows,
    read_tensors,
    write_json,
    write_tensors,
)
from metric_learning.losses.centers import sharded_names
from metric_learning.optimizer import Optimizer
from metric_learning.saved_state import read_state


@dataclass(frozen=True)
class Run:
    """The folder of one training run."""

    folder: Path

    @property
    def best(self) -> Path:
        return self.folder / "best.safetensors"

    @property
    def latest(self) -> Path:
        return self.folder / "checkpoints" / "latest.safetensors"

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    @property
    def val_predictions(self) -> Path:
        """What a classifier's best weights say of its validation pictures."""
        return self.folder / "val_predictions.csv"

    def config(self) -> dict[str, Any]:
        """What the run was started with."""
        saved = read_json(self.folder / "config.json")
        if not isinstance(saved, dict):
            raise UserError(f"{self.folder / 'config.json'} is not the config of a run.")
        try:
            check_saved(saved)
        except UserError as error:
            raise UserError(f"{self.folder / 'config.json'}: {error}") from error
        return saved

    def rewrite_config(self, config: dict[str, Any]) -> None:
        """Note what a resumed run has changed. The run stays as old as it is: `newest_run` goes by that."""
        path = self.folder / "config.json"
        status = path.stat()
        write_json(path, config)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def classes(self) -> dict[str, list[str]]:
        """The class names of train, val and test; empty where the run did not get that far."""
        path = self.folder / "classes.json"
        found = read_json(path) if path.exists() else {}
        parts = found.values() if isinstance(found, dict) else [None]
        if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in parts):
            raise UserError(f"{path} does not list the classes of a run.")
        known: dict[str, list[str]] = found
        return known

    def steps(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return sorted((self.folder / "checkpoints").glob("step-*.safetensors"))


def new_run(save_dir: str, command: str, loss: str, config: dict[str, Any]) -> Run:
    """Make the folder of a new run and write its config into it."""
    stage = command.removeprefix("train_")
    stem = f"{stage}-{loss}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        for number in range(1000):  # two runs in one second
            folder = Path(save_dir) / (f"{stem}-{number}" if number else stem)
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                break
    except OSError as error:
        raise UserError(
            f"Can't make a run in {save_dir}: {error.strerror}. Choose another --model_save_dir."
        ) from error
    write_json(folder / "config.json", {"command": command, **config})
    return Run(folder)


def newest_run(save_dir: str, stage: str | None = None) -> Run | None:
    """The run in `save_dir` that was started last and has weights; of one stage ('elem', 'pair') or of any.

    One with a checkpoint goes before one without: that was stopped before it had learnt anything.
    """
    runs = [Run(path.parent) for path in Path(save_dir).glob("*/config.json")]
    runs = [run for run in runs if run.best.exists() or run.latest.exists()]
    runs = [run for run in runs if stage is None or run.folder.name.startswith(f"{stage}-")]

    def age(run: Run) -> tuple[bool, int]:
        return run.latest.exists(), (run.folder / "config.json").stat().st_mtime_ns

    return max(runs, key=age, default=None)


def run_of(path: str | Path) -> Run | None:
    """The run that a folder is, or that a file lies in; None if there is none."""
    path = Path(path)
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "config.json").is_file():
            return Run(folder)
    return None


def weights_file(path: str | Path) -> Path:
    """The weights that a typed path means: a file, or a run's best (else latest) weights."""
    path = Path(path)
    if path.is_dir():
        run = Run(path)
        for file in (run.best, run.latest):
            if file.is_file():
                return file
        raise UserError(
            f"There are no weights in {path}: it has neither best.safetensors nor checkpoints/latest.safetensors."
        )
    for file in (path, path.with_name(path.name + ".safetensors"), path.with_name(path.name + ".pdparams")):
        if file.is_file():
            return file
    raise UserError(f"There are no weights at {path}: no such file or run.")


@dataclass
class State:
    """What a training is at one step, beside its config: enough to go on to the same last bit."""

    embedder: nn.Layer
    loss: nn.Layer
    optimizer: Optimizer
    step: int = 0
    best: list[float] = field(default_factory=list)  # the score of the best weights so far; empty: none yet
    scores: list[float] = field(default_factory=list)  # the first score of every evaluation so far
    average: Average | None = None  # of the embedder's weights, where that is what is kept
    further: dict[str, nn.Layer] = field(default_factory=dict)  # more networks, by the name they are saved under

    def update(self) -> None:
        """One step further, by the gradients that are there."""
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        self.step += 1

    @contextlib.contextmanager
    def judged(self) -> Iterator[None]:
        """Inside, the embedder has the weights that are evaluated and kept, the same on all processes."""
        mean_statistics(self.embedder)
        with self.average.in_place() if self.average is not None else contextlib.nullcontext():
            yield

    def save(self, run: Run, keep: int) -> None:
        """Write the checkpoint of this step, point `latest` at it, remove the oldest beyond `keep` (0: keep all).

        Every process writes the rows of the class centres that it holds, all but the first into a file of its own. The
        first writes the rest too, and comes last: a checkpoint is whole once its `step-` file is there.
        """
        path = run.folder / "checkpoints" / f"step-{self.step:08d}.safetensors"
        for network in (self.embedder, *self.further.values()):
            mean_statistics(network)
        arrays, sharded = self._arrays()
        check_finite(arrays, path)
        if not dist.is_first():
            own = {name: arrays[name] for name in sharded}
            write_tensors(part_of(path, dist.rank(), dist.size()), own, {"state": {"step": self.step}})
        dist.barrier()
        if dist.is_first():
            state = {
                "step": self.step,
                "best": self.best,
                "scores": self.scores,
                "processes": dist.size(),
                "sharded": sharded,
            }
            state |= {"scale": [self.optimizer.scale, self.optimizer.good_steps]}
            state |= {"averaged": self.average.updates} if self.average is not None else {}
            write_tensors(path, arrays, {"embedder": self.embedder.spec.to_dict(), "state": state})
            with atomic_path(run.latest) as temporary:
                _link(path, temporary)
            _tidy(path, keep)
        dist.barrier()

    def _arrays(self) -> tuple[Arrays, list[str]]:
        """All that is saved, by name; and the names of what is divided among the processes."""
        optimizer = self.optimizer.arrays()
        sharded = [f"loss.{name}" for name in sharded_names(self.loss)]
        sharded += [f"optimizer.{name}" for name, value in optimizer.items() if self.optimizer.is_sharded(name, value)]
        parts = {"embedder": arrays_of(self.embedder), "loss": arrays_of(self.loss), "optimizer": optimizer}
        parts |= {"average": self.average.arrays()} if self.average is not None else {}
        parts |= {name: arrays_of(network) for name, network in self.further.items()}
        return {f"{part}.{name}": value for part in parts for name, value in parts[part].items()}, sorted(sharded)

    def restore(self, path: Path) -> None:
        """Take everything from a checkpoint of the same config, made by any number of processes."""
        saved = read_state(path)
        step, processes, sharded = saved["step"], saved["processes"], saved["sharded"]
        arrays, _ = read_tensors(path, but=sharded)
        whole = path.with_name(f"step-{step:08d}.safetensors")
        files = [path, *(part_of(whole, rank, processes) for rank in range(1, processes))]
        arrays |= {name: read_rows(files, name, dist.shard) for name in sharded}
        put_arrays(self.embedder, _below(arrays, "embedder."), str(path))
        put_arrays(self.loss, _below(arrays, "loss."), str(path))
        for name, network in self.further.items():
            put_arrays(network, _below(arrays, f"{name}."), str(path))
        self.optimizer.restore(_below(arrays, "optimizer."))
        if saved["scale"]:
            self.optimizer.scale, self.optimizer.good_steps = saved["scale"][0], int(saved["scale"][1])
        if self.average is not None:
            self.average.restore(_below(arrays, "average."), saved["averaged"], str(path))
        self.step, self.best, self.scores = step, saved["best"], saved["scores"]


def part_of(path: Path, rank: int, processes: int) -> Path:
    """Where process `rank` (1 or more) of so many keeps its share of the checkpoint at `path`."""
    return path.with_name(f"{path.stem.replace('step-', 'part-')}-{rank}-of-{processes}{path.suffix}")


def checkpoint_to_resume(path: str) -> tuple[Run, Path | None]:
    """The run that --checkpoint names, and the file to go on from; None where it was stopped before its first."""
    run = run_of(path) if Path(path).exists() else None
    if run is None:
        raise UserError(
            f"There is no run at {path}: a run is a folder with a config.json. See --model_save_dir for yours."
        )
    if Path(path).is_file():
        return run, Path(path)
    return run, run.latest if run.latest.is_file() else None


def _below(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _link(source: Path, target: Path) -> None:
    """A second name for the same file; a copy where the file system has none."""
    target.unlink(missing_ok=True)  # of a killed process with the same number; it may be a name of another checkpoint
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _tidy(path: Path, keep: int) -> None:
    """Behind a checkpoint just written: the oldest beyond `keep` go (0: none), and parts of no checkpoint."""
    folder = path.parent
    steps = sorted(folder.glob("step-*.safetensors"))
    for old in steps[:-keep] if keep else []:
        old.unlink(missing_ok=True)
    there = {step.stem.removeprefix("step-") for step in (steps[-keep:] if keep else steps)}
    own = {part_of(path, rank, dist.size()) for rank in range(1, dist.size())}  # of this step no others are wanted
    for part in folder.glob("part-*"):
        step = part.name.split("-")[1]
        if step not in there or (step == path.stem.removeprefix("step-") and part not in own):
            part.unlink(missing_ok=True)
    for rest in folder.glob(".*.part"):  # left by a process that was killed while it wrote
        rest.unlink(missing_ok=True)
