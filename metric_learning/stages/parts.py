"""Loss, sampler and optimizer of a stage, from its options and its training pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor, nn

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.config import ElemOptions, PairOptions, TrainOptions
from metric_learning.data.group_samplers import GroupClassSampler
from metric_learning.data.landmarks import ALIGNED, aligned_points, listed_points, seen
from metric_learning.data.loader import Batch, own_slots
from metric_learning.data.samplers import ClassSampler, QuadrupletSampler, Sampler, ShuffleSampler, TripletSampler
from metric_learning.data.sources import PictureSet
from metric_learning.data.transforms import Points
from metric_learning.embedder import Embedder
from metric_learning.losses import ElementLoss, MemoryLoss, element_loss, pair_loss
from metric_learning.losses.base import Loss
from metric_learning.losses.class_weights import balanced_weights, named_weights
from metric_learning.occlusion import OccludedForward, Occlusion
from metric_learning.onednn.forward import training_forward
from metric_learning.optimizer import Optimizer
from metric_learning.runtime import computes_bfloat16, onednn_works
from metric_learning.stages import grouping, pooling, setup

Forward = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Parts:
    """What a stage trains with, beside the network."""

    loss: Loss
    sampler: Sampler
    notes: list[str]


def check_division(config: TrainOptions) -> None:
    """Raise a UserError for a batch that can't be divided among the processes, or their parts not into pieces."""
    own = own_slots(config.train_batch_size, (dist.rank(), dist.size()))
    if config.accumulate > own.stop - own.start:
        raise UserError(
            f"--accumulate={config.accumulate} must be at most {own.stop - own.start}, what each of {dist.size()} "
            f"processes has of --train_batch_size={config.train_batch_size}."
        )


def parts(config: TrainOptions, train: PictureSet, size: int) -> Parts:
    if isinstance(config, ElemOptions):
        return _elem_parts(config, train, size)
    assert isinstance(config, PairOptions)
    return _pair_parts(config, train, size)


def _elem_parts(config: ElemOptions, train: PictureSet, size: int) -> Parts:
    notes = [f"--{name} has no effect with --loss_name={config.loss_name}." for name in config.unused()]
    counted = len(train.classes)
    if config.class_dim is not None and config.class_dim < counted:
        raise UserError(f"--class_dim={config.class_dim} is less than the {counted} classes to train on. Leave it out.")
    if config.class_dim is not None and config.class_dim != counted:
        notes.append(
            f"--class_dim={config.class_dim}, but there are {counted} classes to train on: the rest stay empty."
        )
    if config.train_batch_size > len(train):
        notes.append(
            f"--train_batch_size={config.train_batch_size} is more than the {len(train)} pictures to train on: "
            "each comes more than once in a batch, augmented anew."
        )
    if config.centers == "pool":
        pool, pairs, said = pooling.pool_parts(config, train, size)
        return Parts(pool, pairs, notes + said)
    loss = element_loss(
        config.loss_name,
        config.class_dim or counted,
        size,
        focal_gamma=config.focal_gamma,
        dropout=config.dropout,
        centers=config.centers,
        partial_rate=config.partial_rate,
        label_smoothing=config.label_smoothing,
        class_weights=_class_weights(config, train),
        **config.margin_settings(),
    )
    by_group, said = grouping.with_group_margins(config, loss, train)
    notes += said
    if config.balance == "groups":
        balanced, line = grouping.balanced_pictures(config, train)
        return Parts(by_group, balanced, [*notes, line])
    return Parts(by_group, ShuffleSampler(len(train), config.train_batch_size, config.seed), notes)


def _class_weights(config: ElemOptions, train: PictureSet) -> list[float] | None:
    """What each class weighs in the loss; those that --class_dim adds stay empty."""
    if config.class_weights is None:
        return None
    if config.balances_classes:
        weights = balanced_weights(train.class_counts())
    else:
        weights = named_weights(train.classes, config.named_class_weights())
    return [*weights.tolist(), *[1.0] * ((config.class_dim or 0) - len(weights))]


def _pair_parts(config: PairOptions, train: PictureSet, size: int) -> Parts:
    notes = [f"--{name} has no effect with --loss_name={config.loss_name}." for name in config.unused()]
    plain = pair_loss(config.loss_name, **config.loss_settings())
    loss: Loss = plain
    if config.memory_size:
        loss = MemoryLoss(plain, size, config.memory_size, config.memory_start)
    if config.rows_given:
        rows = TripletSampler if config.loss_name == "triplet" else QuadrupletSampler
        return Parts(loss, rows(train.labels, config.train_batch_size, config.seed), notes)
    if config.train_batch_size < 2 * config.samples_each_class:
        raise UserError(
            f"--train_batch_size={config.train_batch_size} with --samples_each_class={config.samples_each_class} holds "
            "a single class, so no pair of different ones to learn from. Make it at least "
            f"{2 * config.samples_each_class}."
        )
    sampler: ClassSampler | GroupClassSampler
    if config.balance == "groups":
        sampler, line = grouping.balanced_classes(config, train)
        notes.append(line)
    else:
        sampler = ClassSampler(train.labels, config.train_batch_size, config.samples_each_class, config.seed)
    if sampler.left_out:
        notes.append(
            f"{sampler.left_out} classes have a single picture and take no part: they can't give a positive pair."
        )
    if sampler.small:
        notes.append(
            f"{sampler.small} classes have fewer than --samples_each_class={config.samples_each_class} pictures: "
            "theirs come more than once in a batch, each time augmented anew."
        )
    return Parts(loss, sampler, notes)


def forward_of(config: TrainOptions, embedder: Embedder, loss: Loss, train: PictureSet, say: setup.Say) -> Forward:
    """A training batch -> its embeddings (B, D), with parts of the last map covered where that is asked for."""
    if config.occlusion == "none":
        channels = embedder.spec.picture.shape[0]
        plain = training_forward(embedder, channels, by_onednn(config), in_bfloat16(config))
        return lambda batch: plain(paddle.to_tensor(batch.images))
    how = Occlusion(config.shapes(), config.occlusion_rate, config.occlusion == "adversarial")
    covered = OccludedForward(embedder, loss, how, config.seed, by_onednn(config), in_bfloat16(config))
    points = _points_of(config, train, say)
    return lambda batch: covered(batch, points(batch))


def by_onednn(config: TrainOptions) -> bool:
    """Whether to train through oneDNN: a traced network can't exchange sums with other processes."""
    return config.onednn and not config.recompute and not (dist.size() > 1 and config.sync_bn)


def in_bfloat16(config: TrainOptions) -> bool:
    """Whether the network's maps are bfloat16 on a CPU."""
    able = paddle.get_device() == "cpu" and onednn_works() and computes_bfloat16()
    return config.amp == "bfloat16" and by_onednn(config) and able


def _points_of(config: TrainOptions, train: PictureSet, say: setup.Say) -> Callable[[Batch], Points | None]:
    """A training batch -> where its images show the five points (B, 5, 2), in 0..1; None without --landmarks."""
    if config.landmarks is None:
        return lambda batch: None
    if config.landmarks == ALIGNED:
        return lambda batch: seen(aligned_points(batch.windows), batch.windows)
    place = Path(config.data_dir or setup.DEMO_FOLDER)
    points = listed_points(Path(config.landmarks), place.parent if place.is_file() else place, train.paths)
    missing = int(np.isnan(points).any(axis=(1, 2)).sum())
    if missing:
        say(f"{missing} of {len(train)} pictures have no landmarks; blocks cover nothing of them.")
    return lambda batch: seen(points[batch.indices], batch.windows)


def averaged(config: TrainOptions, embedder: Embedder, loss: Loss) -> nn.Layer:
    """What --ema averages: the network, and where classes are judged their centres with it."""
    if not setup.division_of(vars(config)):
        return embedder
    assert isinstance(loss, ElementLoss)
    return nn.LayerDict({"embedder": embedder, "centers": loss.centers})


def optimizer(config: TrainOptions, embedder: Embedder, loss: Loss) -> Optimizer:
    return Optimizer(
        config.optimizer,
        embedder,
        loss,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        scaling=config.amp == "float16" and paddle.get_device() != "cpu",
    )
