"""Work split over processes: what the metrics ask of a group of them. One process is a team of one."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Team(Protocol):
    """size processes that run the same program; rank, 0..size - 1, is this one.

    Each calls the same metric with the same arrays, does its share of the tiles, and gets the figures of one process,
    to the bit: scores and counts are exchanged, and their order does not matter.
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def gather(self, mine: Item) -> list[Item]:
        """What every process gave, in rank order; all of them call it, and all get the list. Items can be pickled."""
        ...


class Alone:
    """A team of one."""

    rank, size = 0, 1

    def gather(self, mine: Item) -> list[Item]:
        return [mine]


ALONE = Alone()


def share(items: Iterable[Item], team: Team) -> Iterator[Item]:
    """Every size-th of the items, from the rank-th on: shares differ by one item at most."""
    return islice(items, team.rank, None, team.size)
