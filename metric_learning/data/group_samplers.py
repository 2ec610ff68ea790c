"""Batches in which every group of people (or of anything) has the same share, however few pictures it has.

As in samplers.py a batch is a function of (seed, step) alone, and it is the global one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError, check_range
from metric_learning.data.names import Coded
from metric_learning.data.samplers import ClassSampler, Indices, ShuffleSampler

PATTERN = 1000  # slots after which the pattern of groups repeats
GROUP_SEED = 2**32  # above any --seed, so that no group's stream is that of another group or of another seed


def group_codes(groups: Sequence[str], flag: str) -> tuple[list[str], Indices]:
    """groups (N,), the name of each picture's -> (the G names, sorted; codes (N,) in 0..G-1).

    Raises UserError, in which `flag` is the option that asks, where pictures have no group or all have the same.
    """
    coded = Coded.of(groups).sorted()
    without = int(coded.counts()[0]) if "" in coded.names[:1] else 0
    if not len(groups) or without:
        count = f"{without} training pictures have none" if without else "this data has none"
        raise UserError(
            f"{flag} needs a group for every training picture; {count}: use <Group>/<identity>/<picture> folders "
            "(--dataset=groups) or a csv with a group column."
        )
    if len(coded.names) < 2:
        raise UserError(f"{flag} needs training pictures of 2 or more groups; all are of {coded.names[0]!r}. Drop it.")
    return coded.names, coded.codes.astype(np.int64)


def groups_of_classes(labels: Indices, codes: Indices) -> Indices:
    """labels (N,) in 0..C-1, codes (N,) of the pictures' groups -> that of each class's first picture, (C,); -1: none.

    All pictures of a person have one group; where a csv says otherwise, its first row of the class counts, as it does
    when classes are split off for validation and test.
    """
    found = np.full(int(labels.max(initial=-1)) + 1, -1, np.int64)
    found[labels[::-1]] = codes[::-1]  # of several assignments to one place the last stays: the first picture's
    return found


class GroupShuffleSampler:
    """An endless stream of slots, each of one group, in a pattern that repeats; batch s is slots s B .. (s + 1) B.

    The share of a group with n pictures goes with n^power. power 0: equal, slot p is of group p mod G, so the shares of
    a batch differ by at most one picture, and where G does not divide B the odd places go round. power 1: as the
    pictures are. Else the shares hold over PATTERN slots, in which each group's are spread evenly. Each group fills its
    slots from shuffled passes over its own pictures: none comes twice in a pass, and a pass of a small group is soon
    over. codes (N,) in 0..G-1, each of which occurs.
    """

    def __init__(self, codes: Indices, batch_size: int, seed: int = 0, power: float = 0.0) -> None:
        check_range("--train_batch_size", batch_size, 1)
        check_range("--balance_power", power, 0, 1)
        self.batch_size = batch_size
        self.members = [np.flatnonzero(codes == code) for code in range(int(codes.max(initial=-1)) + 1)]
        sizes = np.array([len(rows) for rows in self.members], np.float64)
        self.shares = sizes**power / (sizes**power).sum()
        self._pattern = _spread(self.shares, PATTERN if power else len(sizes))
        self._counts = np.bincount(self._pattern)
        self._before = _earlier(self._pattern)
        # A stream of single pictures: "batch" q of it is the group's q-th draw.
        self._streams = [
            ShuffleSampler(len(rows), 1, seed + GROUP_SEED * (code + 1)) for code, rows in enumerate(self.members)
        ]

    def batch(self, step: int) -> Indices:
        """(B,) int64, in the order of the pattern."""
        slots = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        turns, places = np.divmod(slots, len(self._pattern))
        codes = self._pattern[places]
        draws = turns * self._counts[codes] + self._before[places]
        chosen = np.empty(self.batch_size, np.int64)
        for code in np.unique(codes):
            here = codes == code
            chosen[here] = self.members[code][self._streams[code].at(draws[here])]
        return chosen


def _spread(shares: NDArray[np.float64], places: int) -> Indices:
    """shares (G,) -> (places,) codes: as many of each as its share says (at least one), each code spread evenly."""
    counts = np.maximum(np.floor(shares * places).astype(np.int64), 1)
    short = places - counts.sum()
    if short > 0:  # to the largest remainders
        counts[np.argsort(-(shares * places - counts), kind="stable")[:short]] += 1
    codes = np.repeat(np.arange(len(shares)), counts)
    order = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return codes[np.lexsort((codes, order))]


def _earlier(codes: Indices) -> Indices:
    """(N,) codes -> how many of the same code stand before each."""
    found = np.empty(len(codes), np.int64)
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        found[rows] = np.arange(len(rows))
    return found


class GroupClassSampler:
    """P classes x K pictures, P / G classes of every group: a ClassSampler for each group, side by side.

    labels (N,) in 0..C-1; codes (N,) in 0..G-1, the group of each picture's class. `left_out` and `small` count as
    ClassSampler's. Raises UserError where P is not a multiple of G, or a group has fewer than P / G usable classes.
    """

    def __init__(
        self,
        labels: Indices,
        codes: Indices,
        names: Sequence[str],
        batch_size: int,
        samples_each_class: int,
        seed: int = 0,
    ) -> None:
        _check_shares(labels, codes, names, batch_size, samples_each_class)
        self._rows = [np.flatnonzero(codes == code) for code in range(len(names))]
        share = batch_size // len(names)
        self._parts = [
            ClassSampler(labels[rows], share, samples_each_class, seed + GROUP_SEED * (code + 1))
            for code, rows in enumerate(self._rows)
        ]
        self.left_out = sum(part.left_out for part in self._parts)
        self.small = sum(part.small for part in self._parts)

    def batch(self, step: int) -> Indices:
        """(P K,) int64, group by group, the K pictures of each class side by side."""
        return np.concatenate([rows[part.batch(step)] for rows, part in zip(self._rows, self._parts, strict=True)])


def _check_shares(labels: Indices, codes: Indices, names: Sequence[str], batch_size: int, k: int) -> None:
    unit = len(names) * k
    if batch_size % unit:
        near = max(batch_size - batch_size % unit, unit)
        raise UserError(
            f"--train_batch_size={batch_size} with --balance=groups must be a multiple of {unit} (--samples_each_class"
            f"={k} pictures of as many classes in each of {len(names)} groups); try {near}."
        )
    counts = np.bincount(labels)
    usable = [int((counts[np.unique(labels[codes == code])] >= 2).sum()) for code in range(len(names))]
    fewest = int(np.argmin(usable))
    if usable[fewest] * unit < batch_size:
        most = usable[fewest] * unit
        raise UserError(
            f"--train_batch_size={batch_size} with --balance=groups needs {batch_size // unit} classes of 2 or more "
            f"pictures in each group; {names[fewest]!r} has {usable[fewest]}: "
            + (f"lower it to at most {most}." if most else "add pictures, or drop --balance.")
        )
