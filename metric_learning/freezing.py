"""Which parts of a network stay as they are while the rest is fine-tuned."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import paddle
from paddle import nn

from metric_learning.checks import UserError
from metric_learning.embedder import Embedder

_NORMS = (nn.BatchNorm1D, nn.BatchNorm2D)
_COUNTED = (nn.Conv2D, nn.Linear)


def freeze(embedder: Embedder, what: str) -> None:
    """what: 'none'; 'norms': batch normalisation keeps its running statistics in training too, scale and shift learn;
    'backbone': that, and all weights up to the last feature map stay, so only what is behind it learns.

    Few pictures are enough for the last layers, and not for statistics that a large set has left behind. Raises
    UserError where nothing is behind the map. Call it before the optimizer is made.
    """
    if what == "none":
        return
    _keep_statistics(embedder.sublayers())
    if what == "norms":
        return
    behind = _behind_the_map(embedder)
    if not behind:
        raise UserError(
            f"--freeze=backbone leaves nothing of {embedder.spec.model} to learn with --embedding_size=0. "
            "Name an --embedding_size, or take --freeze=norms."
        )
    for name, parameter in embedder.named_parameters():
        parameter.stop_gradient = parameter.stop_gradient or name not in behind


def freeze_layers(embedder: Embedder, count: int) -> None:
    """The first `count` convolution and linear layers stay as they are: weights, and all that is computed before the
    next such layer (normalisations with their running statistics, activations that learn, tokens).

    First is what a picture goes through first; depthwise convolutions and the layer of --embedding_size count as well.
    count 0: none. Raises UserError where no such layer is left. Call it before the optimizer is made.
    """
    if count == 0:
        return
    order = _computed(embedder)
    places = [place for place, layer in enumerate(order) if isinstance(layer, _COUNTED)]
    if count >= len(places):
        raise UserError(
            f"--freeze_layers={count} leaves nothing of {embedder.spec.model} to learn: it has {len(places)} "
            f"convolution and linear layers. Take at most {len(places) - 1}."
        )
    still = order[: places[count]]
    _keep_statistics(still)
    for layer in still:
        for parameter in layer.parameters(include_sublayers=False):
            parameter.stop_gradient = True


def learning(network: nn.Layer) -> str:
    """How many of a network's parameters (numbers, not arrays) learn, in words; running statistics are none of them."""
    named = [(name, p) for name, p in network.named_parameters() if not name.endswith(("._mean", "._variance"))]
    total = sum(math.prod(p.shape) for _, p in named)
    moving = sum(math.prod(p.shape) for _, p in named if not p.stop_gradient)
    return f"{moving:,} of the network's {total:,} parameters learn."


def _keep_statistics(layers: list[nn.Layer]) -> None:
    for layer in layers:
        if isinstance(layer, _NORMS):
            layer._use_global_stats = True  # what its constructor's use_global_stats sets


def _computed(embedder: Embedder) -> list[nn.Layer]:
    """The layers that have parameters of their own, in the order in which they are come to."""
    found: dict[int, nn.Layer] = {}

    def come_to(layer: nn.Layer, given: Any) -> None:
        found.setdefault(id(layer), layer)

    own = [layer for layer in embedder.sublayers() if layer.parameters(include_sublayers=False)]
    hooks = [layer.register_forward_pre_hook(come_to) for layer in own]
    with _evaluating(embedder), paddle.no_grad():
        embedder(paddle.zeros([1, *embedder.spec.picture.shape]))
    for hook in hooks:
        hook.remove()
    return list(found.values())


@contextlib.contextmanager
def _evaluating(embedder: Embedder) -> Iterator[None]:
    """Evaluation mode inside, training mode again behind it if it was on."""
    training = embedder.training
    embedder.eval()
    yield
    if training:
        embedder.train()


def _behind_the_map(embedder: Embedder) -> set[str]:
    """The names of the parameters that the way from the last feature map to the embedding goes through."""
    with _evaluating(embedder):
        with paddle.no_grad():
            last = embedder.backbone.to_map(paddle.zeros([1, *embedder.spec.picture.shape]))
        embedder.from_map(last).sum().backward()
        found = {name for name, parameter in embedder.named_parameters() if parameter.grad is not None}
        embedder.clear_gradients()
    return found
