"""How scores of pairs are spread: counts in bins, group by group, of scores that may come in pieces."""

import numpy as np
from numpy.typing import NDArray

from metric_learning.metrics.scores import Scores
from metric_learning.metrics.team import Team

BINS = 100
EDGES = np.linspace(-1.0, 1.0, BINS + 1)  # of cosines


class ScoreHistograms:
    """Counts of cosines by group: bin i holds EDGES[i] <= score < EDGES[i + 1], the last one its upper edge as well."""

    def __init__(self) -> None:
        self._counts: dict[str, NDArray[np.int64]] = {}

    def add(self, group: str, positives: Scores, negatives: Scores) -> None:
        """Count positive scores (P,) and negative scores (M,); what lies outside -1..1 counts in the outer bins."""
        seen = np.stack([_counted(positives), _counted(negatives)])
        self._counts[group] = self._counts.get(group, 0) + seen

    def gather(self, team: Team) -> None:
        """Add up what the processes of a team have counted; each of them then holds it all."""
        mine, self._counts = self._counts, {}
        for part in team.gather(mine):
            for group, seen in part.items():
                self._counts[group] = self._counts.get(group, 0) + seen

    def counts(self) -> dict[str, NDArray[np.int64]]:
        """Group -> (2, BINS): those of positive scores, and of negative ones."""
        return dict(self._counts)


def _counted(scores: Scores) -> NDArray[np.int64]:
    place = np.floor((np.asarray(scores, np.float64) + 1.0) * (BINS / 2)).astype(np.int64)
    return np.bincount(np.clip(place, 0, BINS - 1), minlength=BINS).astype(np.int64)
