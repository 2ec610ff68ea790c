"""Operators of Paddle's traced networks as oneDNN primitives: each adds its part to a plan and gives its way back."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from paddle import Tensor

from metric_learning.onednn import library as dnn
from metric_learning.onednn.folding import ACTIVATIONS, pads_of
from metric_learning.onednn.library import Buffer, Description, Layout, Memory, OneDnnError, Window
from metric_learning.onednn.plan import Back, Operator, Plan, Value


def nothing() -> None:
    """The way back of what has none."""


def convolution(plan: Plan, op: Operator) -> Back:
    x, name = plan.values[op.given("Input")], op.given("Filter")
    groups = op.attributes["groups"]
    if list(op.attributes["dilations"]) != [1, 1]:
        raise OneDnnError("dilated convolutions are not known.")
    shape = plan.parameters[name].shape
    dims = shape if groups == 1 else [groups, shape[0] // groups, *shape[1:]]
    window = Window(shape[2:], op.attributes["strides"], pads_of(op.attributes))
    y_dims = [x.layout.dims[0], shape[0], *window.over(x.layout.dims[2:])]
    bias = op.inputs.get("Bias") or None
    any_x, any_w, any_y = plan.layout(x.layout.dims), plan.layout(dims), plan.layout(y_dims)
    flat = Layout([shape[0]])
    forward = dnn.convolution(any_x, any_w, flat if bias else None, any_y, window)
    x_here = plan.reordered(x.memory, forward.wants(dnn.SRC, x.layout.dims, plan.kind))
    weight = plan.weight(name, dims, forward.wants(dnn.WEIGHTS, dims, plan.kind))
    learns = x.learns or name in plan.learning or bool(bias and bias[0] in plan.learning)
    y = plan.value(op.made("Output"), forward.wants(dnn.DST, y_dims, plan.kind), learns)
    places = {dnn.SRC: x_here, dnn.WEIGHTS: weight, dnn.DST: y}
    if bias:
        places[dnn.BIAS] = plan.weight(bias[0], [shape[0]])
    plan.run(forward, places)

    def back() -> None:
        dy = plan.take_gradient(op.made("Output"))
        if name in plan.learning or (bias and bias[0] in plan.learning):
            _weight_slopes(plan, op, window, forward, x_here, dy)
        if x.learns:
            # In the orders that are there: left to choose, oneDNN 3.6 takes a slower kernel where the stride is not 1.
            given = dnn.convolution_data(x.layout, any_w, dy.layout, window, forward)
            if given.slow:  # these orders together, in bfloat16 with AMX
                given = dnn.convolution_data(any_x, any_w, any_y, window, forward)
            dy_here = plan.reordered(dy, given.wants(dnn.DIFF_DST, y_dims, plan.kind))
            dx = plan.pool.take(given.wants(dnn.DIFF_SRC, x.layout.dims, plan.kind))
            turned = plan.again(name, given.wants(dnn.WEIGHTS, dims, plan.kind))
            plan.run(given, {dnn.DIFF_DST: dy_here, dnn.WEIGHTS: turned, dnn.DIFF_SRC: dx})
            _let_go_copy(plan, dy, dy_here)
            plan.add_gradient(op.given("Input"), dx)
        plan.pool.let_go(dy)

    return back if learns else nothing


def _weight_slopes(plan: Plan, op: Operator, window: Window, forward: Description, x: Memory, dy: Memory) -> None:
    name, bias = op.given("Filter"), op.inputs.get("Bias") or None
    dims = plan.plain[name].layout.dims
    any_x, any_y = plan.layout(x.layout.dims), plan.layout(dy.layout.dims)
    flat = Layout([dy.layout.dims[1]]) if bias else None
    given = dnn.convolution_weights(any_x, plan.layout(dims, dnn.FLOAT32), flat, any_y, window, forward)
    x_here = plan.reordered(x, given.wants(dnn.SRC, x.layout.dims, plan.kind))
    dy_here = plan.reordered(dy, given.wants(dnn.DIFF_DST, dy.layout.dims, plan.kind))
    made = plan.pool.take(given.wants(dnn.DIFF_WEIGHTS, dims, dnn.FLOAT32))
    places = {dnn.SRC: x_here, dnn.DIFF_DST: dy_here, dnn.DIFF_WEIGHTS: made}
    if bias:
        places[dnn.DIFF_BIAS] = _slope(plan, bias[0])
    plan.run(given, places)
    if name in plan.learning:
        plan.copy(made, plan.slope_of(name))
    plan.pool.let_go(made)
    _let_go_copy(plan, x, x_here)
    _let_go_copy(plan, dy, dy_here)


def _slope(plan: Plan, name: str) -> Memory:
    """Where a primitive may write the gradient of a parameter, learns it or not."""
    if name in plan.learning:
        return plan.slope_of(name)
    layout = plan.plain[name].layout
    return Memory(layout, Buffer(layout.size))


def _let_go_copy(plan: Plan, memory: Memory, here: Memory) -> None:
    if here is not memory:
        plan.pool.let_go(here)


def normalisation(plan: Plan, op: Operator) -> Back:
    """Batch normalisation, with the ReLU behind it where the reader of the network has put that into `fused`."""
    x, attributes = plan.values[op.given("X")], op.attributes
    channels = x.layout.dims[1]
    frozen = attributes["is_test"] or attributes["use_global_stats"]
    flags = dnn.SCALE_AND_SHIFT | (dnn.GLOBAL_STATISTICS if frozen else 0)
    flags |= dnn.FUSED_RELU if attributes.get("fused") else 0
    epsilon = attributes["epsilon"]
    forward = dnn.normalisation(x.layout, x.layout, epsilon, flags)
    scale, shift = (plan.weight(op.given(slot), [channels]) for slot in ("Scale", "Bias"))
    own = bool({op.given("Scale"), op.given("Bias")} & plan.learning)
    y = plan.value(op.made("Y"), x.layout, x.learns or own)
    if frozen:
        mean, variance = (plan.weight(op.given(slot), [channels]) for slot in ("Mean", "Variance"))
    else:
        found = [Buffer(4 * channels) for _ in range(2)]
        mean, variance = (Memory(Layout([channels]), buffer) for buffer in found)
    places = {dnn.SCALE: scale, dnn.SHIFT: shift, dnn.MEAN: mean, dnn.VARIANCE: variance}
    if attributes.get("fused"):
        layout = forward.wants(dnn.WORKSPACE, (), dnn.FLOAT32)
        places[dnn.WORKSPACE] = Memory(layout, Buffer(layout.size))
    plan.run(forward, {dnn.SRC: x.memory, dnn.DST: y, **places})
    if not frozen:
        running = [plan.parameters[op.given(slot)] for slot in ("Mean", "Variance")]
        plan.call(lambda: _move(running, found, channels, attributes["momentum"]))

    def back() -> None:
        dy = plan.take_gradient(op.made("Y"))
        description = dnn.normalisation_backward(x.layout, dy.layout, x.layout, epsilon, flags, forward)
        dx = plan.over(dy)
        slopes = {dnn.DIFF_SCALE: _slope(plan, op.given("Scale")), dnn.DIFF_SHIFT: _slope(plan, op.given("Bias"))}
        kept = {place: memory for place, memory in places.items() if place != dnn.SHIFT}
        plan.run(description, {dnn.SRC: x.memory, dnn.DIFF_DST: dy, dnn.DIFF_SRC: dx, **kept, **slopes})
        plan.pool.let_go(dy)
        plan.add_or_let_go(op.given("X"), dx)

    return back if x.learns or own else nothing


def _move(running: Sequence[Tensor], batch: Sequence[Buffer], channels: int, momentum: float) -> None:
    """Running statistics go on by those of the batch (as in Paddle, the variance is the biased one)."""
    for tensor, buffer in zip(running, batch, strict=True):
        kept = dnn.floats(tensor.data_ptr(), channels)
        kept *= np.float32(momentum)
        kept += np.float32(1.0 - momentum) * dnn.floats(buffer.address, channels)


BY_RESULT = ("relu", "relu6", "sigmoid")  # their slope is known from what comes out


def activation(name: str) -> Any:
    """An operator of an element-wise function."""
    by_result = name in BY_RESULT

    def made(plan: Plan, op: Operator) -> Back:
        x, (algorithm, alpha, beta) = plan.values[op.given("X")], ACTIVATIONS[name](op.attributes)
        forward = dnn.eltwise(algorithm, x.layout, x.layout, alpha, beta)
        if by_result and op.attributes.get("in_place"):
            y = x.memory
            plan.values[op.made("Out")] = x
        else:
            y = plan.value(op.made("Out"), x.layout, x.learns)
        plan.run(forward, {dnn.SRC: x.memory, dnn.DST: y})

        def back() -> None:
            dy = plan.take_gradient(op.made("Out"))
            data = y if by_result else x.memory
            description = dnn.eltwise_backward(algorithm, x.layout, dy.layout, data.layout, alpha, beta, forward)
            dx = plan.over(dy)
            place = dnn.DST if by_result else dnn.SRC
            plan.run(description, {place: data, dnn.DIFF_DST: dy, dnn.DIFF_SRC: dx})
            plan.pool.let_go(dy)
            plan.add_gradient(op.given("X"), dx)

        return back if x.learns else nothing

    return made


def prelu(plan: Plan, op: Operator) -> Back:
    x, name = plan.values[op.given("X")], op.given("Alpha")
    if op.attributes["mode"] != "channel":
        raise OneDnnError("only a slope a channel is known.")
    dims = [1, x.layout.dims[1], 1, 1]
    slopes = plan.layout(dims, dnn.FLOAT32)
    layout = x.layout
    forward = dnn.prelu(layout, slopes, layout)
    if forward.slow:  # blocks of 8, which grouped convolutions like
        layout = plan.channels_last(layout.dims)
        forward = dnn.prelu(layout, slopes, layout)
    x_here = plan.reordered(x.memory, layout)
    weight = plan.weight(name, dims, forward.wants(dnn.WEIGHTS, dims, dnn.FLOAT32))
    learns = x.learns or name in plan.learning
    y = plan.value(op.made("Out"), layout, learns)
    plan.run(forward, {dnn.SRC: x_here, dnn.WEIGHTS: weight, dnn.DST: y})

    def back() -> None:
        dy = plan.take_gradient(op.made("Out"))
        given = dnn.prelu_backward(layout, slopes, layout, slopes, layout, forward)
        dx, made = plan.pool.take(layout), plan.pool.take(given.wants(dnn.DIFF_WEIGHTS, dims, dnn.FLOAT32))
        turned = plan.again(name, given.wants(dnn.WEIGHTS, dims, dnn.FLOAT32))
        places = {dnn.SRC: x_here, dnn.WEIGHTS: turned, dnn.DIFF_DST: dy, dnn.DIFF_SRC: dx, dnn.DIFF_WEIGHTS: made}
        plan.run(given, places)
        if name in plan.learning:
            plan.copy(made, plan.slope_of(name))
        plan.pool.let_go(made)
        plan.pool.let_go(dy)
        plan.add_or_let_go(op.given("X"), dx)

    return back if learns else nothing


def pooling(plan: Plan, op: Operator) -> Back:
    x, attributes = plan.values[op.given("X")], op.attributes
    window = Window(list(attributes["ksize"]), attributes["strides"], pads_of(attributes))
    if attributes["global_pooling"] or (attributes["adaptive"] and window.kernel == [1, 1]):
        window = Window(x.layout.dims[2:], [1, 1], [0, 0, 0, 0])
    elif attributes["adaptive"] or attributes["ceil_mode"]:
        raise OneDnnError("pooling to a size, or rounded up, is not known.")
    if attributes["pooling_type"] == "avg" and any(window.pads) and not attributes["exclusive"]:
        raise OneDnnError("a mean that counts padding is not known.")
    algorithm = dnn.POOLING[attributes["pooling_type"]]
    y_dims = [*x.layout.dims[:2], *window.over(x.layout.dims[2:])]
    forward = dnn.pooling(algorithm, x.layout, plan.layout(y_dims), window)
    y = plan.value(op.made("Out"), forward.wants(dnn.DST, y_dims, plan.kind), x.learns)
    places = {}
    if attributes["pooling_type"] == "max":
        layout = forward.wants(dnn.WORKSPACE, y_dims, dnn.FLOAT32)
        places[dnn.WORKSPACE] = Memory(layout, Buffer(layout.size))
    plan.run(forward, {dnn.SRC: x.memory, dnn.DST: y, **places})

    def back() -> None:
        dy = plan.take_gradient(op.made("Out"))
        description = dnn.pooling_backward(algorithm, x.layout, y.layout, window, forward)
        dx = plan.pool.take(x.layout)
        plan.run(description, {dnn.DIFF_DST: dy, dnn.DIFF_SRC: dx, **places})
        plan.pool.let_go(dy)
        plan.add_gradient(op.given("X"), dx)

    return back if x.learns else nothing


def addition(plan: Plan, op: Operator) -> Back:
    a, b = plan.values[op.given("X")], plan.values[op.given("Y")]
    if a.layout.dims != b.layout.dims:
        raise OneDnnError("a sum of maps of different shapes is not known.")
    into, learns = op.attributes["over"], a.learns or b.learns
    first, second = (b, a) if into == "Y" else (a, b)
    other = plan.reordered(second.memory, first.layout)
    if into:
        plan.values[op.made("Out")] = Value(first.memory, learns)
    else:
        plan.value(op.made("Out"), first.layout, learns)
    y = plan.values[op.made("Out")]
    sum_of = dnn.binary(dnn.ADD, y.layout, y.layout, y.layout)
    plan.run(sum_of, {dnn.SRC: first.memory, dnn.SRC_1: other, dnn.DST: y.memory})

    def back() -> None:
        dy = plan.take_gradient(op.made("Out"))
        for name, value in ((op.given("X"), a), (op.given("Y"), b)):
            if value.learns:
                plan.add_gradient(name, plan.pool.hold(dy))
        plan.pool.let_go(dy)

    return back if learns else nothing


def gate(plan: Plan, op: Operator) -> Back:
    """A map (B, C, H, W) times a number a channel (B, C, 1, 1)."""
    names = sorted((op.given("X"), op.given("Y")), key=lambda name: -math.prod(plan.values[name].layout.dims))
    x, s = (plan.values[name] for name in names)
    if s.layout.dims != (*x.layout.dims[:2], 1, 1):
        raise OneDnnError("only a number a channel is known as a factor.")
    maps, factors = x.memory, s.memory
    if dnn.binary(dnn.MULTIPLY, maps.layout, factors.layout, maps.layout).slow:  # in these orders together
        maps, factors = (plan.reordered(each, plan.channels_last(each.layout.dims)) for each in (maps, factors))
    layout = maps.layout
    times = dnn.binary(dnn.MULTIPLY, layout, factors.layout, layout)
    y = plan.value(op.made("Out"), layout, x.learns or s.learns)
    plan.run(times, {dnn.SRC: maps, dnn.SRC_1: factors, dnn.DST: y})

    def back() -> None:
        dy = plan.take_gradient(op.made("Out"))
        if s.learns:
            both = plan.pool.take(layout)
            product = dnn.binary(dnn.MULTIPLY, layout, layout, layout)
            plan.run(product, {dnn.SRC: dy, dnn.SRC_1: maps, dnn.DST: both})
            plan.add_gradient(names[1], _sums(plan, both))
            plan.pool.let_go(both)
        if x.learns:
            dx = plan.pool.take(layout)
            plan.run(times, {dnn.SRC: dy, dnn.SRC_1: factors, dnn.DST: dx})
            plan.add_gradient(names[0], dx)
        plan.pool.let_go(dy)

    return back if x.learns or s.learns else nothing


def _sums(plan: Plan, x: Memory) -> Memory:
    """A map (B, C, H, W) -> its sums (B, C, 1, 1), as means times H W: oneDNN 3.6 has no kernel for the sums."""
    dims = [*x.layout.dims[:2], 1, 1]
    means = dnn.pooling(dnn.POOLING["avg"], x.layout, plan.layout(dims), Window(x.layout.dims[2:], [1, 1], [0] * 4))
    made = plan.pool.take(means.wants(dnn.DST, dims, plan.kind))
    plan.run(means, {dnn.SRC: x, dnn.DST: made})
    count = math.prod(x.layout.dims[2:])
    plan.run(dnn.eltwise(dnn.LINEAR, made.layout, made.layout, count, 0.0), {dnn.SRC: made, dnn.DST: made})
    return made


OPERATORS: dict[str, Callable[[Plan, Operator], Back]] = {
    "conv2d": convolution,
    "depthwise_conv2d": convolution,
    "batch_norm": normalisation,
    **{name: activation(name) for name in ACTIVATIONS},
    "prelu": prelu,
    "pool2d": pooling,
    "elementwise_add": addition,
    "elementwise_mul": gate,
}
