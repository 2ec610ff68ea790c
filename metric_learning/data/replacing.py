"""What takes the place of a training picture that cannot be read, the same in every process."""

from collections.abc import Callable
from itertools import chain
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.data.sources import ClassIndices, PictureSet

Indices = NDArray[np.int64]
Made = TypeVar("Made")
Load = Callable[[str], Made | None]


class Picker(Generic[Made]):
    """Reads pictures of one batch, and replaces those that cannot be read.

    indices: those of the global batch, in its order. What replaces a picture depends on them and on what can be read
    alone, so that all processes that make a part of the batch agree on it.
    """

    def __init__(self, pictures: PictureSet, classes: Callable[[], ClassIndices], indices: Indices) -> None:
        self.pictures, self.classes = pictures, classes
        self.wanted = list(dict.fromkeys(pictures.labels[indices].tolist()))  # the classes, in the order of the slots
        self.alive: set[int] = set()
        self.instead: dict[int, int] = {}
        self.load: Load[Made]

    def read(self, index: int, load: Load[Made]) -> tuple[int, Made]:
        """(the index of the picture that was read, what `load` made of it). load: path -> that, None if unreadable."""
        self.load = load
        label = int(self.pictures.labels[index])
        if label not in self.instead:
            picture = self.load(self.pictures.paths[index])
            found = (index, picture) if picture is not None else self._from_class(label, self._place(index))
            if found is not None:
                self.alive.add(label)
                return found
            self._settle(label)
        while (found := self._from_class(self.instead[label], self._place(index))) is None:
            self.instead[label] = self._stand_in(label)  # its files have gone meanwhile
        return found

    def _settle(self, last: int) -> None:
        """Find the classes that stand in for those without a readable picture, in the order of the slots, to `last`."""
        for label in self.wanted[: self.wanted.index(last) + 1]:
            if label in self.alive or label in self.instead:
                continue
            if label != last and self._from_class(label, 0) is not None:
                self.alive.add(label)  # of a slot that another process makes
            else:
                self.instead[label] = self._stand_in(label)

    def _stand_in(self, label: int) -> int:
        """The next class with a readable picture: of those absent from the batch, else of those present."""
        present = {*self.wanted, *self.instead.values()}
        count = len(self.classes())
        for in_batch in (False, True):
            for other in chain(range(label + 1, count), range(label)):
                if (other in present) == in_batch and self._from_class(other, 0) is not None:
                    return other
        raise UserError("none of the training pictures can be read; check --data_dir.")

    def _place(self, index: int) -> int:
        """Which picture of its class it is."""
        return int(np.searchsorted(self.classes()[int(self.pictures.labels[index])], index))

    def _from_class(self, label: int, place: int) -> tuple[int, Made] | None:
        """The first readable picture of a class, from `place` on, cyclic."""
        members = self.classes()[label]
        for shift in range(len(members)):
            index = int(members[(place + shift) % len(members)])
            picture = self.load(self.pictures.paths[index])
            if picture is not None:
                return index, picture
        return None
