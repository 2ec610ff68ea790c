"""Which parts of a network stay as they are while the rest is fine-tuned."""

import paddle
from paddle import nn

from metric_learning.checks import UserError
from metric_learning.embedder import Embedder

_NORMS = (nn.BatchNorm1D, nn.BatchNorm2D)


def freeze(embedder: Embedder, what: str) -> None:
    """what: 'none'; 'norms': batch normalisation keeps its running statistics in training too, scale and shift learn;
    'backbone': that, and all weights up to the last feature map stay, so only what is behind it learns.

    Few pictures are enough for the last layers, and not for statistics that a large set has left behind. Raises
    UserError where nothing is behind the map. Call it before the optimizer is made.
    """
    if what == "none":
        return
    for layer in embedder.sublayers():
        if isinstance(layer, _NORMS):
            layer._use_global_stats = True  # what its constructor's use_global_stats sets
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


def _behind_the_map(embedder: Embedder) -> set[str]:
    """The names of the parameters that the way from the last feature map to the embedding goes through."""
    training = embedder.training
    embedder.eval()
    with paddle.no_grad():
        last = embedder.backbone.to_map(paddle.zeros([1, *embedder.spec.picture.shape]))
    embedder.from_map(last).sum().backward()
    found = {name for name, parameter in embedder.named_parameters() if parameter.grad is not None}
    embedder.clear_gradients()
    if training:
        embedder.train()
    return found
