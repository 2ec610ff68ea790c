"""Cosine -> similarity in 0..1 and same or not, by what was fitted on labelled pairs; and how that is kept as JSON."""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError, check_choice

MAX_SLOPE = 1000.0  # from 1 % to 99 % within a cosine of 0.01: what is steeper is a step, and says no more
ROUNDING = 1e-3  # how far a cosine of float16 may lie outside -1..1


@dataclass(frozen=True)
class StoredPoint:
    """threshold: the loosest cosine that at most the share `far` of these negative pairs reaches."""

    threshold: float
    far: float
    positives: int
    negatives: int


@dataclass(frozen=True)
class Calibration:
    """similarity = 1 / (1 + exp(-slope (cosine - threshold))), so exactly 0.5 at the threshold.

    point: over the pairs of all groups together. groups: name -> its own point, for groups with enough negatives.
    fitted: how and on what, in words and numbers (and `picture`, a table); what it means is for who fits to say.
    """

    slope: float
    point: StoredPoint
    groups: dict[str, StoredPoint] = field(default_factory=dict)
    fitted: dict[str, Any] = field(default_factory=dict)

    def at(self, group: str | None = None) -> StoredPoint:
        """The operating point of a group, or of all together; UserError for a group that has none."""
        if group is None:
            return self.point
        if not self.groups:
            raise UserError(f"--group={group}: the weights were calibrated without groups. Leave --group out.")
        return self.groups[check_choice("--group", group, self.groups)]

    def similarity(self, cosines: ArrayLike, group: str | None = None) -> NDArray[np.float64]:
        """cosines (any shape) -> similarities in 0..1 of that shape; a group moves the middle, not the slope."""
        return logistic(self.slope * (np.asarray(cosines, np.float64) - self.at(group).threshold))

    def with_notes(self, **fitted: Any) -> "Calibration":
        return replace(self, fitted={**self.fitted, **fitted})

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Any) -> "Calibration":
        """The reverse of `to_dict`; ValueError for anything that no fit has made: a stranger may have edited it."""
        groups, fitted = _dict(saved, "groups"), _dict(saved, "fitted")
        if not all(_plain(name) and _plain(value) for name, value in fitted.items() if name != "picture"):
            raise ValueError("fitted must be words and numbers")
        if not all(map(is_tame, groups)):
            raise ValueError("the name of a group holds control characters")
        points = {name: _point(found) for name, found in groups.items()}
        slope = _number(saved, "slope", 0.0, MAX_SLOPE)
        if slope <= 0.0:
            raise ValueError("slope must be above 0")
        return cls(slope, _point(_dict(saved, "point")), points, fitted)


def _dict(saved: Any, name: str) -> dict[str, Any]:
    found = saved.get(name) if isinstance(saved, dict) else None
    if not isinstance(found, dict):
        raise ValueError(f"{name} is missing or no table")
    return found


def _number(saved: Any, name: str, low: float, high: float) -> float:
    value = saved.get(name)
    if type(value) not in (int, float) or not low <= value <= high:  # NaN fails too
        raise ValueError(f"{name} must be a number in {low:g}..{high:g}; got {str(value)[:20]!r}")
    return float(value)


def _point(saved: Any) -> StoredPoint:
    if not isinstance(saved, dict):
        raise ValueError("an operating point is no table")
    counts: list[Any] = [saved.get(name) for name in ("positives", "negatives")]
    if not all(type(count) is int and 0 <= count < 2**63 for count in counts):
        raise ValueError(f"positives and negatives must be counts; got {str(counts)[:40]}")
    far = _number(saved, "far", 0.0, 1.0)
    if not 0.0 < far < 1.0:
        raise ValueError("far must lie between 0 and 1")
    return StoredPoint(_number(saved, "threshold", -1 - ROUNDING, 1 + ROUNDING), far, *counts)


def _plain(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int) or (isinstance(value, str) and is_tame(value))


def is_tame(text: str) -> bool:
    """Nothing in it that would break a line or drive a terminal."""
    return not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in text)


def logistic(x: ArrayLike) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow."""
    values = np.asarray(x, np.float64)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0.0, 1.0, small) / (1.0 + small)
