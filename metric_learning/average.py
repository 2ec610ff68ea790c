"""A moving average of the weights: what is evaluated and kept, while the weights themselves go on."""

from collections.abc import Iterator
from contextlib import contextmanager

import paddle
from paddle import Tensor, nn

from metric_learning import dist
from metric_learning.batch_norm import mean_statistics
from metric_learning.checks import check_range
from metric_learning.embedder import put_arrays
from metric_learning.files import Arrays


class Average:
    """average <- d average + (1 - d) weights, after every update; running statistics are averaged too.

    d = min(decay, (1 + t) / (10 + t)) at update t (from 1), so that short runs are not held at their start, as
    TensorFlow's ExponentialMovingAverage does. Averaged weights generalise better: Polyak and Juditsky (1992).
    """

    def __init__(self, network: nn.Layer, decay: float) -> None:
        check_range("--ema", decay, 0.0, 0.999999)
        self.network, self.decay = network, decay
        self.restart()

    def restart(self) -> None:
        """Begin at the weights as they are now."""
        self.updates = 0
        self.values = self._copied()

    def _now(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def _copied(self) -> dict[str, Tensor]:
        return {name: value.clone().detach() for name, value in self._now().items()}

    def update(self) -> None:
        """Take the weights as they are now in."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        with paddle.no_grad():
            for name, value in self._now().items():
                now = value.detach()
                self.values[name] = now + decay * (self.values[name] - now)  # what stays, stays to the last bit

    def share_statistics(self) -> None:
        """Its running statistics, which each process may have its own of, become their mean on all processes."""
        if dist.size() > 1:
            with self.in_place():
                mean_statistics(self.network)
                self.values = self._copied()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the network has the averaged weights."""
        kept = self._copied()
        self._put(self.values)
        try:
            yield
        finally:
            self._put(kept)

    def _put(self, values: dict[str, Tensor]) -> None:
        for name, value in self._now().items():
            value.set_value(values[name])

    def arrays(self) -> Arrays:
        return {name: value.numpy() for name, value in self.values.items()}

    def restore(self, arrays: Arrays, updates: int, where: str) -> None:
        """Take what `arrays` gave, after so many updates."""
        with self.in_place():
            put_arrays(self.network, arrays, where)
            self.values = self._copied()
        self.updates = updates
