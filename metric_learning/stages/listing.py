"""Lists for people to look through, each a csv and a sheet of pictures beside it."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metric_learning.checks import UserError
from metric_learning.config import EvalOptions, InferOptions
from metric_learning.data.predictions import Predictions, write_predictions
from metric_learning.files import atomic_write
from metric_learning.metrics.label_noise import probable_label_errors
from metric_learning.metrics.uncertain import uncertain
from metric_learning.sheets import Cell, in_rows, picture_sheet
from metric_learning.stages import setup


def uncertain_place(config: EvalOptions | InferOptions, output: Path, pictures: Sequence[str]) -> Path | None:
    """Where --uncertain goes, if it is typed; a UserError where that can't be written, or is something else already."""
    if config.uncertain is None:
        return None
    place = setup.output_file(config.uncertain, None, "uncertain.csv")
    sheet = place.with_suffix(".png")
    options = (getattr(config, name, None) for name in ("input", "train_list", "test_list"))
    lists = [path for path in options if path]
    lists += [os.path.join(config.data_dir, path) for path in lists if config.data_dir]
    beside = [path for path in pictures if os.path.basename(path) == sheet.name]
    taken = {os.path.realpath(path) for path in (output, output.with_suffix(".png"), *lists, *beside)}
    for path in (place, sheet):
        # A sheet has its list beside it: without one this is some picture.
        if os.path.realpath(path) in taken or (path == sheet and path.exists() and not place.exists()):
            raise UserError(f"--uncertain={config.uncertain} would write over {path}. Name another place.")
    setup.check_writable(place.parent, "--uncertain")
    return place


def write_uncertain(place: Path, band: float, found: Predictions) -> None:
    """The pictures between two classes, the closest first; see metrics/uncertain.py."""
    chosen = found.take(uncertain(found.probabilities, band))
    captions = []
    for label, row in zip(chosen.labels, chosen.probabilities, strict=True):
        first, second = np.argsort(-row, kind="stable")[:2]
        said = [f"{found.classes[first]} {row[first]:.2f}", f"{found.classes[second]} {row[second]:.2f}"]
        captions.append([*said, f"labelled {label}"] if label else said)
    told = f"{len(chosen.paths):,} of {len(found.paths):,} pictures lie between two classes"
    _write(place, chosen, captions, told)


def write_wrong_labels(place: Path, found: Predictions) -> None:
    """The labels that are probably wrong, the most suspicious first, by out-of-fold predictions."""
    code = {name: i for i, name in enumerate(found.classes)}
    errors = probable_label_errors(found.probabilities, [code[label] for label in found.labels])
    chosen = found.take(errors.indices)
    captions = [
        [f"labelled {label}", f"looks like {found.classes[other]} {row[other]:.2f}"]
        for label, other, row in zip(chosen.labels, errors.suggested, chosen.probabilities, strict=True)
    ]
    told = f"{len(chosen.paths):,} of {len(found.paths):,} labels are probably wrong"
    if errors.noise_rate is not None:
        told += f" (confident learning; estimated share of wrong ones {100 * errors.noise_rate:.1f} %)"
    _write(place, chosen, captions, told)


def _write(place: Path, chosen: Predictions, captions: list[list[str]], told: str) -> None:
    write_predictions(place, chosen)
    sheet = place.with_suffix(".png")
    sheet.unlink(missing_ok=True)  # an older one must not stand beside a newer list
    if chosen.paths:
        cells = [Cell(path, caption) for path, caption in zip(chosen.paths, captions, strict=True)]
        atomic_write(sheet, picture_sheet(in_rows(cells)))
    print(f"{told}. Written: {place}{f' and {sheet}' if chosen.paths else ''}")
