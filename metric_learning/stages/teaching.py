"""A teacher for the network in training, and the generations of students that learn from it."""

import contextlib
import dataclasses
from pathlib import Path
from typing import TypeVar

import numpy as np
import paddle
from paddle import Tensor

from metric_learning.checks import UserError
from metric_learning.config import EvalOptions, TrainOptions
from metric_learning.data.respec import respec
from metric_learning.data.transforms import PictureSpec
from metric_learning.embedder import Embedder, saved_spec
from metric_learning.engine import Predictor
from metric_learning.losses.distill import angular_distillation
from metric_learning.runs import Run, run_of, weights_file
from metric_learning.stages import setup
from metric_learning.weights import foreign_spec

AnyTrain = TypeVar("AnyTrain", bound=TrainOptions)


class Teacher:
    """A frozen network: what its embeddings of a batch say to the student's.

    It runs in the inference engine (eager on a GPU), so there is no gradient to it and no running statistic moves. It
    sees the student's augmented pictures, resized and normalised as it takes them. weight: of its part in the loss.
    """

    def __init__(self, embedder: Embedder, pictures: PictureSpec, weight: float, precision: str) -> None:
        self.pictures, self.own, self.weight = pictures, embedder.spec.picture, weight
        # `auto` would choose by the first batch it meets, which is another one in a resumed run.
        self._predictor = Predictor(embedder, self.own.shape, "float32" if precision == "auto" else precision)
        self._last: Tensor | None = None

    def loss(self, embeddings: Tensor, images: np.ndarray) -> Tensor:
        """embeddings (B, D) of the student, its images (B, C, H, W) -> weight times the angular distillation."""
        given = paddle.to_tensor(self._predictor(respec(images, self.pictures, self.own)))
        apart = angular_distillation(embeddings, given)
        self._last = apart.detach()
        return self.weight * apart

    @property
    def figures(self) -> dict[str, float]:
        """distillation: mean squared distance of the directions in the last batch, 0..4."""
        return {} if self._last is None else {"distillation": float(self._last.item())}


def teacher_of(config: TrainOptions, student: Embedder, say: setup.Say) -> Teacher | None:
    """The teacher that the options name, None if they name none; a UserError if it can't teach this student."""
    if config.teacher is None:
        if config.generations > 1:
            raise UserError(f"--generations={config.generations} needs a network to learn from: name it by --teacher.")
        return None
    file = weights_file(config.teacher)
    if saved_spec(file) is None and foreign_spec(file) is None:
        raise UserError(
            f"--teacher={file} does not say what network it is for. Give a run, or weights of a known format "
            "(docs/weights.md)."
        )
    embedder = setup.load_embedder(file, EvalOptions(), lambda line: say(f"Teacher: {line}"))
    if embedder.size != student.size:
        raise UserError(
            f"--teacher={file} has embeddings of {embedder.size} numbers, the student of {student.size}; they must be "
            f"alike. Set --embedding_size={embedder.size}."
        )
    return Teacher(embedder, student.spec.picture, config.distill_weight, config.precision)


def named_teacher(config: AnyTrain) -> AnyTrain:
    """The options with the teacher's weights by their full path, so that a run can be resumed from elsewhere."""
    if config.teacher is None:
        return config
    return dataclasses.replace(config, teacher=str(weights_file(config.teacher).resolve()))


def run_of_teacher(config: TrainOptions) -> Run | None:
    """The run that the teacher comes from, if it comes from one."""
    return None if config.teacher is None else run_of(config.teacher)


# ---- generations


def next_generation(config: AnyTrain, before: Run, say: setup.Say) -> tuple[AnyTrain, Run | None]:
    """The options of the generation behind the finished run `before`, and its run where that was begun already.

    The next student starts from the best weights of the last one (its class centres start anew), while the teacher
    stays the same: recursive distillation, arXiv 1910.04985, section 2.4.
    """
    number = config.generation + 1
    start = str(before.best.resolve())
    config = dataclasses.replace(config, generation=number, pretrained_model=start, checkpoint=None)
    say(f"Generation {number} of {config.generations}: the student starts from {before.best}.")
    begun = _begun({before.folder.parent, Path(config.model_save_dir)}, number, start)
    if begun is not None:
        say(f"It was begun before, as {begun.folder}.")
    return config, begun


def _begun(folders: set[Path], generation: int, start: str) -> Run | None:
    """The run of this generation that started from these weights, if there is one in the folders."""
    for path in sorted(path for folder in folders for path in folder.glob("*/config.json")):
        with contextlib.suppress(UserError):  # another run's config that can't be read
            saved = Run(path.parent).config()
            if (saved.get("generation"), saved.get("pretrained_model")) == (generation, start):
                return Run(path.parent)
    return None
