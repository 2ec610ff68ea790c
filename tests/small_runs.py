"""Tiny pictures, networks and trainings that the tests of the core share."""

import contextlib
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import paddle

from metric_learning.backbones import BACKBONES
from metric_learning.backbones.base import Backbone
from metric_learning.checkpoint import State
from metric_learning.data.loader import BadPictures, train_batches
from metric_learning.data.samplers import ClassSampler, ShuffleSampler
from metric_learning.data.sources import PictureSet, Sample
from metric_learning.data.transforms import PictureSpec, TrainTransform
from metric_learning.embedder import Embedder, EmbedderSpec, save_embedder
from metric_learning.losses import element_loss, pair_loss
from metric_learning.onednn.forward import training_forward
from metric_learning.optimizer import Optimizer
from metric_learning.runs import Run, new_run
from metric_learning.schedule import schedule
from metric_learning.step import Step
from metric_learning.train import Plan, fit

# Options of the scripts for runs of a few seconds.
SMALL = {"model": "ResNet18", "embedding_size": 8, "image_shape": "3,32,32", "train_batch_size": 8}


def write_pictures(folder: Path, classes: int = 4, each: int = 4, side: int = 24) -> PictureSet:
    """Noise round a colour of the class's own, one folder a class."""
    samples = []
    for label in range(classes):
        for number in range(each):
            rng = np.random.default_rng([label, number])
            colour = np.random.default_rng(label).integers(40, 216, 3)
            path = folder / f"class{label:02d}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), (colour + rng.integers(-40, 40, (side, side, 3))).astype(np.uint8))
            samples.append(Sample(str(path), path.parent.name))
    return PictureSet.of(samples)


class Tiny(Backbone):
    """A backbone of two convolutions, so that a step takes milliseconds."""

    feature_size = 16

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        conv, norm = paddle.nn.Conv2D, paddle.nn.BatchNorm2D
        first = (conv(shape[0], 8, 3, 2, bias_attr=False), norm(8), paddle.nn.ReLU())
        self.layers = paddle.nn.Sequential(*first, conv(8, 16, 3, 2), norm(16), paddle.nn.ReLU())

    def to_map(self, images):
        return self.layers(images)

    def from_map(self, last):
        return paddle.mean(last, axis=[2, 3])


def spec_of(model: str = "Tiny", size: int = 8, shape=(3, 32, 32), norm: bool = False) -> EmbedderSpec:
    return EmbedderSpec(model, size, PictureSpec(shape, test_crop=1.0), norm)


def new_embedder(seed: int = 0, **changed) -> Embedder:
    paddle.seed(seed)
    with mock.patch.dict(BACKBONES, {"Tiny": Tiny}):
        return Embedder(spec_of(**changed))


def images(count: int = 2, shape=(3, 32, 32), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def equal_arrays(a: dict, b: dict) -> None:
    """The same names, types and bits."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert value.dtype == b[name].dtype and value.tobytes() == b[name].tobytes(), name


class Quiet:
    """A log that keeps what is said."""

    def __init__(self) -> None:
        self.lines, self.numbers = [], []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def scalars(self, tag: str, values: dict, step: int) -> None:
        self.numbers.append((tag, values, step))

    def histograms(self, tag: str, values: dict, step: int) -> None:
        pass


class Training:
    """A small training: `go(steps)` from where its state is; the schedule and the order are those of 8 steps."""

    total = 8

    def __init__(
        self, pictures, folder, loss="softmax", optimizer="momentum", clip=0.0, onednn=False, workers=0, evaluate=None
    ) -> None:
        self.pictures, self.workers, self.judge, self.log = pictures, workers, evaluate, Quiet()
        self.run = Run(folder) if (folder / "config.json").exists() else new_run(str(folder), "train_elem", loss, {})
        embedder = new_embedder()
        self.loss = self._loss(loss)
        made = Optimizer(optimizer, embedder, self.loss, momentum=0.9, weight_decay=1e-3, clip_norm=clip)
        self.state = State(embedder, self.loss, made)
        self.forward = training_forward(embedder, 3, onednn)

    def _loss(self, name):
        if name in ("softmax", "arcmargin"):
            self.sampler = ShuffleSampler(len(self.pictures), 6, 3)
            return element_loss(name, len(self.pictures.classes), 8, scale=8.0)
        self.sampler = ClassSampler(self.pictures.labels, 6, 2, 3)
        return pair_loss(name, mining="batch_hard") if name == "triplet" else pair_loss(name)

    def learn(self, batch):
        return Step(self.state.embedder, self.embed, self.loss, seed=3)(batch)

    def embed(self, batch):
        return self.forward(paddle.to_tensor(batch.images))

    def go(
        self, stop: int, save: int = 4, test: int = 4, keep: int = 0, rate=None, batches=None, early_stop: int = 0
    ) -> "Training":
        spec = self.state.embedder.spec.picture
        transform = TrainTransform(spec, 0.5, True, 0.2)
        bad = BadPictures(len(self.pictures))
        if batches is None:
            batches = train_batches(
                self.pictures,
                self.sampler,
                transform,
                spec,
                seed=3,
                start_step=self.state.step,
                stop_step=stop,
                workers=self.workers,
                bad=bad,
            )
        self.state.embedder.train()
        plan = Plan(stop, 2, test, save, keep, early_stop)
        rate = rate or schedule("cosine_decay", 0.05, self.total, warmup=2)
        with contextlib.closing(batches) if hasattr(batches, "close") else contextlib.nullcontext():
            fit(
                self.state,
                self.run,
                self.log,
                plan,
                batches,
                self.learn,
                lambda: self.loss.figures,
                rate,
                self.judge,
                lambda about: save_embedder(self.run.best, self.state.embedder, about),
            )
        return self
