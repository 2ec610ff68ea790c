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
from metric_learning.embedder import arrays_of, check_finite, put_arrays
from metric_learning.files import (
    Arrays,
    atomic_path,
    clear_parts,
    read_rows,
    read_tensors,
    write_tensors,
)
from metric_learning.losses.centers import sharded_names
from metric_learning.optimizer import Optimizer
from metric_learning.runs import Run
from metric_learning.saved_state import read_state


@dataclass
class State:
    """What a training is at one step, beside its config: enough to go on to the same last bit."""

    embedder: nn.Layer
    loss: nn.Layer
    optimizer: Optimizer
    step: int = 0
    best: list[float] = field(default_factory=list)  # the score of the best weights so far; empty: none yet
    scores: list[float] = field(default_factory=list)  # the first score of every evaluation so far
    average: Average | None = None  # of the embedder, with class centres or without, where that is what is kept
    further: dict[str, nn.Layer] = field(default_factory=dict)  # more networks, by the name they are saved under

    def update(self) -> None:
        """One step further, by the gradients that are there."""
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        self.step += 1

    @contextlib.contextmanager
    def judged(self) -> Iterator[None]:
        """Inside, what is averaged has the weights that are evaluated and kept, the same on all processes."""
        self._share_statistics(self.embedder)
        with self.average.in_place() if self.average is not None else contextlib.nullcontext():
            yield

    def _share_statistics(self, *networks: nn.Layer) -> None:
        for network in networks:
            mean_statistics(network)
        if self.average is not None:
            self.average.share_statistics()

    def save(self, run: Run, keep: int) -> None:
        """Write the checkpoint of this step, point `latest` at it, remove the oldest beyond `keep` (0: keep all).

        Every process writes the rows of the class centres that it holds, all but the first into a file of its own. The
        first writes the rest too, and comes last: a checkpoint is whole once its `step-` file is there.
        """
        path = run.folder / "checkpoints" / f"step-{self.step:08d}.safetensors"
        self._share_statistics(self.embedder, *self.further.values())
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
        sharded += [f"average.{name}" for name in (sharded_names(self.average.network) if self.average else ())]
        sharded += [f"optimizer.{name}" for name, value in optimizer.items() if self.optimizer.is_sharded(name, value)]
        parts = {"embedder": arrays_of(self.embedder), "loss": arrays_of(self.loss), "optimizer": optimizer}
        parts |= {"average": self.average.arrays()} if self.average is not None else {}
        parts |= {name: arrays_of(network) for name, network in self.further.items()}
        return {f"{part}.{name}": value for part in parts for name, value in parts[part].items()}, sorted(sharded)

    def restore(self, path: Path) -> None:
        """Take everything from a checkpoint of the same config, made by any number of processes.

        A UserError, which names the checkpoint before it, where it is damaged; nothing has been taken from it then.
        """
        try:
            saved = read_state(path)
            arrays = _arrays_of(path, saved)
        except UserError as error:
            raise UserError(f"{error}{_before(path)}") from error
        put_arrays(self.embedder, _below(arrays, "embedder."), str(path))
        put_arrays(self.loss, _below(arrays, "loss."), str(path))
        for name, network in self.further.items():
            put_arrays(network, _below(arrays, f"{name}."), str(path))
        self.optimizer.restore(_below(arrays, "optimizer."))
        if saved["scale"]:
            self.optimizer.scale, self.optimizer.good_steps = saved["scale"][0], int(saved["scale"][1])
        if self.average is not None:
            self.average.restore(_below(arrays, "average."), saved["averaged"], str(path))
        self.step, self.best, self.scores = saved["step"], saved["best"], saved["scores"]


def _arrays_of(path: Path, saved: dict[str, Any]) -> Arrays:
    """The arrays of a checkpoint; of those that are divided among processes, this one's rows."""
    step, processes, sharded = saved["step"], saved["processes"], saved["sharded"]
    arrays, _ = read_tensors(path, but=sharded)
    whole = path.with_name(f"step-{step:08d}.safetensors")
    files = [path, *(part_of(whole, rank, processes) for rank in range(1, processes))]
    arrays |= {name: read_rows(files, name, dist.shard) for name in sharded}
    unfit = next((name for name, value in arrays.items() if not np.isfinite(value).all()), None)
    if unfit:
        raise UserError(f"{path} is of no use: {unfit} holds numbers that are not finite.")
    return arrays


def part_of(path: Path, rank: int, processes: int) -> Path:
    """Where process `rank` (1 or more) of so many keeps its share of the checkpoint at `path`."""
    return path.with_name(f"{path.stem.replace('step-', 'part-')}-{rank}-of-{processes}{path.suffix}")


def _before(path: Path) -> str:
    """What to go on from instead of a checkpoint that can't be read: the one before it, where there is one."""
    steps = [step for step in path.parent.glob("step-*.safetensors") if not step.samefile(path)]
    older = [step for step in sorted(steps) if path.stem == "latest" or step.name < path.name]
    return f" Go on from the one before: --checkpoint={older[-1]}" if older else ""


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
    clear_parts(folder)
