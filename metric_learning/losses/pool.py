"""The dynamic class pool: class centres that another network makes and that a pool of bounded size keeps.

Faster Face Classification (F2C), Wang et al., arXiv 2105.10375; the details are those of the authors' code
(github.com/tiandunx/FFC), but for these points:

- Row 1 takes part for every identity. Their second product has row 1 only for identities of the gallery batch that
  were in the pool before, and row 0 for all others.
- The pool's random start has directions from everywhere; theirs are of positive numbers, which lie in a narrow cone.
- The mean over the pictures in the pool, and over those outside, is that of the pictures of all processes; theirs is a
  mean of each process, and then over the processes.
- Of two features of one batch that go to the same place the later one stays; theirs leaves it open on a GPU.
"""

import numpy as np
import numpy.typing as npt
import paddle
from paddle import Tensor

from metric_learning import dist
from metric_learning.checks import UserError, check_range
from metric_learning.losses.base import Loss, check_labels, labels_on_host
from metric_learning.losses.centers import Centers, Columns, draw_rows
from metric_learning.losses.element import ElementLoss
from metric_learning.losses.ledger import Ledger, Writing
from metric_learning.losses.margins import Margin
from metric_learning.ops import l2_normalize

ROWS = 2
_BOOKS = ("identity", "used", "turn")


class PoolCenters(Centers):
    """slots (B,) int64 in 0..Q-1 -> Columns of the row that is shown, as they are after the last `write`.

    A pool (2, Q, D) of unit vectors, random at first, kept as two tables row0 and row1, of which this process holds its
    share of the slots; and the ledger of all of them, which every process keeps alike. All are buffers.
    An identity that has written one row only has a copy of it in the other.
    """

    def __init__(self, slots: int, dim: int) -> None:
        super().__init__(slots, dim)
        for row in range(ROWS):
            table = paddle.zeros([self.last - self.first, dim])
            draw_rows(table, self.first, slots)
            self.register_buffer(f"row{row}", l2_normalize(table))
        for name in _BOOKS:
            self.register_buffer(name, paddle.to_tensor(getattr(Ledger.of(slots), name)))
        self._tables: list[Tensor] = []
        self._shown = 0

    def sharded(self) -> list[str]:
        return [f"row{row}" for row in range(ROWS)]

    def forward(self, labels: Tensor) -> Columns:
        return Columns(self._tables[self._shown], None, *self._place(labels))

    def show(self, row: int) -> Tensor:
        """This process's slots of a row (Q', D); `forward` gives that row from now on."""
        self._shown = row
        return self._tables[row]

    def ledger(self) -> Ledger:
        """A copy of the bookkeeping, from the buffers."""
        return Ledger(*(np.array(getattr(self, name).numpy(), np.int64) for name in _BOOKS))

    def write(self, features: Tensor, names: npt.NDArray[np.int64], keep: bool) -> Ledger:
        """Put features (n, D) of these identities (n,) in, one after the other; the ledger behind it.

        keep False: only what `show` gives has them, the pool itself stays as it is.
        """
        ledger = self.ledger()
        places = _by_row(ledger.write(names.tolist()))
        with paddle.no_grad():
            unit = l2_normalize(features.detach())
            self._tables = [self._written(row, unit, places[row]) for row in range(ROWS)]
            if keep:
                for row, table in enumerate(self._tables):
                    paddle.assign(table, getattr(self, f"row{row}"))
                for name in _BOOKS:
                    getattr(self, name).set_value(paddle.to_tensor(getattr(ledger, name)))
        return ledger

    def _written(self, row: int, unit: Tensor, places: dict[int, int]) -> Tensor:
        """A new table: the graph of a pass keeps its own while the pool goes on."""
        table = getattr(self, f"row{row}")
        mine = [(slot - self.first, number) for slot, number in places.items() if self.first <= slot < self.last]
        if not mine:
            return table.clone()
        slots, numbers = (paddle.to_tensor(np.array(column, np.int64)) for column in zip(*mine, strict=True))
        return paddle.scatter(table, slots, paddle.gather(unit, numbers))


def _by_row(writings: list[Writing]) -> list[dict[int, int]]:
    """For each row: slot -> number of the feature that is in it at the end."""
    found: list[dict[int, int]] = [{} for _ in range(ROWS)]
    for number, (slot, row, new) in enumerate(writings):
        for place in range(ROWS) if new else (row,):
            found[place][slot] = number
    return found


class PoolLoss(Loss):
    """Probes (B, D) with labels (B,), and gallery features (G, D) with theirs (G,), of any float type -> float32.

    The features, of the gallery network, are written into the pool first; with keep False the pool forgets them again
    behind this call. Then for each of the pool's two rows, and the sum of both:

    - pictures whose identity is in the pool: the mean of the margin's cross-entropy over the Q slots, and all that
      ElementLoss has beside (focal factor, dropout, MagFace's penalty);
    - the others: the mean of their k largest cosines to the slots, cut at 0; k = min(max(floor(0.0002 Q), 3), 10), and
      not more than Q. Nothing scales it.

    One of both that has no picture adds 0. Margins that keep moving averages move them by row 0 alone, in training
    mode. Labels are 0..num_classes-1, else a UserError; so are more identities in the gallery's batch than slots, and a
    margin without cosines.

    On several processes each holds a share of the slots; all are given the same whole batch and find the same loss.

    figures: those of ElementLoss for the pictures in the pool against row 0; in_pool (share of the pictures), and
    outside_cosine (mean of those k cosines, row 0), where there are such pictures; pool_fill (share of the slots).
    """

    def __init__(
        self,
        num_classes: int,
        centers: PoolCenters,
        margin: Margin,
        focal_gamma: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_range("num_classes", num_classes, 1)
        if not margin.normalized:
            raise UserError("--centers=pool needs a loss of cosines; softmax and bce have products. Take arcmargin.")
        self.num_classes = num_classes
        self.element = ElementLoss(centers, margin, focal_gamma, dropout)
        self.hardest = min(max(centers.num_classes // 5000, 3), 10, centers.num_classes)

    def forward(
        self, embeddings: Tensor, labels: Tensor, features: Tensor, feature_labels: Tensor, keep: bool = True
    ) -> Tensor:
        names = self._names(embeddings, labels)
        centers = self.element.centers
        assert isinstance(centers, PoolCenters)
        ledger = centers.write(features, self._names(features, feature_labels), keep)
        slots = ledger.find(names.tolist())
        inside, outside = np.flatnonzero(slots >= 0), np.flatnonzero(slots < 0)
        self._measured = {
            "in_pool": paddle.to_tensor(len(inside) / len(names)),
            "pool_fill": paddle.to_tensor(float((ledger.identity >= 0).mean())),
        }
        total = paddle.zeros([])
        with paddle.amp.auto_cast(enable=False):
            x = embeddings.astype("float32")
            for row in range(ROWS):
                table = centers.show(row)
                if len(inside):
                    total = total + self._inside(_rows(x, inside), slots[inside], row)
                if len(outside):
                    total = total + self._outside(_rows(x, outside), table, row)
        return total

    def _names(self, x: Tensor, labels: Tensor) -> npt.NDArray[np.int64]:
        names = labels_on_host(x, labels)
        check_labels(names, self.num_classes)
        return names

    def _inside(self, x: Tensor, slots: npt.NDArray[np.int64], row: int) -> Tensor:
        margin = self.element.margin
        margin.training = self.training and row == 0
        value = self.element(x, paddle.to_tensor(slots))
        margin.training = self.training
        if row == 0:
            self._measured |= self.element._measured
        return value

    def _outside(self, x: Tensor, table: Tensor, row: int) -> Tensor:
        cosine = paddle.matmul(l2_normalize(dist.with_summed_gradient(x)), table, transpose_y=True)
        value = hardest_mean(cosine, self.hardest)
        if row == 0:
            self._measured |= {"outside_cosine": value.detach()}
        return value


def _rows(x: Tensor, rows: npt.NDArray[np.int64]) -> Tensor:
    return paddle.gather(x, paddle.to_tensor(rows))


def hardest_mean(cosine: Tensor, count: int) -> Tensor:
    """cosine (B, Q') to the slots of this process -> the mean of each row's `count` largest of all processes, at least
    0 each; the same on all of them. count is at most the number of all slots."""
    here = min(count, cosine.shape[1])
    top = paddle.nn.functional.relu(paddle.topk(cosine, here, axis=1)[0])
    if dist.size() == 1:
        return top.mean()
    # Padded by zeros, which add nothing: processes may hold fewer slots than are wanted, and not equally many.
    padded = paddle.nn.functional.pad(top, [0, 0, 0, count - here])
    every = dist.all_gather(padded.unsqueeze(0)).transpose([1, 0, 2]).flatten(1).numpy()
    chosen = np.zeros(every.shape, np.float32)
    np.put_along_axis(chosen, np.argsort(-every, axis=1, kind="stable")[:, :count], 1.0, axis=1)
    mine = chosen[:, dist.rank() * count : (dist.rank() + 1) * count]
    return dist.sum_with_gradient((padded * paddle.to_tensor(mine)).sum()) / float(every.shape[0] * count)
