"""The step of a pool of class centres: a network, a slowly moving copy that makes the centres, and two passes."""

import copy
from collections.abc import Callable
from typing import Any

import paddle
from paddle import Tensor, nn

from metric_learning import dist
from metric_learning.data.loader import Batch
from metric_learning.losses.pool import PoolLoss
from metric_learning.step import Extra, Forward, embedded, seed_loss

STATISTICS = ("_mean", "_variance")


class PoolStep:
    """A batch of this process -> the loss of the batches of all processes together; its gradients are left in place.

    Wang et al., arXiv 2105.10375. The batch is pairs (x_i, y_i) side by side, as PoolSampler has them. First the
    gallery network follows the network, once a step; then the network's x against the gallery's y, which the pool
    forgets again; then its y against the gallery's x, which the pool keeps. The loss is the sum of both passes.

    forward and gallery_forward give a batch's embeddings (b, D). Both networks are in training mode: as in the authors'
    code the gallery normalises by its own batch's statistics, and its running statistics, which nothing reads, are its
    own. The gallery has no gradient. beside(embeddings, batch) is a mean over the samples that is added (a teacher's
    part), once for the whole batch. scale multiplies the gradients; autocast: what both networks run in.
    """

    def __init__(
        self,
        network: nn.Layer,
        gallery: nn.Layer,
        forward: Forward,
        gallery_forward: Forward,
        loss: PoolLoss,
        seed: int,
        momentum: float = 0.99,
        beside: Extra | None = None,
        autocast: dict[str, Any] | None = None,
        scale: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.network, self.gallery, self.loss, self.seed, self.momentum = network, gallery, loss, seed, momentum
        self.forward, self.gallery_forward, self.beside = forward, gallery_forward, beside
        self.autocast, self.scale = autocast or {"enable": False}, scale

    def __call__(self, batch: Batch) -> float:
        follow(self.gallery, self.network, self.momentum)
        x, y = halves(batch)
        return self._pass(x, y, keep=False) + self._pass(y, x, keep=True)

    def _pass(self, probes: Batch, others: Batch, keep: bool) -> float:
        with paddle.no_grad():
            features = self._embed(self.gallery_forward, others, 1)
        embeddings = self._embed(self.forward, probes, 0)
        seed_loss(self.seed, probes.step)
        value: Tensor = self.loss(
            dist.gather_with_gradient(embeddings), _labels(probes), dist.all_gather(features), _labels(others), keep
        )
        if self.beside is not None:
            value = value + dist.sum_with_gradient(self.beside(embeddings, probes) / (2 * dist.size()))
        (value * self.scale()).backward()
        return float(value.item())

    def _embed(self, forward: Forward, batch: Batch, which: int) -> Tensor:
        return embedded(forward, batch, self.seed, 2 * dist.rank() + which, self.autocast)


def _labels(batch: Batch) -> Tensor:
    return dist.all_gather(paddle.to_tensor(batch.labels))


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Pairs side by side -> their first and their second pictures, as batches of steps 2 s and 2 s + 1."""
    first, second = (batch.part(slice(side, None, 2)) for side in (0, 1))
    return first._replace(step=2 * batch.step), second._replace(step=2 * batch.step + 1)


def gallery_of(network: nn.Layer) -> nn.Layer:
    """A copy of the network in its mode, without gradients. Make it before the network is traced."""
    made = copy.deepcopy(network)
    for parameter in made.parameters():
        parameter.stop_gradient = True
    return made


def same_as(gallery: nn.Layer, network: nn.Layer) -> None:
    """Weights and running statistics of the network -> the gallery."""
    for own, value in _pairs(gallery, network, statistics=True):
        own.set_value(value)


def follow(gallery: nn.Layer, network: nn.Layer, momentum: float) -> None:
    """gallery <- momentum gallery + (1 - momentum) network, each weight; running statistics stay (see PoolStep)."""
    with paddle.no_grad():
        for own, value in _pairs(gallery, network, statistics=False):
            paddle.assign(momentum * own + (1.0 - momentum) * value, own)


def _pairs(gallery: nn.Layer, network: nn.Layer, statistics: bool) -> list[tuple[Tensor, Tensor]]:
    """(the gallery's, the network's) of each name."""
    own, values = gallery.state_dict(), network.state_dict()
    return [(own[name], value) for name, value in values.items() if statistics or not name.endswith(STATISTICS)]
