"""The loss and the gradients of one step: of a whole batch or piece by piece, on one process or several."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from metric_learning import dist
from metric_learning.batch_norm import still_statistics
from metric_learning.data.loader import Batch
from metric_learning.losses.base import Loss

Forward = Callable[[Batch], Tensor]
Extra = Callable[[Tensor, Batch], Tensor]


class Step:
    """A batch of this process -> the loss of the batches of all processes together; its gradients are left in place.

    forward gives a batch's embeddings (b, D). The loss sees those of all processes at once, in the order of the ranks,
    so that N processes find what one finds on the joined batch. beside(embeddings, batch) is a mean over the samples
    that is added (a teacher's part).

    pieces > 1 is gradient accumulation that equals the whole batch for every loss (Gao et al., arXiv 2101.06983): each
    piece is embedded without a graph, the loss of all of them gives the gradient of each embedding, and each piece is
    embedded again to take its own further back. It costs one more forward pass; only batch normalisation differs, whose
    statistics are those of a piece. scale multiplies the gradients (not the loss that is returned); autocast: what
    forward runs in.
    """

    def __init__(
        self,
        network: nn.Layer,
        forward: Forward,
        loss: Loss,
        seed: int,
        beside: Extra | None = None,
        pieces: int = 1,
        autocast: dict[str, Any] | None = None,
        scale: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.network, self.forward, self.loss, self.seed = network, forward, loss, seed
        self.beside, self.pieces, self.autocast, self.scale = beside, pieces, autocast or {"enable": False}, scale

    def __call__(self, batch: Batch) -> float:
        if self.pieces == 1:
            value = self._loss(self._embed(batch, 0), batch)
            (value * self.scale()).backward()
            return float(value.item())
        parts = list(pieces_of(batch, self.pieces))
        with paddle.no_grad(), still_statistics(self.network):
            found = paddle.concat([self._embed(part, place) for place, part in enumerate(parts)])
        found = found.detach()
        found.stop_gradient = False
        value = self._loss(found, batch)
        (value * self.scale()).backward()
        slopes = paddle.split(found.grad.detach(), [len(part.labels) for part in parts])
        for place, (part, slope) in enumerate(zip(parts, slopes, strict=True)):
            (self._embed(part, place) * slope).sum().backward()
        return float(value.item())

    def _embed(self, batch: Batch, place: int) -> Tensor:
        return embedded(self.forward, batch, self.seed, dist.rank() * self.pieces + place, self.autocast)

    def _loss(self, embeddings: Tensor, batch: Batch) -> Tensor:
        seed_loss(self.seed, batch.step)
        value: Tensor = self.loss(
            dist.gather_with_gradient(embeddings), dist.all_gather(paddle.to_tensor(batch.labels))
        )
        if self.beside is not None:
            value = value + dist.sum_with_gradient(self.beside(embeddings, batch) / dist.size())
        return value


def embedded(forward: Forward, batch: Batch, seed: int, place: int, autocast: dict[str, Any]) -> Tensor:
    """The embeddings (b, D) float32; what is random in the network depends on seed, step and place alone."""
    paddle.seed(int(np.random.SeedSequence((seed, batch.step, place)).generate_state(1)[0]) % 2**31)
    with paddle.amp.auto_cast(**autocast):
        return forward(batch).astype("float32")


def seed_loss(seed: int, step: int) -> None:
    """What is random in the loss of a step depends on these two, and is alike on all processes."""
    paddle.seed((seed * 1_000_003 + step) % 2**31)


def pieces_of(batch: Batch, count: int) -> Iterator[Batch]:
    """The batch in `count` pieces, one after the other, even to one picture."""
    total = len(batch.labels)
    for number in range(count):
        yield batch.part(slice(total * number // count, total * (number + 1) // count))
