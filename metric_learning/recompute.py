"""Gradient checkpointing: a backbone's blocks keep only what goes into them, and are computed again on the way back."""

import functools
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.distributed.fleet.utils import recompute

from metric_learning.batch_norm import still_statistics


def recompute_blocks(network: nn.Layer) -> int:
    """From now on, in training, the blocks of the network are recomputed (Chen et al., arXiv 1604.06174); their number.

    Blocks are what stands in a row in its outermost nn.Sequential layers and is made of layers itself. Gradients and
    running statistics stay what they are. A network without blocks (VGG16) is left as it is.
    """
    found = _blocks(network)
    for block in found:
        block.__class__ = _recomputed(type(block))
    return len(found)


def _blocks(layer: nn.Layer) -> list[nn.Layer]:
    found = []
    for child in layer.children():
        inner = _blocks(child) if isinstance(child, nn.Sequential) or not isinstance(layer, nn.Sequential) else []
        whole = isinstance(layer, nn.Sequential) and child.sublayers() and not inner
        found += [child] if whole else inner
    return found


def _recomputed(kind: Any) -> Any:
    """The same kind of layer, recomputed in training."""
    return type(f"Recomputed{kind.__name__}", (kind,), {"forward": _forward, "plain": kind.forward})


def _forward(self, input):  # type: ignore[no-untyped-def]
    # What pictures go into has to keep its results: recompute only starts from something that a gradient reaches.
    if not self.training or not paddle.is_grad_enabled() or input.stop_gradient:
        return self.plain(input)
    return recompute(functools.partial(_compute, self), input, preserve_rng_state=False)


def _compute(block: Any, x: Tensor) -> Tensor:
    if not paddle.is_grad_enabled():  # the first time
        return block.plain(x)
    with still_statistics(block):
        return block.plain(x)
