"""A traced network run through oneDNN in training: one Paddle function with a gradient, whatever the batch's shape."""

import weakref
from collections import Counter
from typing import Any

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.static import InputSpec

from metric_learning.onednn import library as dnn
from metric_learning.onednn.library import OneDnnError, understood
from metric_learning.onednn.plan import Operator, Plan

KEPT_SHAPES = 3  # plans of other shapes of batch are forgotten: each holds all maps of a step

# They don't need on the way back what they gave, so that it may be written over.
FORGETFUL = ("elementwise_add", "conv2d", "depthwise_conv2d", "batch_norm", "prelu")


class Trunk:
    """images (B, C, H, W) float32 -> the network's map (B, c, h, w) float32, with gradient for its parameters.

    function: of the network, traced in training mode as it is now; what is frozen stays so. bfloat16: maps are kept and
    convolutions computed in it. Raises OneDnnError for a network of operators that are not known here.
    """

    def __init__(self, function: Any, channels: int, bfloat16: bool = False) -> None:
        dnn.library()
        spec = [InputSpec([None, channels, None, None], "float32", "images")]
        with understood():
            traced = paddle.jit.to_static(function, input_spec=spec, full_graph=True).concrete_program
            self.parameters = {value.name: value for value in traced.parameters}
            self.given, self.wanted = traced.inputs[-1].name, traced.outputs[0].name
            self.operators = joined(traced.main_program, self.parameters, self.wanted)
        self.kind = dnn.BFLOAT16 if bfloat16 else dnn.FLOAT32
        self.channels = channels
        self.plans: dict[Any, list[Plan]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        if images.dtype != paddle.float32 or len(images.shape) != 4 or images.shape[1] != self.channels:
            raise ValueError(f"images must be float32 (B, {self.channels}, H, W); got {images.dtype} {images.shape}.")
        if not images.stop_gradient:
            raise OneDnnError("a gradient of the images is not known.")
        learning = [name for name, value in self.parameters.items() if not value.stop_gradient]
        plan = self._plan(tuple(images.shape), frozenset(learning))
        if not paddle.is_grad_enabled() or not learning:
            return plan.forward(images)
        used = [self.parameters[name] for name in plan.slopes]
        return _Computed.apply(images, plan, *used)

    def _plan(self, shape: tuple[int, ...], learning: frozenset[str]) -> Plan:
        """One that no gradient is waiting for."""
        key = shape, learning
        plans = self.plans.pop(key, [])
        self.plans[key] = plans
        free = next((plan for plan in plans if not plan.busy()), None)
        plans[:] = [plan for plan in plans if plan is free or plan.busy()]
        if free is None:
            with understood():
                free = Plan(self.operators, self.parameters, learning, shape, self.kind, self.given, self.wanted)
            plans.append(free)
        while len(self.plans) > KEPT_SHAPES:
            del self.plans[next(iter(self.plans))]
        return free


class _Computed(PyLayer):
    @staticmethod
    def forward(ctx: Any, images: Tensor, plan: Plan, *parameters: Tensor) -> Tensor:
        ctx.plan, plan.holder = plan, weakref.ref(ctx)
        return plan.forward(images)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        made = ctx.plan.backward(slope.contiguous())
        ctx.plan.holder = None
        return None, *(made[name] for name in ctx.plan.slopes)


def joined(program: Any, parameters: dict[str, Tensor], wanted: str) -> list[Operator]:
    """The operators of a program in order, with what oneDNN does in one go put together."""
    listed = _with_bias([_operator(op) for op in program.global_block().ops], parameters)
    uses = Counter(name for op in listed for names in op.inputs.values() for name in names) + Counter([wanted])
    makers = {name: op for op in listed for names in op.outputs.values() for name in names}
    kept = []
    for op in listed:
        before = makers.get(op.given("X")) if op.kind in ("relu", "relu6") and uses[op.given("X")] == 1 else None
        if before is not None and (op.kind, before.kind) == ("relu", "batch_norm"):
            before.attributes["fused"] = True
            before.outputs["Y"] = op.outputs["Out"]
            continue
        if before is not None and before.kind in FORGETFUL:
            op.attributes["in_place"] = True
        if op.kind == "elementwise_add":
            own = [slot for slot in ("X", "Y") if uses[op.given(slot)] == 1 and _maker(makers, op, slot) in FORGETFUL]
            op.attributes["over"] = own[0] if own else None
        kept.append(op)
    return kept


def _maker(makers: dict[str, Operator], op: Operator, slot: str) -> str | None:
    found = makers.get(op.given(slot))
    return found.kind if found else None


def _operator(op: Any) -> Operator:
    names = {slot: list(op.input(slot)) for slot in op.input_names}
    made = {slot: list(op.output(slot)) for slot in op.output_names}
    return Operator(op.type, names, made, dict(op.all_attrs()))


def _with_bias(listed: list[Operator], parameters: dict[str, Tensor]) -> list[Operator]:
    """A convolution's bias, which Paddle adds behind it as a reshaped parameter, put into the convolution."""
    biases = {op.made("Out"): op.given("X") for op in listed if op.kind == "reshape2" and op.given("X") in parameters}
    made_by = {op.made("Output"): op for op in listed if op.kind in ("conv2d", "depthwise_conv2d")}
    kept = []
    for op in listed:
        if op.kind == "reshape2" and op.given("X") in parameters:
            continue
        if op.kind == "elementwise_add" and op.given("Y") in biases and op.given("X") in made_by:
            convolution = made_by[op.given("X")]
            convolution.inputs["Bias"] = [biases[op.given("Y")]]
            convolution.outputs["Output"] = op.outputs["Out"]
            continue
        kept.append(op)
    return kept
