"""A run whose class centres are a pool: its loss, its sampler, its second network and its step."""

from collections.abc import Callable
from typing import Any

import paddle
from paddle import Tensor, nn

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.config import ElemOptions, TrainOptions
from metric_learning.data.loader import Batch
from metric_learning.data.pool_sampler import PoolSampler
from metric_learning.data.sources import PictureSet
from metric_learning.embedder import Embedder
from metric_learning.losses import PoolLoss, pool_loss
from metric_learning.onednn.forward import training_forward
from metric_learning.pool_step import PoolStep, gallery_of

GALLERY = "gallery"  # the name it has in checkpoints
SHARE = 0.1  # of the classes that the pool holds, if nothing is said


def pool_parts(config: ElemOptions, train: PictureSet, size: int) -> tuple[PoolLoss, PoolSampler, list[str]]:
    """The loss for embeddings of that size, the sampler, and what to say of them."""
    pairs = config.train_batch_size // 2
    if pairs % dist.size():
        raise UserError(
            f"--train_batch_size={config.train_batch_size} must be a multiple of {2 * dist.size()} for --centers=pool "
            f"with {dist.size()} processes: each takes whole pairs."
        )
    slots = slots_of(config, len(train.classes))
    loss = pool_loss(
        config.loss_name,
        config.class_dim or len(train.classes),
        size,
        slots,
        focal_gamma=config.focal_gamma,
        dropout=config.dropout,
        **config.margin_settings(),
    )
    sampler = PoolSampler(train.labels, config.train_batch_size, config.identity_share, config.seed)
    same = int(sampler.of_identity.sum())
    notes = [f"Pool: {slots} slots for {len(train.classes)} classes; {same} of {pairs} pairs are of one identity."]
    if sampler.single:
        notes.append(f"{sampler.single} classes have a single picture: a pair of theirs is that one, augmented anew.")
    return loss, sampler, notes


def slots_of(config: ElemOptions, classes: int) -> int:
    """How many identities the pool holds: as typed, else a tenth of the classes, and room for all of half a batch."""
    needed = min(config.train_batch_size // 2, classes)
    if config.pool_size is None:
        return max(needed, round(SHARE * classes))
    if config.pool_size < needed:
        raise UserError(
            f"--pool_size={config.pool_size} is less than the {needed} identities that half a batch may bring; "
            f"set it to {needed} or more, or lower --train_batch_size."
        )
    return config.pool_size


def further_networks(config: TrainOptions, embedder: Embedder) -> dict[str, nn.Layer]:
    """The gallery network of a pool, by its name in checkpoints; nothing for other class centres."""
    return {GALLERY: gallery_of(embedder)} if isinstance(config, ElemOptions) and config.centers == "pool" else {}


def pool_step(
    config: ElemOptions,
    embedder: Embedder,
    gallery: nn.Layer,
    forward: Callable[[Batch], Tensor],
    fast: tuple[bool, bool],
    loss: PoolLoss,
    **how: Any,
) -> PoolStep:
    """The step; the gallery sees its pictures as they are, whatever `forward` covers of them.

    fast: whether it computes through oneDNN, and in bfloat16.
    """
    gallery.train()
    plain = training_forward(gallery, embedder.spec.picture.shape[0], *fast)

    def made(batch: Batch) -> Tensor:
        return plain(paddle.to_tensor(batch.images))

    return PoolStep(embedder, gallery, forward, made, loss, config.seed, config.pool_momentum, **how)
