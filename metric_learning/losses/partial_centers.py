"""Partial FC: the classes of the batch and a random share of the others take part in a step, and no other rows."""

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor

from metric_learning.checks import check_range
from metric_learning.losses.centers import Centers, Columns, draw_rows
from metric_learning.losses.rows import Rule
from metric_learning.ops import ROWS_AT_ONCE

BLOCK = 2**16  # classes that negatives are drawn from at a time
Rows = NDArray[np.int64]


class PartialCenters(Centers):
    """One learned vector a class, of which a sample takes part: An et al., arXiv 2010.05222, section 3.2.

    rate in 0..1: the share of all classes that is drawn, without replacement, from every block of 65,536 classes (at
    least one of each); the classes of the batch come on top. So a draw does not depend on the number of processes, and
    its cost grows with the sample. It follows Paddle's seeded generator. In evaluation mode all classes take part.

    weight (C, D), and bias (C,) where asked for, start as those of AllCenters, but are buffers, not parameters:
    `update` moves the rows that took part, and what the optimizer remembers of them, and no others.
    """

    def __init__(self, num_classes: int, dim: int, rate: float = 0.1, bias: bool = False) -> None:
        super().__init__(num_classes, dim)
        check_range("--partial_rate", rate, 0.0, 1.0)
        self.rate = rate
        rows = self.last - self.first
        self.register_buffer("weight", paddle.zeros([rows, dim]))
        draw_rows(self.weight, self.first, num_classes)
        self.register_buffer("bias", paddle.zeros([rows]) if bias else None)
        self._tables = ["weight", "bias"] if bias else ["weight"]
        self._slots: list[str] = []
        self._taken: tuple[Tensor, dict[str, Tensor]] | None = None

    def forward(self, labels: Tensor) -> Columns:
        if not self.training:
            return Columns(self.weight, self.bias, *self._place(labels))
        place, here = self._place(labels)
        own = place.numpy() if here is None else place.numpy()[here.numpy() > 0.5]
        chosen = np.union1d(self.sample(), own)
        if not len(chosen):  # few classes on many processes
            self._taken = None
            return Columns(self.weight[:1], None if self.bias is None else self.bias[:1], place * 0, here, idle=True)
        index = paddle.to_tensor(chosen)
        leaves = {name: paddle.gather(getattr(self, name), index).detach() for name in self._tables}
        for leaf in leaves.values():
            leaf.stop_gradient = False
        self._taken = index, leaves
        target = np.minimum(np.searchsorted(chosen, place.numpy()), len(chosen) - 1)
        return Columns(leaves["weight"], leaves.get("bias"), paddle.to_tensor(target), here)

    def sample(self) -> Rows:
        """Rows of this process's share that take part whatever the batch holds, ascending."""
        seed = int(paddle.randint(0, 2**31 - 1, [1]).item())  # the same on all processes, which draw alike
        found = []
        for block in range(self.first // BLOCK, -(-self.last // BLOCK)):
            size = min(BLOCK, self.num_classes - block * BLOCK)
            rng = np.random.default_rng((seed, block))
            count = max(1, round(self.rate * size))
            found.append(np.sort(rng.choice(size, count, replace=False, shuffle=False)) + block * BLOCK)
        rows = np.concatenate(found)
        return (rows[(rows >= self.first) & (rows < self.last)] - self.first).astype(np.int64)

    def sharded(self) -> list[str]:
        return self._tables + self._slots

    # ---- what the optimizer asks for

    def prepare(self, rule: Rule) -> None:
        """Make room for what the rule remembers of each row: buffers, which are saved like the rows themselves."""
        for name in self._tables:
            for slot in rule.slots:
                self.register_buffer(f"{name}_{slot}", paddle.zeros_like(getattr(self, name)))
                self._slots.append(f"{name}_{slot}")
        self.register_buffer("updates", paddle.zeros([1], dtype="int64"))

    def gradients(self) -> list[Tensor]:
        """Those of the rows that took part in the last batch."""
        leaves = self._taken[1].values() if self._taken else ()
        return [leaf.grad for leaf in leaves if leaf.grad is not None]

    def update(self, rule: Rule, rate: float, factor: float = 1.0) -> None:
        """Move the rows that took part in the last batch by `rule`, their gradients times `factor`, once."""
        if self._taken is None:
            return
        (index, leaves), self._taken = self._taken, None
        with paddle.no_grad():
            paddle.assign(self.updates + 1, self.updates)
            step = int(self.updates.item())
            for name, leaf in leaves.items():
                tables = [getattr(self, each) for each in (name, *(f"{name}_{slot}" for slot in rule.slots))]
                # A piece at a time: the rows of a step may be a good part of what there is room for.
                for start in range(0, len(index), ROWS_AT_ONCE):
                    piece = slice(start, start + ROWS_AT_ONCE)
                    before = [paddle.gather(table, index[piece]) for table in tables[1:]]
                    moved, after = rule(leaf.detach()[piece], leaf.grad[piece] * factor, before, rate, step)
                    for table, rows in zip(tables, [moved, *after], strict=True):
                        paddle.scatter_(table, index[piece], rows)
