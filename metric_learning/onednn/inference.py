"""A folded network for one shape of batch as a list of oneDNN primitives, which only runs forward."""

from collections.abc import Callable, Sequence
from ctypes import byref, c_float, c_int, c_void_p
from typing import Any

import numpy as np

from metric_learning.onednn import library as dnn
from metric_learning.onednn.folding import After, Folded, Operation
from metric_learning.onednn.library import (
    CHANNELS_LAST,
    FLOAT32,
    Buffer,
    Description,
    Layout,
    Memory,
    OneDnnError,
    Primitive,
    understood,
)

INFERENCE = 96
BEHIND = 32768  # where the arguments of what is done behind a primitive begin, a block for each
EARLIEST = (3, 6)  # release of oneDNN whose numbers for what is done behind a primitive are these
CHUNK = 8  # pictures that go through together: their maps stay near the processor
Places = dict[int, Memory]


def works() -> bool:
    """Whether this build's oneDNN is one that this module knows."""
    try:
        version = dnn.library().dnnl_version()
    except OneDnnError:
        return False
    return (version[0], version[1]) >= EARLIEST


class Behind:
    """Attributes of a primitive: what is done to its result before it is written, and the memory that this needs."""

    def __init__(self) -> None:
        self.made, self.count = c_void_p(), 0
        self.places: Places = {}
        dnn.call("post_ops_create", byref(self.made))
        dnn.destroyed_with(self, "post_ops", self.made)

    def function(self, algorithm: int, alpha: float, beta: float) -> None:
        dnn.call("post_ops_append_eltwise", self.made, c_int(algorithm), c_float(alpha), c_float(beta))
        self.count += 1

    def prelu(self, slopes: Memory) -> None:
        dnn.call("post_ops_append_prelu", self.made, c_int(1 << 1))  # one a channel
        self._needs(dnn.WEIGHTS, slopes)

    def binary(self, algorithm: int, other: Memory) -> None:
        dnn.call("post_ops_append_binary", self.made, c_int(algorithm), other.layout.pointer)
        self._needs(dnn.SRC_1, other)

    def onto(self) -> None:
        """The result is added to what stands where it is written."""
        dnn.call("post_ops_append_sum", self.made, c_float(1.0), c_int(0), c_int(FLOAT32))
        self.count += 1

    def _needs(self, place: int, memory: Memory) -> None:
        self.count += 1
        self.places[BEHIND * self.count | place] = memory

    def attributes(self) -> c_void_p:
        made = c_void_p()
        dnn.call("primitive_attr_create", byref(made))
        dnn.call("primitive_attr_set_post_ops", made, self.made)
        dnn.destroyed_with(self, "primitive_attr", made)
        return made


class Shared:
    """Constants in the layouts of the primitives; plans for several sizes of batch share them."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], list[Memory]] = {}

    def put(self, owner: str, what: str, make: Callable[[], Any], dims: Sequence[int], layout: Layout) -> Memory:
        known = self.known.setdefault((owner, what), [])
        for memory in known:
            if memory.layout.same(layout):
                return memory
        values = np.asarray(make(), np.float32).reshape(dims)
        if len(dims) == 4:  # from its own order, (O, I, h, w), the library takes seconds for a large window
            values = values.transpose(0, 2, 3, 1)
        values = np.ascontiguousarray(values)
        plain = Memory(Layout(dims, FLOAT32, CHANNELS_LAST if len(dims) == 4 else None))
        plain.put(values.ctypes.data)
        made = Memory(layout, Buffer(layout.size))
        Primitive(dnn.reorder(plain.layout, layout), {dnn.SRC: plain, dnn.DST: made}).run()
        dnn.wait()
        known.append(made)
        return made


class Ending:
    """A last map that is pooled by windows of different sizes, which oneDNN does not know: two products in NumPy."""

    def __init__(self, windows: Sequence[np.ndarray], dims: Sequence[int]) -> None:
        self.rows, columns = (part.astype(np.float32) for part in windows)
        self.columns = np.ascontiguousarray(columns.T)
        self.map = np.empty(dims, np.float32)
        self.shape = (*dims[:2], len(self.rows), self.columns.shape[1])

    def __call__(self, result: np.ndarray) -> None:
        narrow = self.map.reshape(-1, self.map.shape[3]) @ self.columns
        narrow = narrow.reshape(-1, self.map.shape[2], self.shape[3])
        np.matmul(self.rows, narrow, out=result.reshape(-1, *self.shape[2:]))


class Plan:
    """images (B, C, H, W) -> the network's last map (B, c, h, w), for one shape. OneDnnError where that can't be."""

    def __init__(self, network: Folded, shape: Sequence[int], shared: Shared) -> None:
        from metric_learning.onednn.forward_operations import OPERATIONS

        self.shared = shared
        self.steps: list[Primitive] = []
        self.free: list[Buffer] = []
        self.images = Memory(Layout(shape))
        self.values: dict[str, Memory] = {}
        self.windows: dict[str, list[np.ndarray]] = {}  # a map that still has to be pooled: by what
        self.last = {name: number for number, op in enumerate(network.operations) for name in op.inputs}
        self.last[network.wanted] = len(network.operations)
        turned = self.new(network.given, shape)
        self.run(dnn.reorder(self.images.layout, turned.layout), {dnn.SRC: self.images, dnn.DST: turned})
        for self.number, operation in enumerate(network.operations):
            if operation.weight.ndim != 2 and any(name in self.windows for name in operation.inputs):
                raise OneDnnError("windows of different sizes are known only in front of a linear layer.")
            OPERATIONS[operation.kind](self, operation)
            for name in {name for name in operation.inputs if self.last[name] == self.number}:
                self._let_go(self.values.pop(name))
        final = self.values[network.wanted]
        self.shape = final.layout.dims
        self.ending = Ending(self.windows[network.wanted], self.shape) if network.wanted in self.windows else None
        if self.ending is not None:
            self.shape = self.ending.shape
        self.result = Memory(Layout(final.layout.dims))
        self.run(dnn.reorder(final.layout, self.result.layout), {dnn.SRC: final, dnn.DST: self.result})

    def __call__(self, images: np.ndarray, result: np.ndarray) -> None:
        """Both contiguous float32; the result is written."""
        self.images.put(images.ctypes.data)
        self.result.put((result if self.ending is None else self.ending.map).ctypes.data)
        for step in self.steps:
            step.run()
        dnn.wait()
        if self.ending is not None:
            self.ending(result)

    def run(self, description: Description, places: Places) -> None:
        self.steps.append(Primitive(description, places))

    def new(self, name: str, dims: Sequence[int]) -> Memory:
        """A map, channels last: in memory that was let go of last, as that is still near the processor."""
        layout = Layout(dims, FLOAT32, CHANNELS_LAST)
        fitting = [buffer for buffer in self.free if layout.size <= buffer.size <= 4 * layout.size + 2**16]
        if fitting:
            self.free.remove(fitting[-1])
        self.values[name] = Memory(layout, fitting[-1] if fitting else Buffer(layout.size))
        return self.values[name]

    def _let_go(self, memory: Memory) -> None:
        if all(memory.buffer is not other.buffer for other in self.values.values()):
            assert memory.buffer is not None
            self.free.append(memory.buffer)

    def by_channel(self, op: Operation, what: str, values: np.ndarray) -> Memory:
        dims = [1, len(values), 1, 1]
        return self.shared.put(op.output, what, lambda: values, dims, Layout(dims))

    def behind(self, op: Operation, dims: Sequence[int], made: Behind | None = None) -> tuple[Behind, Memory | None]:
        """What is done to a result of these dims, and the memory that it is added onto where that is needed no more."""
        made, onto = made or Behind(), None
        for number, after in enumerate(op.after):
            if after.kind == "activation":
                made.function(*after.numbers)
            elif after.kind == "prelu":
                assert after.slopes is not None
                made.prelu(self.by_channel(op, f"slopes{number}", after.slopes))
            elif onto is None and op.kind == "convolution" and self._may_go(op, after, dims):
                onto = self.values[after.other]
                made.onto()
            else:
                made.binary(after.numbers[0], self.values[after.other])
        return made, onto

    def _may_go(self, op: Operation, after: After, dims: Sequence[int]) -> bool:
        name = after.other
        if self.values[name].layout.dims != tuple(dims):
            raise OneDnnError("a sum of maps of different shapes is not known behind a convolution.")
        return self.last[name] == self.number and op.inputs.count(name) == 1


class FoldedNet:
    """images (B, C, H, W) float32 of any B -> the last map (B, c, h, w) float32; what is flat comes as (B, D, 1, 1).

    CHUNK pictures go through at a time and what is left over one by one, so a picture's map depends on how many others
    there are in its last bits at most. Raises OneDnnError at the first batch for what can't be computed here.
    """

    def __init__(self, network: Folded) -> None:
        self.network, self.shared = network, Shared()
        self.plans: dict[tuple[int, ...], Plan] = {}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        images = np.ascontiguousarray(images, np.float32)
        parts, start, made = [], 0, np.empty(0, np.float32)
        while start < len(images):
            count = CHUNK if len(images) - start >= CHUNK else 1
            parts.append(slice(start, start + count))
            start += count
        for part in parts:
            plan = self._plan((part.stop - part.start, *images.shape[1:]))
            if not len(made):
                made = np.empty((len(images), *plan.shape[1:]), np.float32)
            plan(images[part], made[part])
        return made

    def _plan(self, shape: tuple[int, ...]) -> Plan:
        if shape not in self.plans:
            with understood():
                self.plans[shape] = Plan(self.network, shape, self.shared)
        return self.plans[shape]
