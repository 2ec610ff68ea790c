"""Histograms of scores against a loop; in pieces and over a team."""

import numpy as np
from teams import run_team

from metric_learning.metrics.histogram import BINS, EDGES, ScoreHistograms


def naive_counts(scores):
    found = [0] * BINS
    for score in scores:
        place = max((i for i in range(BINS) if EDGES[i] <= score), default=0)
        found[place] += 1
    return found


def test_counts_are_those_of_the_loop():
    rng = np.random.default_rng(0)
    same, other = rng.uniform(-1, 1, 200).astype(np.float32), rng.uniform(-1, 0.5, 300).astype(np.float32)
    histograms = ScoreHistograms()
    histograms.add("a", same[:50], other[:120])
    histograms.add("a", same[50:], other[120:])
    histograms.add("b", same[:0], np.array([1.0, -1.0, 1.0000001], np.float32))
    counts = histograms.counts()
    assert counts["a"].tolist() == [naive_counts(same), naive_counts(other)]
    assert counts["b"][0].sum() == 0 and counts["b"][1, -1] == 2 and counts["b"][1, 0] == 1


def test_a_team_adds_up():
    def work(team):
        mine = ScoreHistograms()
        mine.add("ab"[team.rank], np.array([0.5]), np.array([0.1, 0.2]))
        mine.add("c", np.array([0.9]), np.array([]))
        mine.gather(team)
        return {name: counts.sum(axis=1).tolist() for name, counts in mine.counts().items()}

    assert run_team(2, work) == [{"a": [1, 2], "c": [2, 0], "b": [1, 2]}] * 2
