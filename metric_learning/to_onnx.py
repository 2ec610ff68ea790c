"""The way to ONNX: paddle2onnx, put right where it gives another function, and ONNX Runtime, which checks what came."""

import contextlib
import importlib
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, nn

from metric_learning.checks import UserError
from metric_learning.engine import Outputs
from metric_learning.files import one_line
from metric_learning.runtime import math_threads, paddle_version, silenced

OPSET = 13
TOOLS = ("paddle2onnx", "onnx", "onnxruntime")


def check_tools(kind: str) -> None:
    """A UserError, with what to install, where an export as ONNX lacks one of its tools."""
    for name in TOOLS if kind == "onnx" else ():
        tool(name)


def tool(name: str) -> Any:
    """One of TOOLS, imported."""
    try:
        with silenced(), contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module(name)
    except Exception as error:  # paddle2onnx raises a ValueError beside another Paddle than its own
        version, numbers = paddle_version()
        wanted = "paddle2onnx" if numbers >= (3,) else "paddle2onnx==1.3.1 onnx==1.17.0"
        why = (
            "is not installed"
            if isinstance(error, ModuleNotFoundError)
            else f"can't be used ({one_line(error).split('. ')[0][:120]})"
        )
        raise UserError(
            f"--export=onnx needs {name}, which {why}. With {version}: pip install {wanted} onnxruntime."
        ) from error


def convert(program: Path, outputs: Sequence[str]) -> bytes:
    """A saved Paddle program -> an ONNX model whose outputs have these names. UserError where it can't be converted."""
    weights = program.with_suffix(".pdiparams")
    try:
        # Without a file to write to: else it may install packages by itself to make constants of what is constant.
        with silenced(), contextlib.redirect_stdout(io.StringIO()):
            data = tool("paddle2onnx").export(str(program), str(weights), None, OPSET)
        if not data:
            raise ValueError("it gave nothing")
        return _tidied(data, outputs)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # it leaves the program where it can't go on
        raise UserError(
            f"paddle2onnx can't convert this network: {one_line(error)[:160]}. Take --export=paddle."
        ) from error


def _tidied(data: bytes, outputs: Sequence[str]) -> bytes:
    """The model with other names for its outputs, which Paddle counts through, and without constants for nobody."""
    model = tool("onnx").load_from_string(data)
    graph = model.graph
    new = {value.name: name for value, name in zip(graph.output, outputs, strict=True)}
    for value in graph.output:
        value.name = new[value.name]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "pictures"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
    used = {name for node in graph.node for name in node.input}
    kept = [node for node in graph.node if node.op_type != "Constant" or node.output[0] in used]
    del graph.node[:]
    graph.node.extend(kept)
    tool("onnx").checker.check_model(model)
    made: bytes = model.SerializeToString()
    return made


def session(path: Path) -> Outputs:
    """The model in a file, run by ONNX Runtime on the CPU."""
    runtime = tool("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = math_threads(), 3
    made = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: [np.asarray(found) for found in made.run(None, {"images": images})]


# ---- pooling


class WindowMeans(nn.Layer):
    """map (B, C, h, w) of one size -> (B, C, H, W): adaptive average pooling, as products with two fixed matrices.

    paddle2onnx makes average pooling by windows of one size of it, which is another function where the map can't be
    divided into them.
    """

    def __init__(self, given: Sequence[int], places: Sequence[int]) -> None:
        super().__init__()
        rows, columns = (window_matrix(g, p) for g, p in zip(given, places, strict=True))
        self.register_buffer("rows", paddle.to_tensor(rows))
        self.register_buffer("columns", paddle.to_tensor(np.ascontiguousarray(columns.T)))

    def forward(self, x: Tensor) -> Tensor:
        return paddle.matmul(paddle.matmul(self.rows, x), self.columns)


def window_matrix(given: int, places: int) -> NDArray[np.float32]:
    """(places, given): row i is the mean of the values from floor(i given / places) to ceil((i + 1) given / places)."""
    matrix = np.zeros((places, given), np.float32)
    for i in range(places):
        first, end = i * given // places, math.ceil((i + 1) * given / places)
        matrix[i, first:end] = 1 / (end - first)
    return matrix


@contextlib.contextmanager
def with_plain_pooling(net: nn.Layer, shape: Sequence[int]) -> Iterator[None]:
    """Inside, products stand for every adaptive average pooling of `net` to more than one place, for this size."""
    pools = [layer for layer in net.sublayers() if isinstance(layer, nn.AdaptiveAvgPool2D) and _places(layer) != (1, 1)]
    stand_in = {id(layer): WindowMeans(given, _places(layer)) for layer, given in _maps(net, shape, pools)}
    replaced = []
    for parent in net.sublayers(include_self=True):
        for name, layer in list(parent._sub_layers.items()):
            if id(layer) in stand_in:
                parent._sub_layers[name] = stand_in[id(layer)]
                replaced.append((parent, name, layer))
    try:
        yield
    finally:
        for parent, name, layer in replaced:
            parent._sub_layers[name] = layer


def _places(layer: nn.Layer) -> tuple[int, int]:
    size = layer._output_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _maps(net: nn.Layer, shape: Sequence[int], layers: list[nn.Layer]) -> list[tuple[nn.Layer, list[int]]]:
    """Each layer with the height and width of the map that it gets."""
    seen: list[tuple[nn.Layer, list[int]]] = []
    hooks = [layer.register_forward_pre_hook(lambda own, x: seen.append((own, x[0].shape[2:]))) for layer in layers]
    try:
        if layers:
            with paddle.no_grad():
                net(paddle.zeros([1, *shape]))
    finally:
        for hook in hooks:
            hook.remove()
    return seen
