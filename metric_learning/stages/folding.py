"""--folds: one run after the other, each with another part to choose by; then what they say together."""

import dataclasses
from pathlib import Path

import numpy as np

from metric_learning.checkpoint import Run
from metric_learning.config import ElemOptions
from metric_learning.data.predictions import Predictions, read_predictions, write_predictions
from metric_learning.files import read_json, write_json
from metric_learning.metrics.classification import Classification, classification
from metric_learning.report import percent, table
from metric_learning.stages.attributes import val_predictions
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
    for path in sorted(place.glob("*/config.json"), key=lambda path: path.stat().st_mtime_ns):
        saved = Run(path.parent).config()
        if saved.get("fold_series") == series:
            found[int(saved["fold"])] = Run(path.parent)
    return found


def summary(series: str, place: Path) -> None:
    """Mean and standard deviation over the folds, every picture's prediction by the run that was not trained on it, and
    which labels are probably wrong: printed, and written into `<place>/<series>-folds`."""
    runs = runs_of(series, place)
    told = {fold: read_predictions(val_predictions(runs[fold])) for fold in sorted(runs)}
    folder = place / f"{series}-folds"
    folder.mkdir(exist_ok=True)
    rows = [["fold", "pictures", "val accuracy %", "balanced %", "test accuracy %"]]
    figures = []
    for fold, found in told.items():
        pooled = _classified(found).pooled
        test = _test_accuracy(runs[fold])
        figures.append((pooled.accuracy, pooled.balanced_accuracy, test))
        rows.append([str(fold), str(len(found.paths)), *map(percent, figures[-1])])
    columns = [[value for value in column if value is not None] for column in zip(*figures, strict=True)]
    means = [float(np.mean(column)) if column else None for column in columns]
    stds = [float(np.std(column, ddof=1)) if len(column) > 1 else None for column in columns]
    rows += [["" for _ in rows[0]], ["mean", "", *map(percent, means)], ["std", "", *map(percent, stds)]]
    print(f"\n{len(told)} folds; std is that of a sample:\n{table(rows)}")
    whole = Predictions(
        [path for found in told.values() for path in found.paths],
        [label for found in told.values() for label in found.labels],
        np.concatenate([found.probabilities for found in told.values()]),
        next(iter(told.values())).classes,
    )
    write_predictions(folder / "predictions.csv", whole)
    names = ("val_accuracy", "val_balanced_accuracy", "test_accuracy")
    write_json(
        folder / "results.json",
        {
            "runs": {str(fold): str(run.folder) for fold, run in sorted(runs.items())},
            "folds": {str(fold): dict(zip(names, row, strict=True)) for fold, row in zip(told, figures, strict=True)},
            "mean": dict(zip(names, means, strict=True)),
            "std": dict(zip(names, stds, strict=True)),
        },
    )
    print(f"Written: {folder}/results.json and predictions.csv (each picture by the run that did not train on it)")
    write_wrong_labels(folder / "wrong_labels.csv", whole)


def _classified(found: Predictions) -> Classification:
    place = {name: i for i, name in enumerate(found.classes)}
    return classification(found.probabilities, [place[label] for label in found.labels], found.classes)


def _test_accuracy(run: Run) -> float | None:
    if not run.results.is_file():
        return None
    found = read_json(run.results)
    try:
        return float(found["all"]["accuracy"])
    except (KeyError, TypeError, ValueError):
        return None
