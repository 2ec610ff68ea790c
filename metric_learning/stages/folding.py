"""--folds: one run after the other, each with another part to choose by; then what they say together."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from metric_learning.checks import UserError
from metric_learning.config import ElemOptions
from metric_learning.data.predictions import Predictions, read_predictions, write_predictions
from metric_learning.files import read_json, write_json
from metric_learning.metrics.classification import classification
from metric_learning.report import percent, table
from metric_learning.runs import Run, in_order
from metric_learning.stages.listing import write_wrong_labels


def next_fold(config: ElemOptions, run: Run) -> tuple[ElemOptions, Run | None, Path | None] | None:
    """(options, run, checkpoint) of the fold behind the one that `run` is of; None behind the last, and for --fold.

    The folds of one command are a series, called like the folder of its first run. A run that is there already goes on.
    """
    first = config.fold is None
    if not config.folds or not (first or config.fold_series):
        return None
    fold = (config.fold or 1) + 1
    if fold > config.folds:
        return None
    series = config.fold_series or run.folder.name
    options = dataclasses.replace(config, fold=fold, fold_series=series, checkpoint=None)
    begun = runs_of(series, Path(config.model_save_dir)).get(fold)
    return options, begun, begun.latest if begun is not None and begun.latest.is_file() else None


def runs_of(series: str, place: Path) -> dict[int, Run]:
    """fold -> its run, of those of a series that have begun; of two of one fold the later."""
    found = {1: Run(place / series)} if (place / series / "config.json").is_file() else {}
    for run in in_order(place):
        with contextlib.suppress(UserError):  # a stranger that can't be read
            saved = run.config()
            if saved.get("fold_series") == series:
                found[saved.get("fold") or 1] = run
    return found


FIGURES = {"val_accuracy": "val accuracy %", "val_balanced_accuracy": "balanced %", "test_accuracy": "test accuracy %"}
Figures = dict[str, float | None]


def summary(series: str, place: Path) -> None:
    """What the folds of a series say together: printed, and written into `<place>/<series>-folds`."""
    runs = runs_of(series, place)
    told = {fold: read_predictions(runs[fold].val_predictions) for fold in sorted(runs)}
    each = {fold: _figures(found, runs[fold]) for fold, found in told.items()}
    mean, std = (_over(each, how) for how in (_mean, _std))
    rows = [["fold", "pictures", *FIGURES.values()]]
    rows += [[str(fold), str(len(told[fold].paths)), *map(percent, found.values())] for fold, found in each.items()]
    rows.append(["" for _ in rows[0]])
    rows += [[name, "", *map(percent, found.values())] for name, found in (("mean", mean), ("std", std))]
    print(f"\n{len(told)} folds; std is that of a sample:\n{table(rows)}")
    folder = place / f"{series}-folds"
    folder.mkdir(exist_ok=True)
    folders = {fold: str(run.folder) for fold, run in sorted(runs.items())}
    write_json(folder / "results.json", {"runs": folders, "folds": each, "mean": mean, "std": std})
    out_of_fold = Predictions.join(list(told.values()))
    write_predictions(folder / "predictions.csv", out_of_fold)
    print(f"Written: {folder}/results.json and predictions.csv (each picture by the run that did not train on it)")
    write_wrong_labels(folder / "wrong_labels.csv", out_of_fold)


def _figures(found: Predictions, run: Run) -> Figures:
    code = {name: i for i, name in enumerate(found.classes)}
    pooled = classification(found.probabilities, [code[label] for label in found.labels], found.classes).pooled
    return dict(zip(FIGURES, (pooled.accuracy, pooled.balanced_accuracy, _test_accuracy(run)), strict=True))


def _over(each: dict[int, Figures], how: Callable[[list[float]], float | None]) -> Figures:
    """A figure at a time, over the folds that have it."""
    return {name: how([value for found in each.values() if (value := found[name]) is not None]) for name in FIGURES}


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _std(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _test_accuracy(run: Run) -> float | None:
    if not run.results.is_file():
        return None
    found = read_json(run.results)
    try:
        return float(found["all"]["accuracy"])
    except (KeyError, TypeError, ValueError):
        return None
