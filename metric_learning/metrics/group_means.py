"""The mean embedding of each group of people, taken off before cosines of two pictures of one group.

What all people of a group share says nothing of who they are, but raises the cosine of any two of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.metrics.cosine import Floats, Indices, unit_rows


@dataclass(frozen=True)
class GroupMeans:
    """means (G, D) float32 of the groups `names`; the mean of all groups stands for pictures of any other group.

    Raises ValueError where that is not so, or a number is not finite.
    """

    names: tuple[str, ...]
    means: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.means.ndim != 2 or len(self.means) != len(self.names) or not self.names:
            raise ValueError(f"{len(self.names)} group means of shape {self.means.shape}")
        if not np.isfinite(self.means).all():
            raise ValueError("a group mean that is not finite")

    def taken_off(self, embeddings: Floats, groups: Sequence[str] | NDArray[np.str_] | None) -> NDArray[np.float32]:
        """embeddings (N, D), groups (N,) or None -> (N, D) float32: normalised, less the mean of each one's group.

        A group that is not known, and None, get the mean over the groups. An embedding of 0 stays 0. Raises UserError
        for embeddings of another size.
        """
        if embeddings.shape[1] != self.means.shape[1]:
            raise UserError(
                f"The weights hold group means of {self.means.shape[1]} numbers, for embeddings of "
                f"{embeddings.shape[1]}: the file was edited. Leave them out by --group_means=False."
            )
        table = np.concatenate([self.means, self.means.mean(axis=0, keepdims=True)])
        place = {name: i for i, name in enumerate(self.names)}
        unknown = len(self.names)
        rows = np.full(len(embeddings), unknown) if groups is None else [place.get(str(g), unknown) for g in groups]
        units = unit_rows(embeddings)
        there = np.any(units != 0, axis=1, keepdims=True)
        moved: NDArray[np.float32] = np.where(there, units - table[np.asarray(rows, np.int64)], 0).astype(np.float32)
        return moved

    def taken_off_pairs(self, embeddings: Floats, a: Indices, b: Indices, groups: NDArray[np.str_]) -> Floats:
        """The same for rows that are compared: a, b (P,) the rows of P pairs, -1 for none; groups (P,) the pairs' own.

        A row in several pairs has the group of the first, a row in none the mean over the groups.
        """
        found = np.full(len(embeddings) + 1, "", groups.dtype)
        rows = np.stack([a, b], axis=1).ravel()
        found[rows[::-1]] = groups.repeat(2)[::-1]  # the first pair last, so that it stays; -1 is behind the last row
        return self.taken_off(embeddings, found[:-1])

    def to_dict(self) -> dict[str, Any]:
        """For JSON; from_dict() gives the same bits."""
        return {name: [float(value) for value in mean] for name, mean in zip(self.names, self.means, strict=True)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "GroupMeans":
        """The reverse of to_dict(); ValueError for what that does not give."""
        try:
            names = tuple(str(name) for name in saved)
            means = np.array([saved[name] for name in names], np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"group means that are no table of numbers ({error})") from error
        return cls(names, means)


def group_means(embeddings: Floats, labels: NDArray[np.int64], groups: Sequence[str] | NDArray[np.str_]) -> GroupMeans:
    """embeddings (N, D), labels (N,) and groups (N,) of training pictures -> their GroupMeans.

    Embeddings are normalised, averaged over the pictures of each person, then over the persons of the group: a person
    with many pictures counts once. Sums are in float64. Raises ValueError where there are no pictures.
    """
    names = np.array([str(group) for group in groups])
    found = []
    for name in (known := sorted(set(names.tolist()))):
        here = np.flatnonzero(names == name)
        people, codes = np.unique(labels[here], return_inverse=True)
        sums = class_sums(embeddings[here], codes.ravel(), len(people))
        found.append((sums / np.bincount(codes.ravel())[:, None]).mean(axis=0))
    return GroupMeans(tuple(known), np.array(found, np.float32))


def class_sums(embeddings: Floats, labels: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """embeddings (N, D), labels (N,) in 0..count-1 -> (count, D) float64, sums of normalised embeddings.

    A class without pictures has a row of 0.
    """
    sums = np.zeros((count, embeddings.shape[1]))
    np.add.at(sums, labels, unit_rows(embeddings))
    return sums
