"""Runs and their checkpoints: a folder a run, one file a checkpoint, exact resume.

output/elem-arcmargin-20260131-120000/
  config.json classes.json log.txt results.json visualdl/
  checkpoints/step-00000100.safetensors   everything that a resumed run needs
  checkpoints/latest.safetensors          the newest of them
  best.safetensors                        the embedder alone, at its best on the validation classes
"""

import contextlib
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from metric_learning.checks import UserError
from metric_learning.embedder import arrays_of, check_finite, put_arrays
from metric_learning.files import atomic_path, read_json, read_tensors, write_json, write_tensors


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

    def config(self) -> dict[str, Any]:
        """What the run was started with."""
        saved = read_json(self.folder / "config.json")
        if not isinstance(saved, dict):
            raise UserError(f"{self.folder / 'config.json'} is not the config of a run.")
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
        return read_json(path) if path.exists() else {}

    def steps(self) -> list[Path]:
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
    optimizer: paddle.optimizer.Optimizer
    step: int = 0
    best: list[float] = field(default_factory=list)  # the score of the best weights so far; empty: none yet

    def save(self, run: Run, keep: int) -> None:
        """Write the checkpoint of this step, point `latest` at it, remove the oldest beyond `keep` (0: keep all)."""
        arrays = {f"embedder.{name}": value for name, value in arrays_of(self.embedder).items()}
        arrays |= {f"loss.{name}": value for name, value in arrays_of(self.loss).items()}
        arrays |= {f"optimizer.{name}": value for name, value in _optimizer_arrays(self.optimizer).items()}
        path = run.folder / "checkpoints" / f"step-{self.step:08d}.safetensors"
        check_finite(arrays, path)
        metadata = {"embedder": self.embedder.spec.to_dict(), "state": {"step": self.step, "best": self.best}}
        write_tensors(path, arrays, metadata)
        with atomic_path(run.latest) as temporary:
            _link(path, temporary)
        for old in run.steps()[:-keep] if keep else []:
            old.unlink(missing_ok=True)
        for part in path.parent.glob(".*.part"):  # left by a process that was killed while it wrote
            part.unlink(missing_ok=True)

    def restore(self, path: Path) -> None:
        """Take everything from a checkpoint of the same config."""
        arrays, metadata = read_tensors(path)
        saved = metadata.get("state")
        if not (isinstance(saved, dict) and {"step", "best"} <= saved.keys()):
            raise UserError(
                f"{path} holds weights but no training state. Give it as --pretrained_model, or name a checkpoint."
            )
        put_arrays(self.embedder, _below(arrays, "embedder."), str(path))
        put_arrays(self.loss, _below(arrays, "loss."), str(path))
        _restore_optimizer(self.optimizer, _below(arrays, "optimizer."))
        self.step, self.best = int(saved["step"]), [float(score) for score in saved["best"]]


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


def _optimizer_arrays(optimizer: paddle.optimizer.Optimizer) -> dict[str, np.ndarray]:
    """The optimizer's state by the parameter's place in its list: Paddle's own keys count every layer ever made."""
    arrays = {}
    state = optimizer.state_dict()
    for place, parameter in enumerate(optimizer._parameter_list):
        prefix = f"{parameter.name}_"
        for key, value in state.items():
            if key.startswith(prefix) and hasattr(value, "numpy"):
                arrays[f"{place}.{key.removeprefix(prefix)}"] = np.asarray(value.numpy())
    return arrays


def _restore_optimizer(optimizer: paddle.optimizer.Optimizer, arrays: dict[str, np.ndarray]) -> None:
    state: dict[str, Any] = {}
    for name, value in arrays.items():
        place, _, kind = name.partition(".")
        if int(place) >= len(optimizer._parameter_list):
            raise UserError(f"The checkpoint's optimizer has other parameters than this run's ({name}).")
        state[f"{optimizer._parameter_list[int(place)].name}_{kind}"] = paddle.to_tensor(value)
    if state:
        optimizer.set_state_dict(state)
