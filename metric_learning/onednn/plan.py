"""A convolutional network for one shape of batch as two lists of oneDNN primitives: forward, and back again.

Maps stay in the order that the convolutions like, from the first to the last, and in bfloat16 where that is asked for;
weights, statistics and gradients of weights are float32 all the same.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import Tensor

from metric_learning.onednn import library as dnn
from metric_learning.onednn.library import Buffer, Description, Layout, Memory, OneDnnError, Primitive

Back = Callable[[], None]


@dataclass
class Operator:
    """One operator of a traced network: names of what goes in and comes out by slot, and its attributes."""

    kind: str
    inputs: dict[str, list[str]]
    outputs: dict[str, list[str]]
    attributes: dict[str, Any]

    def given(self, slot: str) -> str:
        return self.inputs[slot][0]

    def made(self, slot: str) -> str:
        return self.outputs[slot][0]


@dataclass
class Value:
    """A map inside the network; `learns`: whether a gradient has to come back through it."""

    memory: Memory
    learns: bool

    @property
    def layout(self) -> Layout:
        return self.memory.layout


class Pool:
    """Buffers that are used again once all who hold them have let go."""

    def __init__(self) -> None:
        self.free: list[Buffer] = []
        self.holders: dict[int, int] = {}

    def take(self, layout: Layout) -> Memory:
        fitting = [buffer for buffer in self.free if layout.size <= buffer.size <= 2 * layout.size + 2**16]
        buffer = min(fitting, key=lambda each: each.size) if fitting else Buffer(layout.size)
        if fitting:
            self.free.remove(buffer)
        self.holders[id(buffer)] = 1
        return Memory(layout, buffer)

    def hold(self, memory: Memory) -> Memory:
        self.holders[id(memory.buffer)] += 1
        return memory

    def shared(self, memory: Memory) -> bool:
        return self.holders[id(memory.buffer)] > 1

    def let_go(self, memory: Memory) -> None:
        assert memory.buffer is not None
        self.holders[id(memory.buffer)] -= 1
        if not self.holders[id(memory.buffer)]:
            self.free.append(memory.buffer)


class Plan:
    """images (B, C, H, W) float32 -> the network's last map (B, c, h, w) float32, and the gradients of its parameters.

    operators: in the order of the network; parameters: by the names that those use; learning: which of them get a
    gradient. Raises OneDnnError where an operator is not known here, or in a way that is not.
    """

    def __init__(
        self,
        operators: Sequence[Operator],
        parameters: dict[str, Tensor],
        learning: frozenset[str],
        shape: Sequence[int],
        kind: int,
        given: str,
        wanted: str,
    ) -> None:
        from metric_learning.onednn.operators import OPERATORS

        self.parameters, self.learning, self.kind = parameters, learning, kind
        self.pool = Pool()
        self.weights: list[Primitive] = []
        self.steps: list[Callable[[], None]] = []
        self.back: list[Callable[[], None]] = []
        self.plain: dict[str, Memory] = {}
        self.turned: dict[str, list[Memory]] = {}
        self.slopes: dict[str, Memory] = {}
        self.gradients: dict[str, Memory] = {}
        self.holder: weakref.ref[Any] | None = None
        self.held: Tensor | None = None
        self.images = Memory(Layout(shape))
        self.values = {given: Value(self.images, False)}
        self._target = self.steps
        backs = []
        for operator in operators:
            if operator.kind not in OPERATORS:
                raise OneDnnError(f"there is no {operator.kind} here.")
            backs.append(OPERATORS[operator.kind](self, operator))
        last = self.values[wanted]
        self.shape = last.layout.dims
        self.result = Memory(Layout(self.shape))
        self.copy(last.memory, self.result)
        self._target = self.back
        self.slope = Memory(Layout(self.shape))
        if last.learns:
            self.gradients[wanted] = self.reordered(self.slope, last.layout, keep=True)
            for back in reversed(backs):
                back()

    # ---- what operators are made with

    def run(self, description: Description, places: dict[int, Memory]) -> None:
        """Put the primitive into the list that is being written."""
        self._target.append(Primitive(description, places).run)

    def call(self, function: Callable[[], None]) -> None:
        self._target.append(function)

    def copy(self, a: Memory, b: Memory) -> None:
        self.run(dnn.reorder(a.layout, b.layout), {dnn.SRC: a, dnn.DST: b})

    def layout(self, dims: Sequence[int], kind: int | None = None) -> Layout:
        """Of these dimensions, in the order that a primitive likes."""
        return Layout(dims, self.kind if kind is None else kind, dnn.ANY)

    def channels_last(self, dims: Sequence[int]) -> Layout:
        """Of these dimensions, in an order for which there is a kernel of nearly everything."""
        return Layout(dims, self.kind, dnn.CHANNELS_LAST)

    def reordered(self, memory: Memory, layout: Layout, keep: bool = False) -> Memory:
        """The numbers in that layout: the memory itself where it has it already, unless a copy is to be kept."""
        if memory.layout.same(layout) and not keep:
            return memory
        made = self.pool.take(layout)
        self.copy(memory, made)
        return made

    def value(self, name: str, layout: Layout, learns: bool) -> Memory:
        """A new map, which stays for the way back."""
        memory = Memory(layout, Buffer(layout.size))
        self.values[name] = Value(memory, learns)
        return memory

    def weight(self, name: str, dims: Sequence[int], layout: Layout | None = None) -> Memory:
        """A parameter in that layout (None: as it lies), brought there at the start of each step."""
        if name in self.plain:
            raise OneDnnError(f"the parameter {name} is used twice.")
        plain = self.plain[name] = Memory(Layout(dims))
        return plain if layout is None else self.again(name, layout)

    def again(self, name: str, layout: Layout) -> Memory:
        """A known parameter in a further layout."""
        known = self.turned.setdefault(name, [self.plain[name]])
        plain, same = known[0], [memory for memory in known if memory.layout.same(layout)]
        if same:
            return same[0]
        made = Memory(layout, Buffer(layout.size))
        known.append(made)
        self.weights.append(Primitive(dnn.reorder(plain.layout, layout), {dnn.SRC: plain, dnn.DST: made}))
        return made

    def slope_of(self, name: str) -> Memory:
        """Where the gradient of a parameter goes."""
        made = self.slopes[name] = Memory(Layout(self.plain[name].layout.dims))
        return made

    def take_gradient(self, name: str) -> Memory:
        """The whole gradient of a map, in its layout. The caller lets go of it."""
        memory = self.gradients.pop(name)
        here = self.reordered(memory, self.values[name].layout)
        if here is not memory:
            self.pool.let_go(memory)
        return here

    def over(self, gradient: Memory) -> Memory:
        """Where the next gradient may be written: over this one, unless somebody else needs it. Held once more."""
        return self.pool.take(gradient.layout) if self.pool.shared(gradient) else self.pool.hold(gradient)

    def add_gradient(self, name: str, memory: Memory) -> None:
        """A part of the gradient of a map; the pool's memory is handed over."""
        if name not in self.gradients:
            self.gradients[name] = memory
            return
        before = self.gradients.pop(name)
        other = self.reordered(memory, before.layout)
        total = self.pool.take(before.layout) if self.pool.shared(before) else before
        self.run(
            dnn.binary(dnn.ADD, before.layout, other.layout, total.layout),
            {dnn.SRC: before, dnn.SRC_1: other, dnn.DST: total},
        )
        for used in {id(each): each for each in (memory, other)}.values():
            self.pool.let_go(used)
        if total is not before:
            self.pool.let_go(before)
        self.gradients[name] = total

    def add_or_let_go(self, name: str, memory: Memory) -> None:
        """add_gradient, where the map needs one at all."""
        if self.values[name].learns:
            self.add_gradient(name, memory)
        else:
            self.pool.let_go(memory)

    # ---- a step

    def busy(self) -> bool:
        """Whether a gradient may still come back through the last forward."""
        return self.holder is not None and self.holder() is not None

    def forward(self, images: Tensor) -> Tensor:
        for name, memory in self.plain.items():
            memory.put(self.parameters[name].data_ptr())
        result = paddle.empty(list(self.shape), "float32")
        self.held = images.contiguous()  # the first convolution looks at them again on the way back
        self.images.put(self.held.data_ptr())
        self.result.put(result.data_ptr())
        for weight in self.weights:
            weight.run()
        for step in self.steps:
            step()
        dnn.wait()
        return result

    def backward(self, slope: Tensor) -> dict[str, Tensor]:
        """The gradients of the parameters that learn."""
        made = {name: paddle.empty(self.parameters[name].shape, "float32") for name in self.slopes}
        for name, memory in self.slopes.items():
            memory.put(made[name].data_ptr())
        self.slope.put(slope.data_ptr())
        for step in self.back:
            step()
        dnn.wait()
        self.held = None
        return made
