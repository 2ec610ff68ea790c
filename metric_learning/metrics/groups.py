"""Verification group by group: each at its own threshold, and all at one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from metric_learning.metrics.scores import as_scores, check_fars
from metric_learning.metrics.stream import ScoreStream, pooled
from metric_learning.metrics.verification import (
    FARS,
    OperatingPoint,
    VerificationResult,
    point_at,
    ratio,
    stream_result,
    threshold_for,
)


@dataclass(frozen=True)
class Summary:
    """One FAR target over the groups whose TAR is known: `groups` of them, `worst` the one with the lowest TAR.

    mean, min and population std are those of TAR. frr_ratio: highest FRR over lowest. skewed_error_ratio: the same of
    (FAR + FRR) / 2, which is the error rate on a list with as many pairs of either kind, as RFW's (Wang and Deng,
    arXiv 1911.10692). None where the denominator is 0.
    """

    target_far: float
    groups: int
    worst: str | None = None
    mean: float | None = None
    min: float | None = None
    std: float | None = None
    frr_ratio: float | None = None
    skewed_error_ratio: float | None = None


@dataclass(frozen=True)
class GroupedResult:
    """Groups at their own thresholds (ability) and at one global threshold (bias), and a summary of both.

    groups: name -> result at its own thresholds. pooled: the global thresholds, taken over the negatives of all groups
    together, and what they do to all pairs. at_global: name -> FAR, TAR and FRR of that group at the global thresholds.
    """

    groups: dict[str, VerificationResult]
    pooled: tuple[OperatingPoint, ...]
    at_global: dict[str, tuple[OperatingPoint, ...]]
    own_summary: tuple[Summary, ...]
    global_summary: tuple[Summary, ...]


def per_group(scores: Mapping[str, tuple[ArrayLike, ArrayLike]], fars: Sequence[float] = FARS) -> GroupedResult:
    """scores: group -> (positive scores, negative scores) -> each group at its own and at the global thresholds."""
    fars = check_fars(fars)
    arrays = {
        name: (as_scores(same, f"positive scores of {name}"), as_scores(other, f"negative scores of {name}"))
        for name, (same, other) in scores.items()
    }
    dtype = np.result_type(*(a.dtype for pair in arrays.values() for a in pair)) if arrays else np.dtype(np.float64)
    pool = sum(other.size for _, other in arrays.values())
    streams = {}
    for name, (same, other) in arrays.items():
        streams[name] = ScoreStream(same, max(fars), pool, dtype)
        streams[name].add(other)
    return grouped_result(streams, fars)


def grouped_result(streams: Mapping[str, ScoreStream], fars: Sequence[float] = FARS) -> GroupedResult:
    """Streams by group -> figures.

    Each stream was made with the number of negatives of ALL groups together (or None): a group may hold more than its
    share of the negatives above a global threshold.
    """
    fars = check_fars(fars)
    groups = {name: stream_result(stream, fars) for name, stream in streams.items()}
    pool = pooled(streams.values())
    negatives = sum(stream.negatives for stream in streams.values())
    thresholds = [threshold_for(pool, negatives, far) for far in fars]
    at_global = {
        name: tuple(point_at([stream], far, at) for far, at in zip(fars, thresholds, strict=True))
        for name, stream in streams.items()
    }
    return GroupedResult(
        groups=groups,
        pooled=tuple(point_at(list(streams.values()), far, at) for far, at in zip(fars, thresholds, strict=True)),
        at_global=at_global,
        own_summary=_summaries({name: result.points for name, result in groups.items()}, fars),
        global_summary=_summaries(at_global, fars),
    )


def _summaries(points: Mapping[str, Sequence[OperatingPoint]], fars: Sequence[float]) -> tuple[Summary, ...]:
    return tuple(_summary({name: group[i] for name, group in points.items()}, far) for i, far in enumerate(fars))


def _summary(points: Mapping[str, OperatingPoint], far: float) -> Summary:
    tars = {name: point.tar for name, point in points.items() if point.tar is not None}
    if not tars:
        return Summary(far, 0)
    values = list(tars.values())
    errors = [(p.far + p.frr) / 2 for p in points.values() if p.far is not None and p.frr is not None]
    return Summary(
        target_far=far,
        groups=len(tars),
        worst=min(tars, key=lambda name: tars[name]),
        mean=float(np.mean(values)),
        min=min(values),
        std=float(np.std(values)),
        frr_ratio=_spread([p.frr for p in points.values() if p.frr is not None]),
        skewed_error_ratio=_spread(errors),
    )


def _spread(errors: Sequence[float]) -> float | None:
    return ratio(max(errors), min(errors)) if errors else None
