"""The learning rate against values worked out by hand."""

import math

import pytest

from metric_learning.checks import UserError
from metric_learning.config import names
from metric_learning.schedule import STRATEGIES, plateaus, schedule, stale


def rates(strategy, total, **options):
    rate = schedule(strategy, 0.4, total, **options)
    return [rate(step) for step in range(total)]


def test_piecewise_falls_at_its_steps_themselves():
    assert rates("piecewise_decay", 6, steps=(2, 4)) == pytest.approx([0.4, 0.4, 0.04, 0.04, 0.004, 0.004])
    assert rates("piecewise_decay", 3, steps=(0,), decay=0.5) == pytest.approx([0.2, 0.2, 0.2])
    assert rates("piecewise_decay", 2) == [0.4, 0.4]


def test_warm_up_reaches_the_rate_with_its_last_step():
    assert rates("constant", 6, warmup=4) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_the_borders_of_piecewise_are_steps_of_the_whole_run():
    assert rates("piecewise_decay", 5, steps=(3,), warmup=2) == pytest.approx([0.2, 0.4, 0.4, 0.04, 0.04])


def test_linear_and_cosine_fall_over_what_the_warm_up_leaves():
    assert rates("linear_decay", 4) == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert rates("linear_decay", 6, warmup=2) == pytest.approx([0.2, 0.4, 0.4, 0.3, 0.2, 0.1])
    half = [0.2 * (1 + math.cos(math.pi * share)) for share in (0, 0.25, 0.5, 0.75)]
    assert rates("cosine_decay", 4) == pytest.approx(half)
    assert rates("cosine_decay", 5, warmup=1) == pytest.approx([0.4, *half])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (5, 5), (5, 9), (7, 3)])
def test_every_rate_is_finite_and_between_0_and_the_highest(strategy, total, warmup):
    rate = schedule(strategy, 0.4, total, (2,), warmup)
    assert all(0 <= rate(step) <= 0.4 + 1e-12 for step in range(total + 20))  # a longer run than planned
    assert rate(0) > 0


def test_an_unknown_strategy_names_the_nearest():
    with pytest.raises(UserError, match="cosine_decay"):
        schedule("cosine", 0.1, 10)


def test_the_command_line_knows_the_same_strategies():
    assert tuple(STRATEGIES) == names.STRATEGIES


@pytest.mark.parametrize(
    ("scores", "patience", "expected"),
    [
        ([], 1, 0),
        ([0.5], 1, 0),
        ([0.5, 0.5], 1, 1),  # no better is worse
        ([0.5, 0.4, 0.6, 0.5], 2, 0),
        ([0.5, 0.4, 0.5, 0.3], 2, 1),  # one too few for a second time
        ([0.5, 0.4, 0.5, 0.3, 0.2], 2, 2),
        ([0.5, 0.4, 0.3, 0.6, 0.6, 0.6], 2, 2),
        ([-0.5, -0.4, -0.6], 1, 1),  # no score is too low to be the best so far
    ],
)
def test_plateaus_are_counted_anew_after_each(scores, patience, expected):
    assert plateaus(scores, patience) == expected
    rate = schedule("plateau", 0.4, 10, warmup=2, decay=0.5, patience=patience)
    assert rate(5, scores) == pytest.approx(0.4 * 0.5**expected)
    assert rate(0, scores) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("scores", "expected"), [([], 0), ([0.5], 0), ([0.5, 0.5], 1), ([0.1, 0.9, 0.9, 0.2], 2), ([0.3, 0.2, 0.4], 0)]
)
def test_how_long_ago_the_best_score_was(scores, expected):
    assert stale(scores) == expected
