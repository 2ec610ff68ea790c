"""The fast way through a network in training on a CPU: its trunk as oneDNN primitives, the rest as a graph."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.static import InputSpec

from metric_learning.onednn.library import OneDnnError
from metric_learning.onednn.trunk import Trunk
from metric_learning.runtime import onednn_works

Forward = Callable[[Tensor], Tensor]

_CONVOLUTIONS = ("conv2d", "depthwise_conv2d")


def training_forward(net: nn.Layer, channels: int, onednn: bool, bfloat16: bool = False) -> Forward:
    """net as a function images (B, channels, H, W) -> (B, D) with gradient, as fast as it can be had on this device.

    A network of two parts, to_map and from_map, has the first as a `Trunk` of oneDNN primitives (in bfloat16 if so
    asked), the second as a traced graph. Where the trunk has operators that are not known there, the whole is a traced
    graph of Paddle's, its convolutions by oneDNN. The function shares the parameters of `net`; in evaluation mode, on a
    GPU and without `onednn` it is the eager network. `runtime.prepare(onednn=True)` must have come before the import of
    Paddle.
    """
    if not _right(onednn):
        return net  # type: ignore[no-any-return]
    if not hasattr(net, "to_map"):
        return _Modes(net, net, _Traced(net.forward, channels))
    to_map = training_map(net, channels, onednn, bfloat16)
    from_map = _Traced(net.from_map, None)
    return _Modes(net, net, lambda images: from_map(to_map(images)))


def training_map(net: Any, channels: int, onednn: bool, bfloat16: bool = False) -> Forward:
    """The first part of a network, net.to_map, likewise: images (B, channels, H, W) -> its last map (B, C, h, w)."""
    if not _right(onednn):
        return net.to_map  # type: ignore[no-any-return]
    return _Modes(net, net.to_map, _FirstOf(net.to_map, channels, bfloat16))


def _right(onednn: bool) -> bool:
    return onednn and onednn_works() and paddle.get_device() == "cpu"


class _Modes:
    """One function for training, another for evaluation: oneDNN may keep weights of an earlier step for that."""

    def __init__(self, net: nn.Layer, evaluating: Forward, training: Forward) -> None:
        self.net, self.evaluating, self.training = net, evaluating, training

    def __call__(self, images: Tensor) -> Tensor:
        return self.training(images) if self.net.training else self.evaluating(images)


class _FirstOf:
    """The trunk; from the first batch that it does not know how to compute on, the traced graph."""

    def __init__(self, function: Any, channels: int, bfloat16: bool) -> None:
        self.function, self.channels, self.bfloat16 = function, channels, bfloat16
        self.chosen: Forward | None = None

    def __call__(self, images: Tensor) -> Tensor:
        try:
            if self.chosen is None:
                self.chosen = Trunk(self.function, self.channels, self.bfloat16)
            return self.chosen(images)
        except OneDnnError as error:
            print(f"Not by oneDNN's primitives but as Paddle's graph, in float32: {error}", file=sys.stderr, flush=True)
            self.chosen = _Traced(self.function, self.channels)
            return self.chosen(images)


class _Traced:
    """A function of one Tensor (B, channels, H, W) as Paddle's static graph, its convolutions by oneDNN.

    channels None: those of the first Tensor that comes.
    """

    def __init__(self, function: Any, channels: int | None) -> None:
        self.function, self.channels = function, channels
        self.static: Any = None

    def __call__(self, images: Tensor) -> Tensor:
        with _onednn_convolutions():  # tracing happens inside the first call
            if self.static is None:
                spec = [InputSpec([None, self.channels or images.shape[1], None, None], "float32", "images")]
                self.static = paddle.jit.to_static(self.function, input_spec=spec, full_graph=True)
            made: Tensor = self.static(images)
        return made


@contextlib.contextmanager
def _onednn_convolutions() -> Iterator[None]:
    """Every convolution that is appended to a static program asks for the oneDNN kernel; its gradient inherits that."""
    block = paddle.base.framework.Block
    plain = block.append_op

    def append_op(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        if kwargs.get("type") in _CONVOLUTIONS and kwargs.get("attrs") is not None:
            kwargs["attrs"] = dict(kwargs["attrs"], use_mkldnn=True)
        return plain(self, *args, **kwargs)

    block.append_op = append_op
    try:
        yield
    finally:
        block.append_op = plain
