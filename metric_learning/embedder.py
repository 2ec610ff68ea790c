"""Backbone + neck + the pictures that they take: all that inference needs, in one file that can't run code."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import paddle
from paddle import Tensor, nn

from metric_learning.backbones import backbone
from metric_learning.checks import UserError
from metric_learning.data.transforms import PictureSpec
from metric_learning.files import Arrays, one_line, read_metadata, read_tensors, write_tensors
from metric_learning.losses.classifier import Classifier
from metric_learning.metrics.group_means import GroupMeans
from metric_learning.metrics.similarity import Calibration

Kept = TypeVar("Kept")
MAX_SIZE, MAX_SIDE = 1 << 16, 1 << 12  # of what a file may ask for: a stranger's could fill the memory


@dataclass(frozen=True)
class EmbedderSpec:
    """What must be known to build the network again and to feed it: it travels with the weights."""

    model: str
    embedding_size: int
    picture: PictureSpec
    embedding_norm: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "picture": self.picture.to_dict()}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "EmbedderSpec":
        """The reverse of `to_dict`; UserError, KeyError, TypeError or ValueError for what that does not give."""
        picture = PictureSpec.from_dict(saved["picture"])
        size, model, norm = saved["embedding_size"], saved["model"], saved["embedding_norm"]
        if not isinstance(model, str) or not isinstance(norm, bool):
            raise ValueError("model must be a name, embedding_norm true or false")
        if type(size) is not int or not 0 <= size <= MAX_SIZE or max(picture.shape) > MAX_SIDE:
            raise ValueError(f"embedding_size must lie in 0..{MAX_SIZE}, sides of pictures in 1..{MAX_SIDE}")
        return cls(model, size, picture, norm)


class Embedder(nn.Layer):
    """images (B, C, H, W), normalised as `spec.picture` says -> embeddings (B, D) float32, not normalised.

    D is `embedding_size`, or the backbone's feature size where that is 0. The neck is a linear layer (none for size 0),
    then, with `embedding_norm`, batch normalisation: pooled features are positive, so they lie in one narrow cone, from
    which a margin learns slowly; centred ones fill the sphere (the last BN of arXiv 1801.07698, section 3.1).
    """

    def __init__(self, spec: EmbedderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone(spec.model, spec.picture.shape)
        self.size = spec.embedding_size or self.backbone.feature_size
        linear = [nn.Linear(self.backbone.feature_size, self.size)] if spec.embedding_size else []
        norm = [nn.BatchNorm1D(self.size)] if spec.embedding_norm else []
        self.neck = nn.Sequential(*linear, *norm)

    def forward(self, images: Tensor) -> Tensor:
        return self.neck(self.backbone(images))

    def to_map(self, images: Tensor) -> Tensor:
        """images (B, channels, H, W) -> the last feature map (B, C, h, w) of the backbone."""
        return self.backbone.to_map(images)

    def from_map(self, last: Tensor) -> Tensor:
        """The last feature map (B, C, h, w) of the backbone -> embeddings (B, D)."""
        return self.neck(self.backbone.from_map(last))

    def arrays(self) -> Arrays:
        """Every weight and running statistic by name."""
        return arrays_of(self)


def arrays_of(layer: nn.Layer) -> Arrays:
    return {name: np.asarray(value.numpy()) for name, value in layer.state_dict().items()}


def put_arrays(layer: nn.Layer, arrays: Arrays, where: str) -> None:
    """Copy arrays into the layer by name; all names and shapes must fit."""
    state = layer.state_dict()
    for name in state:
        if name not in arrays:
            raise UserError(f"{where} are weights of another model: {name} is missing. Name their model by --model.")
        if list(arrays[name].shape) != list(state[name].shape):
            raise UserError(
                f"{where} are weights of another model or size: {name} is {list(arrays[name].shape)}, "
                f"not {list(state[name].shape)}. Name their --model, --embedding_size and --image_shape."
            )
    for name, value in state.items():
        value.set_value(paddle.to_tensor(arrays[name].astype(value.numpy().dtype)))


def check_finite(arrays: Arrays, path: str | Path) -> None:
    """A UserError rather than NaN or infinity in a file: one bad gradient reaches the weights before any loss."""
    for name, value in arrays.items():
        if not np.isfinite(value).all():
            raise UserError(
                f"{name} is no longer finite, so {path} is not written; earlier weights are kept. "
                "Lower --lr or set --clip_norm."
            )


class ClassesOf(NamedTuple):
    """The names of C classes, and what says which of them an embedding is of."""

    names: list[str]
    classifier: Classifier


def save_embedder(
    path: str | Path,
    embedder: Embedder,
    about: dict[str, Any],
    calibration: Calibration | None = None,
    means: GroupMeans | None = None,
    classes: ClassesOf | None = None,
) -> None:
    """Weights and spec as one safetensors file; `about` is what its reader may want to know (step, scores, data)."""
    arrays = embedder.arrays()
    known: dict[str, Any] = {"calibration": calibration.to_dict()} if calibration else {}
    known |= {"group_means": means.to_dict()} if means else {}
    if classes is not None:
        own, how = classes.classifier.to_arrays()
        arrays, known = arrays | own, known | {"classifier": {**how, "classes": classes.names}}
    check_finite(arrays, path)
    write_tensors(path, arrays, {"embedder": embedder.spec.to_dict(), "about": about, **known})


def save_beside(path: str | Path, **known: Calibration | GroupMeans) -> None:
    """Put a `calibration` (what the cosines of these weights mean) or `group_means` into their file."""
    arrays, metadata = read_tensors(path)
    write_tensors(path, arrays, metadata | {name: value.to_dict() for name, value in known.items()})


def saved_calibration(path: str | Path) -> Calibration | None:
    """What a file of this toolkit says its cosines mean; None where it says nothing, and for weights from elsewhere."""
    return _saved(path, "calibration", Calibration.from_dict, "Make a new one by eval.py --calibrate.")


def saved_group_means(path: str | Path) -> GroupMeans | None:
    """The mean embedding of each group, from a file of this toolkit; None where it holds none."""
    return _saved(path, "group_means", GroupMeans.from_dict, "Leave it out by --group_means=False.")


def saved_classes(path: str | Path) -> ClassesOf | None:
    """The classes that a file of this toolkit can tell apart; None where it holds no classifier."""

    def read(saved: Any) -> ClassesOf:
        names = saved.get("classes") if isinstance(saved, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("it does not name its classes")
        made = Classifier.from_arrays(read_tensors(path)[0], saved)
        if len(made.weight) != len(names):
            raise ValueError(f"{len(names)} classes for {len(made.weight)} rows")
        return ClassesOf(names, made)

    return _saved(path, "classifier", read, "Train a new one by train_elem.py --task=classify.")


def _saved(path: str | Path, name: str, read: Callable[[Any], Kept], remedy: str) -> Kept | None:
    if saved_spec(path) is None or (saved := read_metadata(path).get(name)) is None:
        return None
    try:
        return read(saved)
    except ValueError as error:
        raise UserError(f"The {name} in {path} can't be used: {one_line(error)}. Was it edited? {remedy}") from error


def saved_spec(path: str | Path) -> EmbedderSpec | None:
    """The spec inside a safetensors file of this toolkit; None for weights from elsewhere."""
    if Path(path).suffix != ".safetensors":
        return None
    saved = read_metadata(path).get("embedder")
    if not isinstance(saved, dict):
        return None
    try:
        return EmbedderSpec.from_dict(saved)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, UserError) as error:
        raise UserError(
            f"{path} does not say what network it is for as this version does: {one_line(error)}."
        ) from error
