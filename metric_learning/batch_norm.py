"""Batch normalisation's statistics: taken over all processes together, averaged over them, or kept as they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from metric_learning import dist


def _running(network: nn.Layer) -> list[Tensor]:
    """The running means and variances of a network."""
    layers = network.sublayers(include_self=True)
    found = [getattr(layer, name, None) for layer in layers for name in ("_mean", "_variance")]
    return [value for value in found if isinstance(value, Tensor)]


def mean_statistics(network: nn.Layer) -> None:
    """Running statistics that each process has gathered from its own pictures -> their mean, on all processes."""
    for value in _running(network) if dist.size() > 1 else []:
        value.set_value(dist.all_sum(value) / dist.size())


@contextmanager
def still_statistics(network: nn.Layer) -> Iterator[None]:
    """Running statistics are behind it what they were before."""
    kept = [(value, value.clone()) for value in _running(network)]
    yield
    for value, before in kept:
        value.set_value(before)


def share_statistics(network: nn.Layer) -> nn.Layer:
    """The network, its layers normalising by the joined batch of all processes from now on, as one process would.

    On GPUs these are Paddle's own nn.SyncBatchNorm, which has no kernel for a CPU and knows no frozen statistics; there
    they are the layers below.
    """
    if dist.size() == 1:
        return network
    layers = [each for each in network.sublayers() if isinstance(each, nn.BatchNorm1D | nn.BatchNorm2D)]
    if paddle.get_device() != "cpu" and not any(layer._use_global_stats for layer in layers):
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for layer in layers:
        layer.__class__ = _shared(type(layer))
    return network


def _shared(kind: Any) -> Any:
    """The same kind of layer, its statistics shared in training."""
    return type(f"Shared{kind.__name__}", (kind,), {"forward": _forward, "plain": kind.forward})


def _forward(self, input):  # type: ignore[no-untyped-def]
    if not self.training or self._use_global_stats:
        return self.plain(input)
    return _shared_forward(self, input)


class _Normalise(PyLayer):
    """x (b, C, ...), weight and bias (C,), mean and variance (C,) of the joined batch -> normalised x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float
    ) -> Tensor:
        inverse = paddle.rsqrt(variance + epsilon)
        normal = (x - _across(mean, x)) * _across(inverse, x)
        ctx.save_for_backward(normal, weight, inverse)
        ctx.fixed = weight.stop_gradient, bias.stop_gradient
        return normal * _across(weight, x) + _across(bias, x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        normal, weight, inverse = ctx.saved_tensor()
        own = paddle.stack([_sum(slope), _sum(slope * normal)])
        shift, stretch = dist.all_sum(own) / (_count(slope) * dist.size())
        back = slope - _across(shift, slope) - normal * _across(stretch, slope)
        slopes = [None if fixed else value for fixed, value in zip(ctx.fixed, (own[1], own[0]), strict=True)]
        return back * _across(weight * inverse, slope), slopes[0], slopes[1], None, None


def _across(values: Tensor, x: Tensor) -> Tensor:
    """values (C,) in the shape that fits x (b, C, ...)."""
    return values.reshape([1, -1, *[1] * (len(x.shape) - 2)])


def _sum(x: Tensor) -> Tensor:
    """x (b, C, ...) -> the sum of each channel (C,)."""
    return x.sum(axis=[axis for axis in range(len(x.shape)) if axis != 1])


def _count(x: Tensor) -> int:
    return int(x.size // x.shape[1])


def _shared_forward(layer: Any, x: Tensor) -> Tensor:
    """Training mode: normalise by the joined batch, and move the running statistics by it (as Paddle: biased)."""
    x = x.astype("float32")
    with paddle.no_grad():
        count = _count(x) * dist.size()
        mean = dist.all_sum(_sum(x)) / count
        variance = dist.all_sum(_sum((x - _across(mean, x)) ** 2)) / count
        for running, now in ((layer._mean, mean), (layer._variance, variance)):
            running.set_value(layer._momentum * running + (1.0 - layer._momentum) * now)
    one, zero = paddle.ones_like(mean), paddle.zeros_like(mean)
    weight = one if layer.weight is None else layer.weight
    return _Normalise.apply(x, weight, zero if layer.bias is None else layer.bias, mean, variance, layer._epsilon)
