"""The folders of runs: making one, finding the newest, and what a typed path means."""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metric_learning.checks import UserError
from metric_learning.config import check_saved
from metric_learning.files import make_folder, read_json, sync_folder, write_json


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

    def started(self) -> float:
        """What `in_order` goes by: seconds, larger than those of every run that was beside it when it began.

        Of a run that does not say it (an older version's, a damaged one) the age of its config.
        """
        path = self.folder / "config.json"
        try:
            return float(self.config()["started"])
        except (UserError, KeyError, TypeError, ValueError):
            return path.stat().st_mtime

    def rewrite_config(self, config: dict[str, Any]) -> None:
        """Note what a resumed run has changed. The run stays as old as it is."""
        path = self.folder / "config.json"
        status, before = path.stat(), self.config()
        write_json(path, config | {name: before[name] for name in ("started",) if name in before})
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
        make_folder(Path(save_dir))
        for number in range(1000):  # two runs in one second
            folder = Path(save_dir) / (f"{stem}-{number}" if number else stem)
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                break
    except OSError as error:
        raise UserError(
            f"Can't make a run in {save_dir}: {error.strerror}. Choose another --model_save_dir."
        ) from error
    sync_folder(Path(save_dir))
    write_json(folder / "config.json", {"command": command, **config, "started": _after(save_dir)})
    return Run(folder)


def in_order(save_dir: str | Path) -> list[Run]:
    """The runs in a folder, in the order in which they began, also where the clock was set back or forth between."""
    runs = [Run(path.parent) for path in Path(save_dir).glob("*/config.json")]
    return sorted(runs, key=lambda run: (run.started(), run.folder.name))


def _after(save_dir: str) -> float:
    """The time now, or a millisecond behind the newest run where the clock says that it is yet to come."""
    newest = max((run.started() for run in in_order(save_dir)), default=0.0)
    return round(max(time.time(), newest + 0.001), 3)


def newest_run(save_dir: str, stage: str | None = None) -> Run | None:
    """The run in `save_dir` that was started last and has weights; of one stage ('elem', 'pair') or of any.

    One with a checkpoint goes before one without: that was stopped before it had learnt anything.
    """
    runs = [run for run in in_order(save_dir) if run.best.exists() or run.latest.exists()]
    runs = [run for run in runs if stage is None or run.folder.name.startswith(f"{stage}-")]
    return next((run for run in reversed(runs) if run.latest.exists()), runs[-1] if runs else None)


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
