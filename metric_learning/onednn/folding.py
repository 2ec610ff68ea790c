"""A traced network in evaluation mode as few large operations: a convolution with all that can be done on its way out.

Batch normalisation goes into the weights before it, a bias, activations and the sum of a shortcut behind them. A linear
layer is a convolution whose window is the whole map.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import paddle
from paddle.static import InputSpec

from metric_learning.onednn.library import ADD, OneDnnError, understood

RELU, CLIP, SIGMOID, HARD_SIGMOID, HARD_SWISH, SWISH = 256, 262, 260, 40, 52, 44
ACTIVATIONS: dict[str, Callable[[dict[str, Any]], tuple[int, float, float]]] = {
    "relu": lambda given: (RELU, 0.0, 0.0),
    "relu6": lambda given: (CLIP, 0.0, 6.0),
    "sigmoid": lambda given: (SIGMOID, 0.0, 0.0),
    "hard_sigmoid": lambda given: (HARD_SIGMOID, given["slope"], given["offset"]),
    "hard_swish": lambda given: (HARD_SWISH, 1 / given["scale"], given["offset"] / given["scale"]),
    "silu": lambda given: (SWISH, 1.0, 0.0),
}
CARRIERS = ("convolution", "affine", "sum", "product")  # what an activation may be joined to
CARRIERS_OF_PRELU = ("convolution",)  # oneDNN does it behind nothing else


@dataclass
class After:
    """What is done to a result before it is written: an activation, a slope a channel, or another map's sum with it."""

    kind: str  # activation, prelu, sum
    numbers: tuple[int, float, float] = (0, 0.0, 0.0)  # of oneDNN's element-wise function
    slopes: np.ndarray | None = None
    other: str = ""


@dataclass
class Operation:
    """kind: convolution, affine (x * weight + bias by channel), sum, product, activation or pooling."""

    kind: str
    inputs: list[str]
    output: str
    weight: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (O, I/G, h, w), or (O, I h w) if linear
    bias: np.ndarray = field(default_factory=lambda: np.zeros(0))
    attributes: dict[str, Any] = field(default_factory=dict)
    after: list[After] = field(default_factory=list)


@dataclass
class Folded:
    """The operations in order, and the names of what goes in and comes out."""

    operations: list[Operation]
    given: str
    wanted: str


def folded(function: Any, shape: Sequence[int]) -> Folded:
    """function: images (B, *shape) -> a map, traced as it is now. OneDnnError where it does what is not known here."""
    spec = [InputSpec([None, *shape], "float32", "images")]
    with understood(), paddle.pir_utils.OldIrGuard():
        traced = paddle.jit.to_static(function, input_spec=spec, full_graph=True).concrete_program
    return _Folding(traced).result()


def pads_of(attributes: dict[str, Any]) -> list[int]:
    """(top, bottom, left, right)."""
    pads = list(attributes["paddings"])
    if attributes.get("padding_algorithm", "EXPLICIT") != "EXPLICIT" or attributes.get("data_format") != "NCHW":
        raise OneDnnError("only explicit padding of N, C, H, W is known.")
    return pads if len(pads) == 4 else [pads[0], pads[0], pads[1], pads[1]]


class _Folding:
    """Reads a program operator by operator."""

    def __init__(self, traced: Any) -> None:
        self.listed = list(traced.main_program.global_block().ops)
        self.parameters = {value.name: np.asarray(value.numpy()) for value in traced.parameters}
        self.given, self.wanted = traced.inputs[-1].name, traced.outputs[0].name
        names = (name for op in self.listed for slot in op.input_names for name in op.input(slot))
        self.uses = Counter(names) + Counter([self.wanted])
        self.same: dict[str, str] = {}  # a name that was joined to another -> that one
        self.constants = {name: value.astype(np.float64) for name, value in self.parameters.items() if value.ndim == 1}
        self.made: dict[str, Operation] = {}

    def result(self) -> Folded:
        for op in self.listed:
            read = READERS.get("activation" if op.type in ACTIVATIONS else op.type)
            if read is None:
                raise OneDnnError(f"there is no {op.type} here.")
            with understood():
                read(self, op, op.all_attrs())
        for made in self.made.values():
            made.weight, made.bias = made.weight.astype(np.float32), made.bias.astype(np.float32)
        return Folded(list(self.made.values()), self.given, self.real(self.wanted))

    def real(self, name: str) -> str:
        return self.same.get(name, name)

    def put(self, operation: Operation) -> None:
        self.made[operation.output] = operation

    def only_maker(self, name: str, kinds: Sequence[str]) -> Operation | None:
        """What made a value that nothing else reads, if it is of these kinds."""
        made = self.made.get(name)
        return made if made is not None and made.kind in kinds and self.uses[name] == 1 else None

    def join(self, output: str, name: str) -> None:
        """`output` is from now on what the operation called `name` gives."""
        self.same[output] = name
        self.uses[name] = self.uses[output]

    def convolution(self, op: Any, attributes: dict[str, Any]) -> None:
        if list(attributes["dilations"]) != [1, 1]:
            raise OneDnnError("dilated convolutions are not known.")
        weight = self.parameters[op.input("Filter")[0]].astype(np.float64)
        how = {"strides": attributes["strides"], "pads": pads_of(attributes), "groups": attributes["groups"]}
        x = self.real(op.input("Input")[0])
        self.put(Operation("convolution", [x], op.output("Output")[0], weight, np.zeros(len(weight)), how))

    def linear(self, op: Any, attributes: dict[str, Any]) -> None:
        weight = self.parameters.get(op.input("Y")[0])
        if weight is None or weight.ndim != 2 or attributes["trans_x"]:
            raise OneDnnError("only a product with a parameter is known.")
        weight = weight if attributes["trans_y"] else weight.T
        how = {"strides": [1, 1], "pads": [0, 0, 0, 0], "groups": 1}
        x = self.real(op.input("X")[0])
        self.put(Operation("convolution", [x], op.output("Out")[0], weight, np.zeros(len(weight)), how))

    def mean(self, op: Any, attributes: dict[str, Any]) -> None:
        if sorted(attributes["dim"]) != [2, 3] or attributes["reduce_all"]:
            raise OneDnnError("only the mean over a map is known.")
        how = {"pooling_type": "avg", "global_pooling": True, "ksize": [1, 1], "strides": [1, 1], "paddings": [0, 0]}
        how |= {"data_format": "NCHW", "exclusive": True}
        self.put(Operation("pooling", [self.real(op.input("X")[0])], op.output("Out")[0], attributes=how))

    def flatten(self, op: Any, attributes: dict[str, Any]) -> None:
        if attributes["start_axis"] != 1 or attributes["stop_axis"] not in (-1, 3):
            raise OneDnnError("only a whole map can be flattened.")
        x, y = self.real(op.input("X")[0]), op.output("Out")[0]
        self.same[y] = x
        self.uses[x] += self.uses[y] - 1

    def dropout(self, op: Any, attributes: dict[str, Any]) -> None:
        if not attributes["is_test"] or attributes["dropout_implementation"] != "upscale_in_train":
            raise OneDnnError("dropout is known only where it does nothing.")
        x, y = self.real(op.input("X")[0]), op.output("Out")[0]
        self.same[y] = x
        self.uses[x] += self.uses[y] - 1

    def scale(self, op: Any, attributes: dict[str, Any]) -> None:
        """Of a parameter."""
        value = self.constants.get(op.input("X")[0])
        if value is None or not attributes["bias_after_scale"]:
            raise OneDnnError("only a parameter is scaled.")
        self.constants[op.output("Out")[0]] = value * attributes["scale"] + attributes["bias"]

    def reshape(self, op: Any, _: dict[str, Any]) -> None:
        if op.input("X")[0] not in self.parameters:
            raise OneDnnError("only a parameter's shape may change.")
        self.constants[op.output("Out")[0]] = self.parameters[op.input("X")[0]].ravel().astype(np.float64)

    def normalisation(self, op: Any, attributes: dict[str, Any]) -> None:
        scale, shift, mean, variance = (
            self.constants[op.input(slot)[0]] for slot in ("Scale", "Bias", "Mean", "Variance")
        )
        scale = scale / np.sqrt(variance + attributes["epsilon"])
        shift = shift - scale * mean
        x, y = self.real(op.input("X")[0]), op.output("Y")[0]
        before = self.only_maker(x, ("convolution",))
        if before is None or before.after:
            self.put(Operation("affine", [x], y, scale, shift))
            return
        rows = scale.reshape(-1, *[1] * (before.weight.ndim - 1))
        before.weight, before.bias = before.weight * rows, before.bias * scale + shift
        self.join(y, x)

    def activation(self, op: Any, attributes: dict[str, Any]) -> None:
        x, y = self.real(op.input("X")[0]), op.output("Out")[0]
        if op.type == "prelu":
            if attributes["mode"] != "channel":
                raise OneDnnError("only a slope a channel is known.")
            after = After("prelu", slopes=self.parameters[op.input("Alpha")[0]].ravel())
        else:
            after = After("activation", ACTIVATIONS[op.type](attributes))
        before = self.only_maker(x, CARRIERS_OF_PRELU if op.type == "prelu" else CARRIERS)
        if before is None:
            self.put(Operation("activation", [x], y, after=[after]))
            return
        before.after.append(after)
        self.join(y, x)

    def sum(self, op: Any, _: dict[str, Any]) -> None:
        x, other, y = self.real(op.input("X")[0]), self.real(op.input("Y")[0]), op.output("Out")[0]
        if x in self.constants and other in self.constants:
            self.constants[y] = self.constants[x] + self.constants[other]
            return
        if other in self.constants:
            before = self.only_maker(x, ("convolution",))
            if before is None or before.after:
                raise OneDnnError("a constant is known only behind a convolution.")
            before.bias = before.bias + self.constants[other]
            self.join(y, x)
            return
        order = list(self.made)
        first, last = sorted((x, other), key=lambda name: order.index(name) if name in self.made else -1)
        maker = self.only_maker(last, ("convolution", "product"))
        if maker is None or first == last:
            self.put(Operation("sum", [first, last], y))
            return
        maker.after.append(After("sum", (ADD, 0.0, 0.0), other=first))
        maker.inputs.append(first)
        self.join(y, last)

    def product(self, op: Any, _: dict[str, Any]) -> None:
        names = [self.real(op.input(slot)[0]) for slot in ("X", "Y")]
        self.put(Operation("product", names, op.output("Out")[0]))

    def pooling(self, op: Any, attributes: dict[str, Any]) -> None:
        self.put(Operation("pooling", [self.real(op.input("X")[0])], op.output("Out")[0], attributes=attributes))


READERS: dict[str, Callable[[_Folding, Any, dict[str, Any]], None]] = {
    "conv2d": _Folding.convolution,
    "depthwise_conv2d": _Folding.convolution,
    "reshape2": _Folding.reshape,
    "batch_norm": _Folding.normalisation,
    "activation": _Folding.activation,
    "prelu": _Folding.activation,
    "elementwise_add": _Folding.sum,
    "elementwise_mul": _Folding.product,
    "pool2d": _Folding.pooling,
    "reduce_mean": _Folding.mean,
    "flatten_contiguous_range": _Folding.flatten,
    "matmul_v2": _Folding.linear,
    "dropout": _Folding.dropout,
    "scale": _Folding.scale,
}
