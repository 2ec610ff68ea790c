"""Attributes, --task=classify: what classes pictures are of, how right that is, and what training asks of it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.class_report import ClassReport
from metric_learning.config import EvalOptions, InferOptions
from metric_learning.data.lists import CsvRules, read_names
from metric_learning.data.loader import BadPictures
from metric_learning.data.names import joined, taken
from metric_learning.data.picture_splits import Division
from metric_learning.data.predictions import Predictions, column, shown
from metric_learning.data.sources import PictureSet
from metric_learning.data.splits import Splits, find_list
from metric_learning.embedder import ClassesOf
from metric_learning.engine import Predictor
from metric_learning.extract import Reader, embed
from metric_learning.files import write_csv
from metric_learning.metrics.classification import Classification, classification
from metric_learning.runs import Run
from metric_learning.stages import setup
from metric_learning.stages.inputs import pictures_of_input
from metric_learning.stages.listing import uncertain_place, write_uncertain
from metric_learning.stages.reporting import write_report
from metric_learning.stages.voting import Voters, ask, voters_of

Probabilities = NDArray[np.float64]


class NoBadPictures(BadPictures):
    """Where every picture must be read: the first that can't be is a UserError."""

    def take(self, reasons: dict[str, str]) -> None:
        super().take({})
        if reasons:
            why = next(iter(reasons.values()))
            raise UserError(f"Can't read {why}. Mend the picture, or leave its row out by --skip_missing=True.")


# ---- eval


def eval_classes(config: EvalOptions) -> None:
    """Print accuracy, confusion and so on, write json and plot beside it, and with --uncertain that list."""
    voters = voters_of(config)
    output = setup.output_file(config.output, voters.run, "eval.json")
    setup.check_writable(output.parent, "--output")
    config = setup.with_data_of(config, voters.run, print)
    pictures, split = _measured(config, voters)
    unsure = uncertain_place(config, output, pictures.paths)
    bad = BadPictures(len(pictures), config.max_bad_pictures)
    said = ask(voters.members, pictures.paths, bad)
    probabilities = voters.probabilities(said)
    if not dist.is_first():
        return
    labels = pictures.labels[said.kept]
    groups = taken(pictures.groups, said.kept) if pictures.groups else None
    found = classification(probabilities, labels, voters.classes, groups)
    report = ClassReport(_about(config, voters, pictures, split), found, split)
    print(f"\n{report.text()}")
    write_report(report, output)
    if unsure is not None:
        listed = Predictions(
            list(taken(pictures.paths, said.kept)), [voters.classes[i] for i in labels], probabilities, voters.classes
        )
        write_uncertain(unsure, config.uncertain_band, listed)
    for line in bad.lines():
        print(f"Left out, can't be read: {line}")


def _divided(config: EvalOptions | InferOptions, run: Run | None) -> Splits:
    """The data, its pictures divided as in `run` if it is the run's own; of other data nothing is set apart."""
    own = run is not None and setup.same_data(config, run)
    division = setup.division_of(run.config()) if run is not None and own else None
    return setup.load_data(config, print, division or Division(val_share=0.0, test_share=0.0, seed=config.split_seed))


def _measured(config: EvalOptions, voters: Voters) -> tuple[PictureSet, str]:
    """The labelled pictures of the split, their labels as numbers of the voters' classes; and the split's name."""
    splits = _divided(config, voters.run)
    split = config.split or ("test" if len(splits.test) else "all")
    parts = [splits.train, splits.val, splits.test] if split == "all" else [getattr(splits, split)]
    paths = joined([part.paths for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    groups = joined([part.groups for part in parts]) if all(part.groups for part in parts if len(part)) else []
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        told = "have no labels; infer.py says what they are of" if len(paths) else "are none"
        raise UserError(f"--split={split}: the {split} pictures {told}.")
    place = {name: i for i, name in enumerate(voters.classes)}
    strange = sorted({splits.train.classes[i] for i in np.unique(labels[known])} - place.keys())
    if strange:
        raise UserError(
            f"The data has the class {strange[0]!r}, which the weights do not know; they know "
            f"{', '.join(voters.classes[:5])}{', ...' if len(voters.classes) > 5 else ''}."
        )
    code = np.array([place.get(name, -1) for name in splits.train.classes])
    return PictureSet(
        taken(paths, known), code[labels[known]], voters.classes, taken(groups, known) if groups else []
    ), split


def _about(config: EvalOptions, voters: Voters, pictures: PictureSet, split: str) -> dict[str, Any]:
    first = voters.members[0]
    about = setup.about(config, first.embedder, pictures, split, first.file, first.predictor.way)
    if len(voters.members) == 1:
        return about
    about["weights"] = ", ".join(str(member.file) for member in voters.members)
    about["network"] = ", ".join(member.embedder.spec.model for member in voters.members)
    return about | {"vote": voters.how}


# ---- infer


def infer_classes(config: InferOptions) -> None:
    """Write a csv of the pictures' names and classes, in the order in which they were given, whole or not at all."""
    voters = voters_of(config)
    output = setup.output_file(config.output, voters.run, "submission.csv")
    setup.check_writable(output.parent, "--output")
    config = setup.with_data_of(config, voters.run, print)
    kind, names, paths = _asked(config, voters, output)
    unsure = uncertain_place(config, output, paths)
    bad = (BadPictures if config.skip_missing else NoBadPictures)(len(paths), config.max_bad_pictures)
    said = ask(voters.members, paths, bad)
    probabilities = voters.probabilities(said)
    if not dist.is_first():
        return
    names = [names[i] for i in said.kept]
    _write_classes(output, kind, names, probabilities, voters.classes, config.probabilities)
    if voters.how:
        print(f"By {voters.how}.")
    counts = np.bincount(probabilities.argmax(axis=1), minlength=len(voters.classes))[:10]
    told = ", ".join(f"{name} {count:,}" for name, count in zip(voters.classes, counts, strict=False))
    print(f"Written: {output} ({len(names):,} pictures: {told}{', ...' if len(voters.classes) > 10 else ''})")
    if unsure is not None:
        listed = Predictions([paths[i] for i in said.kept], [""] * len(names), probabilities, voters.classes)
        write_uncertain(unsure, config.uncertain_band, listed)
    for line in bad.lines():
        print(f"Left out, can't be read: {line}")


def _asked(config: InferOptions, voters: Voters, output: Path) -> tuple[str, Sequence[str], Sequence[str]]:
    """(id or path, what the answer calls each picture, where it lies)."""
    folder = Path(config.data_dir) if config.data_dir is not None else None
    listed = config.input if config.input is not None else config.test_list
    if listed is not None and Path(listed).suffix.lower() == ".csv":
        place = find_list(listed, folder or Path())
        if os.path.realpath(place) == os.path.realpath(output):
            raise UserError(f"--output={output} is the list of pictures itself. Name another place.")
        inside = folder if folder is not None and folder.is_dir() else None
        return read_names(place, CsvRules(inside, config.group_column, config.skip_missing, labelled=False))
    if config.input is not None:
        paths = pictures_of_input(config.input)
        return "path", paths, paths
    splits = _divided(config, voters.run)
    chosen = splits.test.paths if len(splits.test) else joined([splits.train.paths, splits.val.paths])
    return "path", chosen, chosen


def _write_classes(
    output: Path, kind: str, names: Sequence[str], probabilities: Probabilities, classes: list[str], all_of_them: bool
) -> None:
    each = zip(names, probabilities, strict=True)
    rows = ([name, classes[int(row.argmax())], *(shown(row) if all_of_them else [])] for name, row in each)
    write_csv(output, [kind, "label", *(map(column, classes) if all_of_them else [])], rows)


# ---- training


def predicted(
    predictor: Predictor, known: ClassesOf, pictures: PictureSet, reader: Reader, bad: BadPictures
) -> tuple[Predictions, Classification | None]:
    """What one classifier says of pictures, and how right it is; None for the second where no picture has a label."""
    kept, embeddings = embed(predictor, pictures.paths, reader, bad)
    labels, probabilities = pictures.labels[kept], known.classifier.probabilities(embeddings).astype(np.float64)
    names = [known.names[i] if i >= 0 else "" for i in labels]
    told = Predictions(list(taken(pictures.paths, kept)), names, probabilities, known.names)
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        return told, None
    groups = taken(pictures.groups, kept[rows]) if pictures.groups else None
    return told, classification(probabilities[rows], labels[rows], known.names, groups)


def scores_of(found: Classification) -> dict[str, float]:
    """What chooses the best weights: the accuracy, and of equal ones the balanced accuracy."""
    pooled = found.pooled
    return {"val accuracy": pooled.accuracy or 0.0, "val balanced accuracy": pooled.balanced_accuracy or 0.0}
