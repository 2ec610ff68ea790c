"""Which pictures make up the batch of a step: a function of (seed, step) alone, so resume needs no state.

A sampler has .batch(step) -> (B,) int64 indices into the training set; it is the global batch, to be divided by whoever
runs several processes. Batches are endless.
"""

from math import gcd
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError, check_range
from metric_learning.data.permutation import Permutation
from metric_learning.data.sources import ClassIndices

Indices = NDArray[np.int64]
Order = Indices | Permutation

# Up to so many pictures an epoch's order is drawn as an array; above, eight bytes a picture and process are too much.
LARGEST = 1 << 22

# What a generator is for; two purposes never share a stream.
CLASS_ORDER, PICTURE_ORDER, TUPLES, AUGMENT = range(4)


def keyed_rng(purpose: int, seed: int, step: int, slot: int = 0) -> np.random.Generator:
    """A generator for these four numbers alone, by Philox's key and high counter words (Salmon et al., SC 2011)."""
    mask = 2**64 - 1
    # uint64 arrays: from a list of Python numbers NumPy would make floats of the large ones.
    key = np.array([seed & mask, step & mask], dtype=np.uint64)
    counter = np.array([0, 0, slot & mask, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class SlotRngs:
    """keyed_rng(purpose, seed, step, slot) for one slot after another: one generator, set anew, which is quicker."""

    def __init__(self, purpose: int, seed: int, step: int) -> None:
        self._rng = keyed_rng(purpose, seed, step)
        self._fresh = self._rng.bit_generator.state

    def at(self, slot: int) -> np.random.Generator:
        """The generator of this slot; that of the slot before is no more."""
        self._fresh["state"]["counter"][2] = slot
        self._rng.bit_generator.state = self._fresh
        return self._rng


class Sampler(Protocol):
    """What the loader asks of a sampler."""

    def batch(self, step: int) -> Indices:
        """The (B,) indices of this step, counted from 0."""
        ...


class ShuffleSampler:
    """An endless stream of shuffled epochs of n pictures; batch s is positions s B .. (s + 1) B of it."""

    def __init__(self, n: int, batch_size: int, seed: int = 0) -> None:
        check_range("the number of training pictures", n, 1)
        check_range("--train_batch_size", batch_size, 1)
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self._latest: tuple[int, Order] = -1, np.empty(0, np.int64)

    def batch(self, step: int) -> Indices:
        """(B,) int64; a batch across two epochs may hold a picture twice."""
        return self.at(np.arange(step * self.batch_size, (step + 1) * self.batch_size))

    def at(self, positions: Indices) -> Indices:
        """What stands at `positions` (M,) of the stream, ascending."""
        epochs, places = np.divmod(positions, self.n)
        parts = [self._order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
        return np.concatenate(parts)

    def _order(self, epoch: int) -> Order:
        if self._latest[0] != epoch:
            rng = keyed_rng(CLASS_ORDER, self.seed, epoch)
            drawn = rng.permutation(self.n).astype(np.int64) if self.n <= LARGEST else Permutation(self.n, rng)
            self._latest = epoch, drawn
        return self._latest[1]


class ClassSampler:
    """P classes x K pictures, class by class: P = batch_size / K, no class twice in a batch.

    Each epoch brings every usable class once, in a new order. A class gives its pictures in turn, shuffled anew when
    fewer than K are left; one with fewer than K pictures (but at least 2) repeats its own to fill up; one with a single
    picture is left out. `left_out` and `small` count the last two kinds. Raises UserError where B is not a multiple of
    K, K is below 2, or there are fewer usable classes than P.
    """

    def __init__(self, labels: Indices, batch_size: int, samples_each_class: int, seed: int = 0) -> None:
        check_range("--samples_each_class", samples_each_class, 2)
        _check_multiple(batch_size, samples_each_class, "--samples_each_class")
        self.seed, self.samples_each_class = seed, samples_each_class
        self.classes_per_batch = batch_size // samples_each_class
        self.members = ClassIndices(labels)
        sizes = self.members.sizes
        self.usable = np.flatnonzero(sizes >= 2)
        self.left_out = int((sizes == 1).sum())
        self.small = int(((sizes >= 2) & (sizes < samples_each_class)).sum())
        if len(self.usable) < self.classes_per_batch:
            most = len(self.usable) * samples_each_class
            remedy = f"lower --train_batch_size to at most {most}" if most else "add pictures"
            raise UserError(
                f"--train_batch_size={batch_size} with --samples_each_class={samples_each_class} needs "
                f"{self.classes_per_batch} classes of 2 or more pictures; there are {len(self.usable)}: {remedy}."
            )
        # Batches and epochs fall together again after this many epochs.
        self._period = self.classes_per_batch // gcd(len(self.usable), self.classes_per_batch)
        self._latest = (-1, np.empty(0, np.int64))

    def batch(self, step: int) -> Indices:
        """(P K,) int64, the K pictures of each class side by side."""
        start, count, epochs = step * self.classes_per_batch, self.classes_per_batch, len(self.usable)
        picked, position = [], start
        while position < start + count:
            epoch, first = divmod(position, epochs)
            classes = self._order(epoch)[first : first + start + count - position]
            picked += [self._pictures(int(number), epoch) for number in classes]
            position += len(classes)
        return np.concatenate(picked)

    def _order(self, epoch: int) -> Indices:
        """The classes of an epoch; depends on the epochs before, back to the last one that began with a batch."""
        known, order = self._latest
        first = epoch - epoch % self._period
        if not first <= known <= epoch:
            known, order = first, self._shuffled(first, order[:0])
        for number in range(known + 1, epoch + 1):
            begun = number * len(self.usable) % self.classes_per_batch
            order = self._shuffled(number, order[len(order) - begun :])
        self._latest = epoch, order
        return order

    def _shuffled(self, epoch: int, begun: Indices) -> Indices:
        """A new order in which the classes already in the begun batch come after the batch is full."""
        order = keyed_rng(CLASS_ORDER, self.seed, epoch).permutation(self.usable)
        if not len(begun):
            return order
        free = np.flatnonzero(~np.isin(order, begun))[: self.classes_per_batch - len(begun)]
        return np.concatenate([order[free], np.delete(order, free)])

    def _pictures(self, number: int, epoch: int) -> Indices:
        members, k = self.members[number], self.samples_each_class
        turns = max(1, len(members) // k)
        shuffled = keyed_rng(PICTURE_ORDER, self.seed, epoch // turns, number).permutation(members)
        first = epoch % turns * k
        return shuffled[first : first + k] if len(members) >= k else np.resize(shuffled, k)


class TripletSampler:
    """Rows a, p, n, a, p, n, ...: anchor and positive are two pictures of one class, the negative is of another."""

    negatives = 1

    def __init__(self, labels: Indices, batch_size: int, seed: int = 0) -> None:
        self.rows = 2 + self.negatives
        _check_multiple(batch_size, self.rows, "the pictures of one tuple")
        self.seed, self.count = seed, batch_size // self.rows
        self.members = ClassIndices(labels)
        self.filled = np.flatnonzero(self.members.sizes)
        self.usable = np.flatnonzero(self.members.sizes >= 2)
        self.left_out = len(self.filled) - len(self.usable)
        if len(self.filled) < 1 + self.negatives or not len(self.usable):
            raise UserError(
                f"tuples of {self.rows} pictures need {1 + self.negatives} classes, one with 2 or more pictures;"
                f" the training set has {len(self.filled)} classes, {len(self.usable)} of that kind: add pictures."
            )
        self._anchors = ShuffleSampler(len(self.usable), self.count, seed)

    def batch(self, step: int) -> Indices:
        """(B,) int64. Each class with 2 or more pictures is anchor once an epoch; others are negatives only."""
        rng = keyed_rng(TUPLES, self.seed, step)
        return np.concatenate([self._row(int(number), rng) for number in self.usable[self._anchors.batch(step)]])

    def _row(self, anchor: int, rng: np.random.Generator) -> Indices:
        pair = rng.choice(self.members[anchor], 2, replace=False)
        # Drawn among the other classes by shifting the numbers from the anchor's on by one.
        others = rng.choice(len(self.filled) - 1, self.negatives, replace=False)
        others += others >= np.searchsorted(self.filled, anchor)
        return np.concatenate([pair, [rng.choice(self.members[k]) for k in self.filled[others]]])


class QuadrupletSampler(TripletSampler):
    """Rows a, p, n1, n2: as TripletSampler with two negatives, three classes in a row (arXiv 1704.01719, eq. 5)."""

    negatives = 2


def _check_multiple(batch_size: int, of: int, what: str) -> None:
    check_range("--train_batch_size", batch_size, of)
    if batch_size % of:
        near = batch_size - batch_size % of
        raise UserError(f"--train_batch_size={batch_size} must be a multiple of {of} ({what}); try {near}.")
