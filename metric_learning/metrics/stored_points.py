"""What the thresholds that travel with weights do to other pairs than those they were chosen on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metric_learning.metrics.scores import Scores
from metric_learning.metrics.similarity import Calibration, StoredPoint
from metric_learning.metrics.team import Team
from metric_learning.metrics.verification import OperatingPoint, ratio


@dataclass(frozen=True)
class StoredFigures:
    """FAR and TAR of all pairs and of each group at the common threshold, and of groups at stored ones of their own."""

    pooled: OperatingPoint
    groups: dict[str, OperatingPoint]
    own: dict[str, OperatingPoint]


class StoredCounts:
    """Counts what is accepted at the thresholds of a calibration; scores may come in pieces."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        self._counts: dict[tuple[str, StoredPoint], NDArray[np.int64]] = {}

    def add(self, group: str, positives: Scores, negatives: Scores) -> None:
        for point in {self.calibration.point, self.calibration.groups.get(group, self.calibration.point)}:
            accepted = [np.count_nonzero(scores >= point.threshold) for scores in (positives, negatives)]
            seen = np.array([accepted[0], positives.size, accepted[1], negatives.size], np.int64)
            self._counts[group, point] = self._counts.get((group, point), np.zeros(4, np.int64)) + seen

    def gather(self, team: Team) -> None:
        """Add up what the processes of a team have counted; each of them then holds it all."""
        mine, self._counts = self._counts, {}
        for part in team.gather(mine):
            for key, seen in part.items():
                self._counts[key] = self._counts.get(key, np.zeros(4, np.int64)) + seen

    def figures(self) -> StoredFigures:
        common = {name: count for (name, point), count in self._counts.items() if point == self.calibration.point}
        own = self.calibration.groups
        return StoredFigures(
            _measured(self.calibration.point, sum(common.values(), np.zeros(4, np.int64))),
            {name: _measured(self.calibration.point, count) for name, count in common.items()},
            {name: _measured(own[name], self._counts[name, own[name]]) for name in common if name in own},
        )


def _measured(point: StoredPoint, counts: NDArray[np.int64]) -> OperatingPoint:
    true_accepts, positives, false_accepts, negatives = counts.tolist()
    return OperatingPoint(
        target_far=point.far,
        threshold=point.threshold,
        far=ratio(false_accepts, negatives),
        tar=ratio(true_accepts, positives),
        frr=ratio(positives - true_accepts, positives),
    )
