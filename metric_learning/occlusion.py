"""Training with parts of the last feature map covered, so that no single part of a picture is relied upon."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor

from metric_learning import dist
from metric_learning.checks import UserError, check_choice, check_range
from metric_learning.data.loader import Batch
from metric_learning.data.samplers import keyed_rng
from metric_learning.data.transforms import Points
from metric_learning.embedder import Embedder
from metric_learning.losses.base import Labels, Loss
from metric_learning.onednn.forward import training_map

Masks = NDArray[np.float32]
Boxes = NDArray[np.float64]
OCCLUDE = 100  # what the generator is for, beside the purposes in data/samplers.py


def _left(mask: Masks, rng: np.random.Generator) -> None:
    mask[..., : mask.shape[-1] // 2] = 0


def _right(mask: Masks, rng: np.random.Generator) -> None:
    mask[..., mask.shape[-1] - mask.shape[-1] // 2 :] = 0


def _top(mask: Masks, rng: np.random.Generator) -> None:
    mask[..., : mask.shape[-2] // 2, :] = 0


def _bottom(mask: Masks, rng: np.random.Generator) -> None:
    mask[..., mask.shape[-2] - mask.shape[-2] // 2 :, :] = 0


def _random_half(mask: Masks, rng: np.random.Generator) -> None:
    places = mask[0].size
    order = rng.random((len(mask), places)).argsort(axis=1)  # each row a random order of 0..places-1
    mask[order.reshape(mask.shape) < places // 2] = 0


# Each puts zeros into masks (B, h, w) of ones. The middle row or column of an odd map stays.
SHAPES: dict[str, Callable[[Masks, np.random.Generator], None]] = {
    "left": _left,
    "right": _right,
    "top": _top,
    "bottom": _bottom,
    "random_half": _random_half,
}


# Which of the five points a block goes round: eyes, nose, corners of the mouth.
BLOCKS = {"eyes": [0, 1], "nose": [2], "mouth": [3, 4]}
LEAST_MAP = 3  # places a side below which a block would be no block


def block_boxes(points: Points, height: int, width: int) -> dict[str, Boxes]:
    """{name of a block: (B, 4) left, top, right, bottom} for points (B, 5, 2), both in 0..1 of the network's input.

    The box round the block's points, grown on every side by a quarter of the distance between the eyes. The distance
    is in the pixels of the input, `height` x `width`. NaN where the points are NaN.
    """
    pixels = np.array([width, height])
    between = np.linalg.norm((points[:, 1] - points[:, 0]) * pixels, axis=1, keepdims=True)
    grown = between / 4 / pixels  # (B, 2)
    rounds = {name: points[:, which] for name, which in BLOCKS.items()}
    return {name: np.hstack([p.min(axis=1) - grown, p.max(axis=1) + grown]) for name, p in rounds.items()}


def _block(mask: Masks, boxes: Boxes) -> None:
    """Every place of masks (B, h, w) that the picture's box (B, 4) overlaps; none where it is outside, or NaN."""
    height, width = mask.shape[1:]
    left, top, right, bottom = boxes.T[:, :, None]  # each (B, 1)
    column, row = np.arange(width), np.arange(height)
    across = (left * width < column + 1) & (right * width > column)
    down = (top * height < row + 1) & (bottom * height > row)
    mask[down[:, :, None] & across[:, None, :]] = 0


def candidates(
    shapes: Sequence[str],
    count: int,
    height: int,
    width: int,
    rng: np.random.Generator,
    boxes: Mapping[str, Boxes] | None = None,
) -> Masks:
    """(K, B, h, w) of 0 and 1: a mask of each of the K shapes for each of B = `count` pictures.

    boxes: what `block_boxes` gives; needed where one of the shapes is a block, a UserError without.
    """
    masks = np.ones((len(shapes), count, height, width), np.float32)
    for mask, shape in zip(masks, shapes, strict=True):
        if shape in SHAPES:
            SHAPES[shape](mask, rng)
        elif boxes is None:
            raise UserError(f"--occlusion_shapes={shape} needs the points of the faces: give --landmarks.")
        else:
            _block(mask, boxes[shape])
    return masks


@dataclass(frozen=True)
class Occlusion:
    """How parts of the last map are covered. rate in 0..1: the share of pictures covered.

    shapes: names of SHAPES and BLOCKS. A block covers nothing of a picture whose points are not known or not seen.

    adversarial: a covered picture gets the shape with which its loss is greatest at the moment; else one at random.
    The idea is that of adversarial masking for occluded faces; the choice among a few fixed shapes is ours.
    """

    shapes: tuple[str, ...]
    rate: float = 0.5
    adversarial: bool = False

    def __post_init__(self) -> None:
        check_range("--occlusion_rate", self.rate, 0, 1)
        for shape in self.shapes:
            check_choice("--occlusion_shapes", shape, (*SHAPES, *BLOCKS))
        if not self.shapes:
            raise UserError(f"--occlusion_shapes is empty. Name some of {', '.join(SHAPES)}.")


class OccludedForward:
    """A batch -> embeddings (B, D), with gradient, in training mode.

    points (B, 5, 2) in 0..1 of the images, NaN where not known: for blocks only.

    The last map (B, C, h, w) of some pictures is multiplied by a mask of 0 and 1 before the rest of the network. What
    is covered is a function of (seed, step), of the points and, where adversarial, of the weights. To choose by the
    loss, network and loss are in evaluation mode and without gradient, so that a picture's loss depends on that picture
    alone and no running statistic moves; every shape costs one more pass of the covered pictures through the last part.
    Up to the map it is `onednn.forward.training_map`. Raises UserError for a shape that so small a map is not made for,
    and for an adversarial choice with a loss that has no value for each picture.
    """

    def __init__(
        self, embedder: Embedder, loss: Loss, how: Occlusion, seed: int, onednn: bool, bfloat16: bool = False
    ) -> None:
        self.embedder, self.loss, self.how, self.seed = embedder, loss, how, seed
        self._to_map = training_map(embedder, embedder.spec.picture.shape[0], onednn, bfloat16)
        self._check_map()
        if how.adversarial and not hasattr(loss, "each"):
            raise UserError("--occlusion=adversarial needs a loss of each picture, against class centres. Take random.")

    def __call__(self, batch: Batch, points: Points | None = None) -> Tensor:
        last = self._to_map(paddle.to_tensor(batch.images))
        mask = paddle.to_tensor(self.masks(last.detach(), batch, points))
        return self.embedder.from_map(last * mask.unsqueeze(1))

    def masks(self, last: Tensor, batch: Batch, points: Points | None = None) -> Masks:
        """The masks (B, h, w) of a batch, whose last map is `last` (B, C, h, w).

        What is drawn, is drawn for the batch of all processes, of which this may be a part.
        """
        slots, whole = np.array(batch.places()), batch.whole or len(batch.labels)
        height, width = last.shape[2:]
        rng = keyed_rng(OCCLUDE, self.seed, batch.step)
        chosen = rng.random(whole)[slots] < self.how.rate
        boxes = None if points is None else block_boxes(points, *self.embedder.spec.picture.shape[1:])
        choice = self._candidates(whole, slots, height, width, rng, boxes)
        taken = rng.integers(len(choice), size=whole)[slots]
        if self.how.adversarial and len(choice) > 1:
            # Several processes find the loss together, so each needs as many pictures.
            rows = np.flatnonzero(chosen) if dist.size() == 1 else np.arange(len(slots))
            if len(rows):
                taken[rows] = self._worst(last, batch.labels, rows, choice[:, rows])
        masks: Masks = choice[taken, np.arange(len(slots))]
        masks[~chosen] = 1
        return masks

    def _candidates(
        self, whole: int, slots: NDArray[np.int64], height: int, width: int, rng: np.random.Generator, boxes: Any
    ) -> Masks:
        """The masks (K, b, h, w) that may be taken; boxes are those of the slots alone."""
        if boxes is None:
            return candidates(self.how.shapes, whole, height, width, rng)[:, slots]
        spread = {name: np.full((whole, 4), np.nan) for name in boxes}
        for name, box in boxes.items():
            spread[name][slots] = box
        return candidates(self.how.shapes, whole, height, width, rng, spread)[:, slots]

    def _worst(self, last: Tensor, names: Labels, rows: NDArray[np.int64], choice: Masks) -> NDArray[np.int64]:
        """Which of the masks (K, R, h, w) makes the loss of each of the R rows greatest; the first of equals."""
        last, labels = paddle.index_select(last, paddle.to_tensor(rows)), paddle.to_tensor(names[rows])
        mine = slice(len(rows) * dist.rank(), len(rows) * (dist.rank() + 1))
        self.embedder.eval()
        self.loss.eval()
        try:
            with paddle.no_grad():
                covered = (last * paddle.to_tensor(masks).unsqueeze(1) for masks in choice)
                found = [self._each(self.embedder.from_map(maps), labels)[mine] for maps in covered]
        finally:
            self.embedder.train()
            self.loss.train()
        worst: NDArray[np.int64] = np.stack(found).argmax(axis=0)
        return worst

    def _each(self, embeddings: Tensor, labels: Tensor) -> NDArray[np.float32]:
        """The loss of each picture of all processes."""
        found: NDArray[np.float32] = self.loss.each(dist.all_gather(embeddings), dist.all_gather(labels)).numpy()
        return found

    def _check_map(self) -> None:
        """A UserError for a shape that would cover nothing, or a block nearly all, of a map as small as this one."""
        picture = self.embedder.spec.picture
        training = self.embedder.training
        self.embedder.eval()
        with paddle.no_grad():
            height, width = self.embedder.backbone.to_map(paddle.zeros([1, *picture.shape])).shape[2:]
        if training:
            self.embedder.train()
        for shape in self.how.shapes:
            if shape in BLOCKS and min(height, width) < LEAST_MAP:
                why = f"and a block needs at least {LEAST_MAP}x{LEAST_MAP}"
            elif shape in SHAPES and candidates([shape], 1, height, width, _ANY).all():
                why = "so there is nothing to cover"
            else:
                continue
            raise UserError(
                f"--occlusion_shapes={shape}: the last map of {self.embedder.spec.model} is {height}x{width} at "
                f"{picture.shape[1]}x{picture.shape[2]} pixels, {why}. Make --image_shape larger or take other shapes."
            )


_ANY = np.random.default_rng(0)
