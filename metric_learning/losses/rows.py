"""How an optimizer moves some rows of a table: Paddle's own optimizers would touch, and remember, all of them."""

from typing import Protocol

import paddle
from paddle import Tensor


class Rule(Protocol):
    """values (R, ...), their gradient, what is remembered of these rows -> new values, what is remembered then.

    rate: the learning rate; step: this update's number, from 1. `slots` names what is remembered of a row.
    """

    slots: tuple[str, ...]

    def __call__(
        self, values: Tensor, slope: Tensor, remembered: list[Tensor], rate: float, step: int
    ) -> tuple[Tensor, list[Tensor]]: ...


class MomentumRows:
    """v <- momentum v + g + weight_decay w; w <- w - rate v, as paddle.optimizer.Momentum with L2Decay."""

    slots: tuple[str, ...] = ("velocity",)

    def __init__(self, momentum: float, weight_decay: float) -> None:
        self.momentum, self.weight_decay = momentum, weight_decay

    def __call__(
        self, values: Tensor, slope: Tensor, remembered: list[Tensor], rate: float, step: int
    ) -> tuple[Tensor, list[Tensor]]:
        velocity = self.momentum * remembered[0] + (slope + self.weight_decay * values)
        return values - rate * velocity, [velocity]


class AdamRows:
    """Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1) of the rows of a step, as paddle.optimizer.Adam with L2Decay.

    The corrections at the start go by the number of updates, not by how often a row took part ("lazy" Adam).
    """

    slots: tuple[str, ...] = ("moment1", "moment2")

    def __init__(self, weight_decay: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        self.weight_decay, self.beta1, self.beta2, self.epsilon = weight_decay, beta1, beta2, epsilon

    def __call__(
        self, values: Tensor, slope: Tensor, remembered: list[Tensor], rate: float, step: int
    ) -> tuple[Tensor, list[Tensor]]:
        slope = slope + self.weight_decay * values
        first = self.beta1 * remembered[0] + (1 - self.beta1) * slope
        second = self.beta2 * remembered[1] + (1 - self.beta2) * slope * slope
        root = (1 - self.beta2**step) ** 0.5
        moved = values - rate * root / (1 - self.beta1**step) * first / (paddle.sqrt(second) + self.epsilon * root)
        return moved, [first, second]
