"""A permutation that is computed where it is asked for, instead of held: O(1) memory whatever its length."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]

ROUNDS = 8  # four make a pseudo-random permutation of large blocks; halves are as short as 11 bits here


class Permutation:
    """0..n-1 in an order drawn by `rng`: [i] is what stands at place i, for arrays of places (M,) int64.

    A Feistel network (Luby & Rackoff, SIAM J. Comput. 17, 1988) of ROUNDS rounds over the numbers below 2^b, the least
    of these powers that is n or more; its halves differ by a bit where b is odd. What comes out at n or above is put in
    again until it is below: cycle walking (Black & Rogaway, CT-RSA 2002, method 2), fewer than twice a number on
    average. The round function is the finalizer of SplitMix64 (Steele et al., OOPSLA 2014). It keeps no secrets.
    """

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.n, bits = n, max(1, (n - 1).bit_length())
        self._shift = np.uint64(bits // 2)
        self._high, self._low = np.uint64(2 ** (bits - bits // 2) - 1), np.uint64(2 ** (bits // 2) - 1)
        self._keys = rng.integers(2**64, size=(ROUNDS // 2, 2), dtype=np.uint64)

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        found = self._once(places.astype(np.uint64))
        while (above := np.flatnonzero(found >= self.n)).size:
            found[above] = self._once(found[above])
        return found.astype(np.int64)

    def _once(self, numbers: Numbers) -> Numbers:
        """A permutation of the numbers below 2^b: each half in turn is changed by the other."""
        high, low = numbers >> self._shift, numbers & self._low
        for first, second in self._keys:
            high ^= _mixed(low ^ first) & self._high
            low ^= _mixed(high ^ second) & self._low
        return high << self._shift | low


def _mixed(numbers: Numbers) -> Numbers:
    """64 bits -> 64 bits, each of which depends on all."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
