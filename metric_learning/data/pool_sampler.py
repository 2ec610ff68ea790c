"""Batches of pairs for a pool of class centres: two pictures of one identity, or any two.

As in samplers.py a batch is a function of (seed, step) alone, and it is the global one.
"""

import numpy as np

from metric_learning.checks import UserError, check_range
from metric_learning.data.samplers import TUPLES, Indices, ShuffleSampler, keyed_rng
from metric_learning.data.sources import ClassIndices

INSTANCE_SEED = 2**62  # far above any --seed, so that pictures and classes are not shuffled by one stream


class PoolSampler:
    """Pairs (x_i, y_i) side by side: B / 2 of them, of two kinds, as Wang et al., arXiv 2105.10375, load them.

    identity_share in 0..1: the share of the pairs that are two pictures of one identity; each pass over the identities
    brings every one once, in a new order, and its two pictures are drawn anew. A class with a single picture gives it
    twice, to be augmented anew, as in the authors' code (`single` counts them). The other pairs are two pictures of a
    pass over all of them, whoever they show. Both kinds are spread evenly over the batch, so that processes that take
    contiguous parts of it have as many of each, to one. In the authors' code two thirds are of the first kind.

    labels (N,) in 0..C-1. Raises UserError for an odd B.
    """

    def __init__(self, labels: Indices, batch_size: int, identity_share: float = 2 / 3, seed: int = 0) -> None:
        check_range("--identity_share", identity_share, 0.0, 1.0)
        check_range("--train_batch_size", batch_size, 2)
        if batch_size % 2:
            raise UserError(f"--train_batch_size={batch_size} must be even for pairs; try {batch_size - 1}.")
        self.seed, pairs = seed, batch_size // 2
        self.members = ClassIndices(labels)
        self.classes = np.flatnonzero(self.members.sizes)  # those that have pictures
        self.single = int((self.members.sizes == 1).sum())
        count = round(identity_share * pairs)
        places = np.arange(pairs + 1) * count // pairs
        self.of_identity = places[1:] > places[:-1]  # (B / 2,): which pairs are of one identity
        self._identities = ShuffleSampler(len(self.classes), count, seed) if count else None
        rest = 2 * (pairs - count)
        self._instances = ShuffleSampler(len(labels), rest, seed + INSTANCE_SEED) if rest else None

    def batch(self, step: int) -> Indices:
        """(B,) int64: x_0, y_0, x_1, y_1, ..."""
        found = np.empty((len(self.of_identity), 2), np.int64)
        if self._identities is not None:
            rng = keyed_rng(TUPLES, self.seed, step)
            found[self.of_identity] = [self._two(int(number), rng) for number in self._identities.batch(step)]
        if self._instances is not None:
            found[~self.of_identity] = self._instances.batch(step).reshape(2, -1).T
        return found.ravel()

    def _two(self, number: int, rng: np.random.Generator) -> Indices:
        members = self.members[int(self.classes[number])]
        return rng.choice(members, 2, replace=False) if len(members) > 1 else members.repeat(2)
