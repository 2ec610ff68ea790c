"""What one classifier, or several that vote, say of pictures."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.config import EvalOptions, InferOptions, UseOptions, vote_weights_of
from metric_learning.data.loader import BadPictures
from metric_learning.data.names import taken
from metric_learning.data.predictions import read_predictions
from metric_learning.embedder import ClassesOf, Embedder, saved_classes
from metric_learning.engine import Predictor
from metric_learning.extract import Reader, embed
from metric_learning.metrics.votes import FusionHead, fit_fusion, fit_weights, vote
from metric_learning.runs import Run, run_of, weights_file
from metric_learning.stages import setup

# What only embeddings are asked: with one of these a classifier is used as an embedder.
OF_EMBEDDINGS = ("pair", "pairs", "query", "gallery", "serve", "rerank", "templates", "calibrate", "clean")


class Said(NamedTuple):
    """Of the pictures that could be read (their places are `kept`): each member's embeddings, its probabilities."""

    kept: NDArray[np.int64]
    embeddings: list[NDArray[np.float32]]  # (N, D_m) of member m
    probabilities: NDArray[np.float32]  # (M, N, C)


@dataclass(frozen=True)
class Member:
    """One classifier, ready to run."""

    file: Path
    run: Run | None
    embedder: Embedder
    predictor: Predictor
    reader: Reader
    known: ClassesOf

    def say(self, paths: Sequence[Any], bad: BadPictures) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(which could be read, their embeddings); with the flip test the mean of a picture's and its mirror's."""
        kept, embeddings = embed(self.predictor, paths, self.reader, bad)
        return kept, embeddings / np.float32(2) if self.reader.flip_test else embeddings


@dataclass(frozen=True)
class Voters:
    """One member or more, and how their answers become one. how: in words, for the report."""

    members: list[Member]
    kind: str
    weights: tuple[float, ...] | None = None
    head: FusionHead | None = None
    how: str = ""

    @property
    def classes(self) -> list[str]:
        return self.members[0].known.names

    @property
    def run(self) -> Run | None:
        return self.members[0].run

    def probabilities(self, said: Said) -> NDArray[np.float64]:
        """(N, C), rows that sum to 1."""
        if self.head is not None:
            found: NDArray[np.float64] = self.head.probabilities(said.embeddings)
        elif len(self.members) == 1:
            found = said.probabilities[0].astype(np.float64)
        else:
            found = vote(said.probabilities, self.kind, self.weights)
        return found


def classifies(config: EvalOptions | InferOptions) -> bool:
    """Whether the command is about classes: as its options say, else as the weights do. UserError if they disagree."""
    files = weights_files(config)
    classes = ["--task=classify"] if config.task == "classify" else []
    classes += [f"--{name}" for name in ("vote", "uncertain") if getattr(config, name) is not None]
    classes += [f"--pretrained_model={config.named_weights}, several weights,"] if len(files) > 1 else []
    embeddings = ["--task=embed"] if config.task == "embed" else []
    embeddings += [f"--{name}" for name in OF_EMBEDDINGS if getattr(config, name, None)]
    if classes and embeddings:
        raise UserError(f"{classes[0]} is about classes, {embeddings[0]} about embeddings. Leave one of them out.")
    return bool(classes) or (not embeddings and saved_classes(files[0]) is not None)


def weights_files(config: UseOptions) -> list[Path]:
    """The files that --pretrained_model names, with commas between them; else that of the newest run."""
    typed = config.named_weights
    if typed is None or "," not in typed or os.path.exists(typed):
        return [setup.find_weights(config)[0]]
    return [weights_file(name) for name in _named(typed)]


def _named(typed: str) -> list[str]:
    """'a,b' -> ['a', 'b']; a comma that belongs to the name of something that is there stays in it."""
    found, parts = [], typed.split(",")
    while parts:
        there = (n for n in range(1, len(parts) + 1) if os.path.exists(",".join(parts[:n]).strip()))
        length = next(there, 1)
        name = ",".join(parts[:length]).strip()
        found += [name] if name else []
        parts = parts[length:]
    return found


def members_of(config: EvalOptions | InferOptions) -> list[Member]:
    """Every classifier that is named. UserError where one is none, or they do not know the same classes."""
    found: list[Member] = []
    for file in weights_files(config):
        known = saved_classes(file)
        if known is None:
            raise UserError(
                f"{file} holds no classifier. Train one by train_elem.py --task=classify (its best.safetensors has it)."
            )
        if found and known.names != found[0].known.names:
            raise UserError(f"{file} knows other classes than {found[0].file}, so they can't vote.")
        embedder = setup.load_embedder(file, config, print)
        picture = embedder.spec.picture
        reader = Reader(picture, config.batch_size, config.num_workers, config.flip_test)
        predictor = Predictor(embedder, picture.shape, config.precision)
        found.append(Member(file, run_of(file), embedder, predictor, reader, known))
    return found


def ask(members: list[Member], paths: Sequence[Any], bad: BadPictures) -> Said:
    """What each member says of the pictures."""
    answers = [member.say(paths, bad) for member in members]
    rows = [embeddings for _, embeddings in answers]
    classifiers = [member.known.classifier for member in members]
    probabilities = [judge.probabilities(own) for judge, own in zip(classifiers, rows, strict=True)]
    return Said(answers[0][0], rows, np.stack(probabilities))


def voters_of(config: EvalOptions | InferOptions) -> Voters:
    """The members with their way of voting, fitted on validation pictures where that is asked for."""
    members = members_of(config)
    if len(members) == 1:
        if config.vote is not None:
            raise UserError(f"--vote={config.vote} needs several classifiers: --pretrained_model=a,b,c.")
        return Voters(members, "one")
    kind = config.vote or "soft"
    if kind == "weighted" and config.weights != "fit":
        weights = vote_weights_of(str(config.weights))
        if len(weights) != len(members):
            raise UserError(f"--weights={config.weights} are {len(weights)} numbers for {len(members)} classifiers.")
        return Voters(members, kind, weights, how=f"weighted vote, {config.weights}")
    if kind in ("weighted", "fusion"):
        return _fitted(kind, members, config)
    return Voters(members, kind, how=f"{kind} vote")


def _fitted(kind: str, members: list[Member], config: EvalOptions | InferOptions) -> Voters:
    """Weights or a head, by the validation pictures of the members' runs, which none of them was trained on."""
    said, labels, where = _of_validation(members, config)
    on = f"fitted on {len(labels):,} validation pictures of {where}"
    if kind == "weighted":
        weights = tuple(float(weight) for weight in fit_weights(said.probabilities, labels))
        numbers = ", ".join(f"{weight:.3f}" for weight in weights)
        return Voters(members, kind, weights, how=f"weighted vote, {numbers}, {on}")
    head = fit_fusion(said.embeddings, labels, len(members[0].known.names))
    return Voters(members, kind, head=head, how=f"fusion of the embeddings, {on}")


def _of_validation(members: list[Member], config: EvalOptions | InferOptions) -> tuple[Said, NDArray[np.int64], str]:
    runs = [member.run for member in members]
    known = [run for run in runs if run is not None]
    divided = [(setup.data_of(run), setup.division_of(run.config())) for run in known]
    if len(known) < len(members) or any(other != divided[0] for other in divided):
        raise UserError(
            "To fit a vote, all classifiers must come from runs with the same data and the same validation pictures "
            "(--data_dir, --val_share or --fold, --split_seed). Type --weights, or take --vote=soft."
        )
    data, division = divided[0]  # the runs' own, whatever data was typed: that may be the test
    home = data.get("data_dir")
    moved = home is not None and not os.path.exists(home) and "data_dir" in config.typed
    folder = config.data_dir if moved else home
    splits = setup.load_data(replace(config, **data | {"data_dir": folder}), lambda line: None, division)
    if splits.train.classes != members[0].known.names:
        raise _not_the_data(folder, known[0], "the classes")
    if not len(splits.val):
        raise UserError("The runs have no validation pictures to fit a vote on. Type --weights, or take --vote=soft.")
    rows = _held_out(splits.val.paths, folder, known[0], home, moved)
    bad = BadPictures(len(rows), config.max_bad_pictures)
    said = ask(members, taken(splits.val.paths, rows), bad)
    return said, splits.val.labels[rows[said.kept]], str(known[0].folder)


def _held_out(paths: Sequence[str], folder: str | None, run: Run, home: str | None, moved: bool) -> NDArray[np.int64]:
    """Which of the validation pictures the run held out too, by its list of them; a UserError where others are in it.

    A run that was interrupted has no list: where its data is, all are taken.
    """
    if not run.val_predictions.is_file() and not moved:
        return np.arange(len(paths))
    listed = read_predictions(run.val_predictions).paths
    held_out = {_inside(path, home) for path in listed}
    rows = np.array([i for i, path in enumerate(paths) if _inside(path, folder) in held_out], np.int64)
    if len(rows) < len(listed) or not listed:
        raise _not_the_data(folder, run, "the validation pictures")
    return rows


def _inside(path: str, folder: str | None) -> str:
    """A picture's name that stays where its data is moved."""
    name = os.path.relpath(path, folder or setup.DEMO_FOLDER)
    return path if name.startswith(os.pardir) else name


def _not_the_data(folder: str | None, run: Run, what: str) -> UserError:
    return UserError(
        f"{folder or setup.DEMO_FOLDER} has not {what} of {run.folder}: a vote is fitted on what the runs held out. "
        "Bring their data back, type --weights, or take --vote=soft."
    )
