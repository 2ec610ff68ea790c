"""Which identity has which slot of a pool, and which slot is given away next: plain bookkeeping, no Paddle."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from metric_learning.checks import UserError

Numbers = npt.NDArray[np.int64]
EMPTY = -1


class Writing(NamedTuple):
    """Where one feature goes: slot, row (0 or 1) of the slot, and whether its identity is new there."""

    slot: int
    row: int
    new: bool


@dataclass
class Ledger:
    """Q slots, least recently used first out.

    identity (Q,): who has the slot, EMPTY at first; used (Q,): when it was last written, by a clock that counts
    features, below 0 before, so that empty slots are the oldest and come in order; turn (Q,): the row that its
    identity's next feature goes to.
    """

    identity: Numbers
    used: Numbers
    turn: Numbers

    @classmethod
    def of(cls, slots: int) -> Self:
        return cls(np.full(slots, EMPTY), np.arange(-slots, 0), np.zeros(slots, np.int64))

    def write(self, names: Sequence[int]) -> list[Writing]:
        """names (n,), identities of features that arrive one after the other -> where each goes.

        A known identity's feature goes to its row in turn, and its slot becomes the newest. A new one takes the oldest
        slot, and begins at row 0; who had that slot is gone. Raises UserError for more identities than slots.
        """
        wanted = len(set(names))
        if wanted > len(self.identity):
            raise UserError(
                f"A pool of {len(self.identity)} slots can't take the {wanted} identities of a batch; "
                f"set --pool_size to {wanted} or more, or lower --train_batch_size."
            )
        known, begun = self._known(names), max(int(self.used.max()), -1) + 1
        oldest = iter(self._oldest(len(names)))
        found = []
        for now, name in enumerate(names, start=begun):
            new = name not in known
            if new:
                # Slots of this batch are skipped: they are the newest. There is always another one, by the check above.
                slot = next(slot for slot in oldest if self.used[slot] < begun)
                known.pop(int(self.identity[slot]), None)
                self.identity[slot], self.turn[slot], known[name] = name, 0, slot
            slot = known[name]
            found.append(Writing(slot, int(self.turn[slot]), new))
            self.used[slot], self.turn[slot] = now, 1 - self.turn[slot]
        return found

    def find(self, names: Sequence[int]) -> Numbers:
        """names (n,) -> the slot of each (n,), EMPTY where it is not in the pool."""
        known = self._known(names)
        return np.array([known.get(name, EMPTY) for name in names], np.int64)

    def _known(self, names: Sequence[int]) -> dict[int, int]:
        """Those of the names that are in the pool -> their slots."""
        slots = np.flatnonzero(np.isin(self.identity, np.asarray(names, np.int64)))
        return dict(zip(self.identity[slots].tolist(), slots.tolist(), strict=True))

    def _oldest(self, count: int) -> list[int]:
        """The slots that were not used for longest, the oldest first; `count` are enough for as many features."""
        count = min(count, len(self.used))
        part = np.argpartition(self.used, count - 1)[:count]
        oldest: list[int] = part[np.argsort(self.used[part])].tolist()
        return oldest
