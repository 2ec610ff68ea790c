"""The optimizer of a run: gradients of all processes, their clipping, and the update of network and class centres."""

import math
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.files import Arrays, one_line
from metric_learning.losses.centers import Centers
from metric_learning.losses.partial_centers import PartialCenters
from metric_learning.losses.rows import AdamRows, MomentumRows, Rule

FIRST_SCALE, GOOD_STEPS = 2.0**16, 2000  # as in Paddle's and torch's scalers


class Optimizer:
    """SGD with momentum or Adam, L2 weight decay and clipping by the global norm, over a network and its loss.

    The network's gradients are added up over the processes; a loss's parameters are class centres, which are divided
    among them, so theirs are whole already. clip_norm 0: no clipping. `set_lr`, then `step`, which also clears the
    gradients.

    scaling: for float16, whose small gradients would be 0 (Micikevicius et al., arXiv 1710.03740, section 3.2). The
    gradients come multiplied by `scale`. Where they are not finite the update is left out and `scale` halved; after
    GOOD_STEPS updates without that it is doubled.
    """

    def __init__(
        self,
        kind: str,
        network: nn.Layer,
        loss: nn.Layer,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        clip_norm: float = 0.0,
        scaling: bool = False,
    ) -> None:
        self.whole = [p for p in network.parameters() if not p.stop_gradient]
        self.own = [p for p in loss.parameters() if not p.stop_gradient]
        self.sampled = [layer for layer in loss.sublayers(include_self=True) if isinstance(layer, PartialCenters)]
        self.clip_norm, self.scaling = clip_norm, scaling
        self.scale, self.good_steps = (FIRST_SCALE if scaling else 1.0), 0
        self._sharded = {id(p) for layer in _centers(loss) for p in layer.parameters() if not p.stop_gradient}
        decay = paddle.regularizer.L2Decay(weight_decay) if weight_decay else None
        shared: dict[str, Any] = {"parameters": [*self.whole, *self.own], "weight_decay": decay}
        self.rule: Rule
        self.rate = 0.0
        if kind == "adam":
            self.rule, self.main = AdamRows(weight_decay), paddle.optimizer.Adam(0.0, **shared)
        else:
            self.rule = MomentumRows(momentum, weight_decay)
            self.main = paddle.optimizer.Momentum(0.0, momentum, **shared)
        for layer in self.sampled:
            layer.prepare(self.rule)

    def set_lr(self, rate: float) -> None:
        self.rate = rate
        self.main.set_lr(rate)

    def step(self) -> None:
        """Update by the gradients that are there; they are gone afterwards."""
        dist.all_reduce_gradients(self.whole)
        factor = self._factor() if self.clip_norm or self.scaling else 1.0
        if math.isfinite(factor):
            for slope in self._slopes() if factor != 1.0 else []:
                slope.set_value(slope * factor)
            self.main.step()
            for layer in self.sampled:
                layer.update(self.rule, self.rate, factor)
        self.main.clear_grad()
        if self.scaling:
            self._rescale(math.isfinite(factor))

    def _slopes(self) -> list[Tensor]:
        return [p.grad for p in (*self.whole, *self.own) if p.grad is not None]

    def _factor(self) -> float:
        """What all gradients are to be multiplied by, so that their norm over all processes is at most clip_norm.

        NaN where they were scaled too much. Without scaling they go on as they are: the loss will say so.
        """
        whole = _squares([p.grad for p in self.whole if p.grad is not None])
        own = [p.grad for p in self.own if p.grad is not None]
        here = _squares([*own, *(slope for layer in self.sampled for slope in layer.gradients())])
        norm = math.sqrt((whole + dist.all_sum(here)).item()) / self.scale
        if not math.isfinite(norm):
            return math.nan if self.scaling else 1.0
        return (self.clip_norm / max(norm, self.clip_norm) if self.clip_norm else 1.0) / self.scale

    def _rescale(self, good: bool) -> None:
        self.good_steps = self.good_steps + 1 if good else 0
        if not good:
            self.scale = max(self.scale / 2, 1.0)
        elif self.good_steps % GOOD_STEPS == 0:
            self.scale *= 2

    # ---- what a checkpoint keeps of it

    def arrays(self) -> Arrays:
        """Its state by the parameter's place in its list: Paddle's own keys count every layer ever made."""
        arrays = {}
        state = self.main.state_dict()
        for place, parameter in enumerate(self.main._parameter_list):
            prefix = f"{parameter.name}_"
            for key, value in state.items():
                if key.startswith(prefix) and hasattr(value, "numpy"):
                    arrays[f"{place}.{key.removeprefix(prefix)}"] = np.asarray(value.numpy())
        return arrays

    def is_sharded(self, name: str, array: np.ndarray) -> bool:
        """Whether an array of `arrays` has a row for each class that this process holds."""
        parameter = self._parameter(name)
        return id(parameter) in self._sharded and array.shape == tuple(parameter.shape)

    def _parameter(self, name: str) -> Tensor:
        place = name.partition(".")[0]
        if not (place.isascii() and place.isdigit() and len(place) < 10) or int(place) >= len(
            self.main._parameter_list
        ):
            raise UserError(f"The checkpoint's optimizer has other parameters than this run's ({name}).")
        return self.main._parameter_list[int(place)]

    def restore(self, arrays: Arrays) -> None:
        """Take what `arrays` gave."""
        state = {}
        for name, value in arrays.items():
            parameter = self._parameter(name)
            if value.dtype.kind != "f" or (value.size != 1 and value.shape != tuple(parameter.shape)):
                raise UserError(f"The checkpoint's optimizer has another size than this run's ({name}).")
            state[f"{parameter.name}_{name.partition('.')[2]}"] = paddle.to_tensor(value.astype(np.float32))
        try:
            if state:
                self.main.set_state_dict(state)
        except (AssertionError, ValueError) as error:
            raise UserError(f"The checkpoint's optimizer does not fit this run's: {one_line(error)}.") from error


def _squares(slopes: list[Tensor]) -> Tensor:
    """The sum of the squares of all entries, (1,) float32."""
    return paddle.add_n([(s.astype("float32") ** 2).sum().reshape([1]) for s in slopes] or [paddle.zeros([1])])


def _centers(loss: nn.Layer) -> list[Centers]:
    return [layer for layer in loss.sublayers(include_self=True) if isinstance(layer, Centers)]
