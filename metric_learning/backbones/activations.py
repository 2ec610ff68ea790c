"""Activations in a form that every way through Paddle takes, under the names that others' weights have."""

from typing import Any

from paddle import Tensor, nn
from paddle.base.layer_helper import LayerHelper
from paddle.framework import in_dynamic_or_pir_mode

FIRST_SLOPE = 0.25  # arXiv 1502.01852, section 2.1


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), same shape."""
    return nn.functional.sigmoid(x) if in_dynamic_or_pir_mode() else _older_graph("sigmoid", x)


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution's cumulative at x (arXiv 1606.08415, section 2), exact, same shape."""
    return nn.functional.gelu(x) if in_dynamic_or_pir_mode() else _older_graph("gelu", x, approximate=False)


def _older_graph(operator: str, x: Tensor, **attributes: Any) -> Tensor:
    """The operator put into a static graph of the older kind, which oneDNN training needs.

    Some of Paddle 3.3's own functions can't be traced into those: sigmoid, gelu, matmul, exp, tanh and others.
    """
    helper = LayerHelper(operator)
    out = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(type=operator, inputs={"X": x}, outputs={"Out": out}, attrs=attributes)
    return out


class PReLU(nn.Layer):
    """map (B, C, ...) -> x where positive, weight x elsewhere; a weight a channel (arXiv 1502.01852, equation 1).

    The name of the parameter is `weight`, as in torch; Paddle's own layer calls it `_weight`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        start = nn.initializer.Constant(FIRST_SLOPE)
        self.weight = self.create_parameter([channels], default_initializer=start)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.prelu(x, self.weight)
