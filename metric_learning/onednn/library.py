"""oneDNN, as Paddle's wheel brings it along, through its C interface: memory layouts, memory, primitives.

Only what a convolutional network needs is here. Numbers are those of oneDNN 3's `dnnl_types.h`, which its releases
keep. Dimensions are (N, C, H, W), of weights (O, I, H, W) or with groups (G, O, I, H, W).
"""

import contextlib
import ctypes
import functools
import weakref
from collections.abc import Iterator, Sequence
from ctypes import POINTER, byref, c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paddle

FLOAT32, BFLOAT16 = 3, 2
TRAINING, BACKWARD = 64, 128
ANY, PLAIN, CHANNELS_LAST = 1, {1: 2, 2: 3, 4: 5, 5: 6}, 22
CONVOLUTION = 1  # direct
POOLING = {"max": 511, "avg": 1023}  # avg: padding is not counted
ADD, MULTIPLY = 131056, 131057
LINEAR = 38  # an element-wise function: alpha x + beta
KERNEL = 8  # the query of a primitive for the name of what computes it
GLOBAL_STATISTICS, SCALE_AND_SHIFT, FUSED_RELU = 1, 2 | 4, 8
# What stands where in a primitive, and in a query of it.
SRC, SRC_1, DST, WEIGHTS, BIAS, MEAN, VARIANCE, SCALE, SHIFT, WORKSPACE = 1, 2, 17, 33, 41, 49, 50, 51, 52, 64
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS, DIFF_SCALE, DIFF_SHIFT = 129, 145, 161, 169, 255, 256
ASKED = {SRC: 129, DIFF_SRC: 130, WEIGHTS: 131, DIFF_WEIGHTS: 132, DST: 133, DIFF_DST: 134, WORKSPACE: 135}
ALIGNED = 64  # bytes


class OneDnnError(RuntimeError):
    """The library is missing, of another major version, or does not know how to do what was asked."""


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Inside, a traced network is read; what comes of one that is put together in another way becomes a OneDnnError."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise OneDnnError(f"this network is not understood: {error!r:.200}.") from error


@functools.cache
def library() -> Any:
    """The library that Paddle itself has loaded. OneDnnError where there is none that this module knows."""
    path = Path(paddle.__file__).parent / "libs" / "libdnnl.so.3"
    try:
        found = ctypes.CDLL(str(path))
        found.dnnl_version.restype = POINTER(c_int)
        if found.dnnl_version()[0] != 3:
            raise OneDnnError(f"{path} is oneDNN {found.dnnl_version()[0]}, not 3.")
    except (OSError, AttributeError) as error:
        raise OneDnnError(str(error)) from error
    found.dnnl_memory_desc_get_size.restype = c_size_t
    found.dnnl_memory_desc_get_size.argtypes = [c_void_p]
    found.dnnl_primitive_desc_query_md.restype = c_void_p
    found.dnnl_primitive_desc_query_md.argtypes = [c_void_p, c_int, c_int]
    found.dnnl_memory_desc_equal.argtypes = [c_void_p, c_void_p]
    found.dnnl_primitive_execute.argtypes = [c_void_p, c_void_p, c_int, c_void_p]
    found.dnnl_memory_set_data_handle.argtypes = [c_void_p, c_void_p]
    return found


def call(name: str, *arguments: Any) -> None:
    """A function of the library; OneDnnError where it says no."""
    status = getattr(library(), f"dnnl_{name}")(*arguments)
    if status:
        raise OneDnnError(f"oneDNN refuses {name}: status {status}.")


@functools.cache
def engine() -> c_void_p:
    made = c_void_p()
    call("engine_create", byref(made), c_int(1), c_size_t(0))
    return made


@functools.cache
def stream() -> c_void_p:
    made = c_void_p()
    call("stream_create", byref(made), engine(), c_uint(1))
    return made


def destroyed_with(owner: Any, kind: str, pointer: c_void_p) -> None:
    """What the library made for a Python object goes when that goes."""
    weakref.finalize(owner, getattr(library(), f"dnnl_{kind}_destroy"), pointer).atexit = False


class Layout:
    """Dimensions, type, and in which order the numbers lie; `tag` ANY leaves the order to a primitive."""

    def __init__(self, dims: Sequence[int], kind: int = FLOAT32, tag: int | None = None) -> None:
        self.dims, self.kind = tuple(dims), kind
        made = c_void_p()
        tag = PLAIN[len(self.dims)] if tag is None else tag
        call("memory_desc_create_with_tag", byref(made), len(self.dims), _long(self.dims), c_int(kind), c_int(tag))
        self.pointer = made
        destroyed_with(self, "memory_desc", made)

    @classmethod
    def asked(cls, primitive: c_void_p, place: int, dims: Sequence[int], kind: int) -> "Layout":
        """What a primitive's description wants at one of its places."""
        layout = cls.__new__(cls)
        layout.dims, layout.kind = tuple(dims), kind
        made = c_void_p()
        given = library().dnnl_primitive_desc_query_md(primitive, ASKED[place], 0)
        call("memory_desc_clone", byref(made), c_void_p(given))
        layout.pointer = made
        destroyed_with(layout, "memory_desc", made)
        return layout

    @property
    def size(self) -> int:
        """Bytes."""
        return int(library().dnnl_memory_desc_get_size(self.pointer))

    def same(self, other: "Layout") -> bool:
        return bool(library().dnnl_memory_desc_equal(self.pointer, other.pointer))


class Buffer:
    """Aligned bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.array = np.empty(size + ALIGNED, np.uint8)
        self.address = -(-self.array.ctypes.data // ALIGNED) * ALIGNED


class Memory:
    """A layout with numbers in it: in a buffer, or wherever `put` says before each use."""

    def __init__(self, layout: Layout, buffer: Buffer | None = None) -> None:
        self.layout, self.buffer = layout, buffer
        made = c_void_p()
        address = c_void_p(buffer.address if buffer else None)
        call("memory_create", byref(made), layout.pointer, engine(), address)
        self.pointer = made
        destroyed_with(self, "memory", made)

    def put(self, address: int) -> None:
        library().dnnl_memory_set_data_handle(self.pointer, address)


def floats(address: int, count: int) -> np.ndarray:
    """The float32 numbers (count,) that lie there: a view."""
    found: np.ndarray = np.ctypeslib.as_array((c_float * count).from_address(address))
    return found


class Description:
    """How a primitive will work: what its places must look like, before any memory is given to it."""

    def __init__(self, kind: str, *arguments: Any) -> None:
        made = c_void_p()
        given = [argument.pointer if isinstance(argument, Layout) else argument for argument in arguments]
        call(f"{kind}_primitive_desc_create", byref(made), *given)
        self.pointer = made
        destroyed_with(self, "primitive_desc", made)

    def wants(self, place: int, dims: Sequence[int], kind: int) -> Layout:
        return Layout.asked(self.pointer, place, dims, kind)

    @property
    def slow(self) -> bool:
        """Whether plain loops compute it, up to hundreds of times slower: there is no kernel for these layouts."""
        found = ctypes.c_char_p()
        call("primitive_desc_query", self.pointer, c_int(KERNEL), c_int(0), byref(found))
        return (found.value or b"").startswith(b"ref")


class Argument(ctypes.Structure):
    _fields_ = [("place", c_int), ("memory", c_void_p)]


class Primitive:
    """A description with its memory: run() computes it."""

    def __init__(self, description: Description, places: dict[int, Memory]) -> None:
        made = c_void_p()
        call("primitive_create", byref(made), description.pointer)
        self.pointer, self.count, self.places = made, len(places), places
        listed = [Argument(place, memory.pointer) for place, memory in places.items()]
        self.arguments = (Argument * len(listed))(*listed)
        self._run = library().dnnl_primitive_execute
        self._stream = stream()
        destroyed_with(self, "primitive", made)

    def run(self) -> None:
        status = self._run(self.pointer, self._stream, self.count, self.arguments)
        if status:
            raise OneDnnError(f"oneDNN failed with status {status}.")


def wait() -> None:
    call("stream_wait", stream())


# ---- descriptions


class Window(NamedTuple):
    """What moves over a map: kernel and strides (height, width), pads (top, bottom, left, right)."""

    kernel: Sequence[int]
    strides: Sequence[int]
    pads: Sequence[int]

    def sides(self, pooling: bool = False) -> tuple[Any, ...]:
        """As the library takes them; a convolution knows its kernel from its weights. No dilation."""
        kernel = [_long(self.kernel)] if pooling else []
        return _long(self.strides), *kernel, _long((0, 0)), _long(self.pads[0::2]), _long(self.pads[1::2])

    def over(self, sides: Sequence[int]) -> list[int]:
        """Height and width of what comes out, for a map of these sides."""
        ends = [side + self.pads[2 * axis] + self.pads[2 * axis + 1] for axis, side in enumerate(sides)]
        return [(end - size) // step + 1 for end, size, step in zip(ends, self.kernel, self.strides, strict=True)]


def convolution(x: Layout, weight: Layout, bias: Layout | None, y: Layout, window: "Window") -> Description:
    maps = c_int(TRAINING), c_int(CONVOLUTION), x, weight, bias, y
    return Description("convolution_forward", engine(), *maps, *window.sides(), None)


def convolution_data(dx: Layout, weight: Layout, dy: Layout, window: "Window", hint: Description) -> Description:
    maps = c_int(CONVOLUTION), dx, weight, dy
    return Description("convolution_backward_data", engine(), *maps, *window.sides(), hint.pointer, None)


def convolution_weights(
    x: Layout, dweight: Layout, dbias: Layout | None, dy: Layout, window: "Window", hint: Description
) -> Description:
    maps = c_int(CONVOLUTION), x, dweight, dbias, dy
    return Description("convolution_backward_weights", engine(), *maps, *window.sides(), hint.pointer, None)


def normalisation(x: Layout, y: Layout, epsilon: float, flags: int) -> Description:
    return Description(
        "batch_normalization_forward", engine(), c_int(TRAINING), x, y, c_float(epsilon), c_uint(flags), None
    )


def normalisation_backward(
    dx: Layout, dy: Layout, x: Layout, epsilon: float, flags: int, hint: Description
) -> Description:
    kind = "batch_normalization_backward"
    return Description(kind, engine(), c_int(BACKWARD), dx, dy, x, c_float(epsilon), c_uint(flags), hint.pointer, None)


def eltwise(algorithm: int, x: Layout, y: Layout, alpha: float, beta: float) -> Description:
    numbers = c_float(alpha), c_float(beta)
    return Description("eltwise_forward", engine(), c_int(TRAINING), c_int(algorithm), x, y, *numbers, None)


def eltwise_backward(
    algorithm: int, dx: Layout, dy: Layout, data: Layout, alpha: float, beta: float, hint: Description
) -> Description:
    numbers = c_float(alpha), c_float(beta)
    return Description("eltwise_backward", engine(), c_int(algorithm), dx, dy, data, *numbers, hint.pointer, None)


def prelu(x: Layout, weight: Layout, y: Layout) -> Description:
    return Description("prelu_forward", engine(), c_int(TRAINING), x, weight, y, None)


def prelu_backward(
    x: Layout, weight: Layout, dx: Layout, dweight: Layout, dy: Layout, hint: Description
) -> Description:
    return Description("prelu_backward", engine(), x, weight, dx, dweight, dy, hint.pointer, None)


def pooling(algorithm: int, x: Layout, y: Layout, window: "Window") -> Description:
    maps = c_int(TRAINING), c_int(algorithm), x, y
    return Description("pooling_forward", engine(), *maps, *window.sides(pooling=True), None)


def pooling_backward(algorithm: int, dx: Layout, dy: Layout, window: "Window", hint: Description) -> Description:
    maps = c_int(algorithm), dx, dy
    return Description("pooling_backward", engine(), *maps, *window.sides(pooling=True), hint.pointer, None)


def binary(algorithm: int, a: Layout, b: Layout, y: Layout) -> Description:
    return Description("binary", engine(), c_int(algorithm), a, b, y, None)


def reorder(a: Layout, b: Layout) -> Description:
    return Description("reorder", a, engine(), b, engine(), None)


def _long(values: Sequence[int]) -> Any:
    return (c_int64 * len(values))(*values)
