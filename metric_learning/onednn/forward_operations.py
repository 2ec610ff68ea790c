"""Operations of a folded network as oneDNN primitives. Each puts what it computes into a plan."""

import math
from ctypes import c_float, c_int

import numpy as np

from metric_learning.onednn import library as dnn
from metric_learning.onednn.folding import Operation, pads_of
from metric_learning.onednn.inference import INFERENCE, Behind, Plan
from metric_learning.onednn.library import ANY, CHANNELS_LAST, FLOAT32, Description, Layout, Memory, OneDnnError, Window


def convolution(plan: Plan, op: Operation) -> None:
    x, how = plan.values[op.inputs[0]], op.attributes
    weight_dims = op.weight.shape if op.weight.ndim == 4 else (len(op.weight), *x.layout.dims[1:])
    count, groups = len(op.weight), how["groups"]
    window = Window(weight_dims[2:], how["strides"], how["pads"])
    dims = list(weight_dims) if groups == 1 else [groups, count // groups, *weight_dims[1:]]
    y_dims = [x.layout.dims[0], count, *window.over(x.layout.dims[2:])]
    behind, onto = plan.behind(op, y_dims)
    y_layout, flat = Layout(y_dims, FLOAT32, CHANNELS_LAST), Layout([count])
    given = Description(
        "convolution_forward", dnn.engine(), c_int(INFERENCE), c_int(dnn.CONVOLUTION), x.layout,
        Layout(dims, FLOAT32, ANY), flat, y_layout, *window.sides(), behind.attributes(),
    )  # fmt: skip
    weight = plan.shared.put(
        op.output, "weight", lambda: _weight(plan, op), dims, given.wants(dnn.WEIGHTS, dims, FLOAT32)
    )
    bias = plan.shared.put(op.output, "bias", lambda: op.bias, [count], flat)
    y = plan.new(op.output, y_dims) if onto is None else Memory(y_layout, onto.buffer)
    plan.values[op.output] = y
    plan.run(given, {dnn.SRC: x, dnn.WEIGHTS: weight, dnn.BIAS: bias, dnn.DST: y, **behind.places})


def _weight(plan: Plan, op: Operation) -> np.ndarray:
    """A linear layer takes the pooling before it along: the mean over windows is a matrix product too."""
    if op.inputs[0] not in plan.windows:
        return op.weight
    rows, columns = (part.astype(np.float32) for part in plan.windows[op.inputs[0]])
    split = op.weight.astype(np.float32).reshape(-1, len(rows), len(columns))
    made: np.ndarray = np.matmul(rows.T, split) @ columns
    return made


def affine(plan: Plan, op: Operation) -> None:
    scale, shift = plan.by_channel(op, "scale", op.weight), plan.by_channel(op, "shift", op.bias)
    behind = Behind()
    behind.binary(dnn.ADD, shift)
    _binary(
        plan,
        op,
        dnn.MULTIPLY,
        plan.values[op.inputs[0]],
        scale,
        plan.behind(op, plan.values[op.inputs[0]].layout.dims, behind)[0],
    )


def _binary(plan: Plan, op: Operation, algorithm: int, a: Memory, b: Memory, behind: Behind) -> None:
    y = plan.new(op.output, a.layout.dims)
    layouts = a.layout, b.layout, y.layout
    given = Description("binary", dnn.engine(), c_int(algorithm), *layouts, behind.attributes())
    plan.run(given, {dnn.SRC: a, dnn.SRC_1: b, dnn.DST: y, **behind.places})


def sum_(plan: Plan, op: Operation) -> None:
    _of_two(plan, op, dnn.ADD)


def product(plan: Plan, op: Operation) -> None:
    _of_two(plan, op, dnn.MULTIPLY)


def _of_two(plan: Plan, op: Operation, algorithm: int) -> None:
    a, b = sorted((plan.values[name] for name in op.inputs[:2]), key=lambda each: -math.prod(each.layout.dims))
    if b.layout.dims not in (a.layout.dims, (*a.layout.dims[:2], 1, 1)):
        raise OneDnnError("maps of different shapes are not known.")
    _binary(plan, op, algorithm, a, b, plan.behind(op, a.layout.dims)[0])


def activation(plan: Plan, op: Operation) -> None:
    """One that no operation could take along."""
    x, after = plan.values[op.inputs[0]], op.after[0]
    y = plan.new(op.output, x.layout.dims)
    places = {dnn.SRC: x, dnn.DST: y}
    if after.slopes is None:
        algorithm, alpha, beta = after.numbers
        how = c_int(algorithm), x.layout, y.layout, c_float(alpha), c_float(beta)
        given = Description("eltwise_forward", dnn.engine(), c_int(INFERENCE), *how, None)
    else:
        slopes = places[dnn.WEIGHTS] = plan.by_channel(op, "slopes", after.slopes)
        layouts = x.layout, slopes.layout, y.layout
        given = Description("prelu_forward", dnn.engine(), c_int(INFERENCE), *layouts, None)
    plan.run(given, places)


def pooling(plan: Plan, op: Operation) -> None:
    x, how = plan.values[op.inputs[0]], op.attributes
    window = Window(list(how["ksize"]), how["strides"], pads_of(how))
    if how["global_pooling"] or (how["adaptive"] and window.kernel == [1, 1]):
        window = Window(x.layout.dims[2:], [1, 1], [0, 0, 0, 0])
    elif how["adaptive"] and how["pooling_type"] == "avg":
        plan.values[op.output] = x
        plan.windows[op.output] = [_means(side, n) for side, n in zip(x.layout.dims[2:], window.kernel, strict=True)]
        return
    elif how["ceil_mode"]:
        raise OneDnnError("pooling that is rounded up is not known.")
    elif how["adaptive"]:
        raise OneDnnError("the largest of windows of different sizes is not known.")
    if how["pooling_type"] == "avg" and any(window.pads) and not how["exclusive"]:
        raise OneDnnError("a mean that counts padding is not known.")
    y = plan.new(op.output, [*x.layout.dims[:2], *window.over(x.layout.dims[2:])])
    given = Description(
        "pooling_forward", dnn.engine(), c_int(INFERENCE), c_int(dnn.POOLING[how["pooling_type"]]), x.layout, y.layout,
        *window.sides(pooling=True), None,
    )  # fmt: skip
    plan.run(given, {dnn.SRC: x, dnn.DST: y})


OPERATIONS = {
    "convolution": convolution,
    "affine": affine,
    "sum": sum_,
    "product": product,
    "activation": activation,
    "pooling": pooling,
}


def _means(side: int, count: int) -> np.ndarray:
    """(count, side): the means over `count` windows that cover a side, of different sizes where they must be."""
    made = np.zeros((count, side))
    for number in range(count):
        window = slice(number * side // count, -(-(number + 1) * side // count))
        made[number, window] = 1.0 / (window.stop - window.start)
    return made
