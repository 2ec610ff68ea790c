"""What a run starts with: the recipes of the demo data and of --task=classify beside what is typed."""

import pytest

from metric_learning.checks import UserError
from metric_learning.config import ElemOptions, PairOptions, parse
from metric_learning.stages.starting import start


def started(kind, *typed: str):
    """The options of a run on the demo data."""
    return start(parse(kind, ["--pretrained_model=none", *typed]), None, lambda line: None)


@pytest.mark.parametrize(("kind", "task"), [(ElemOptions, "embed"), (ElemOptions, "classify"), (PairOptions, None)])
def test_typed_lr_steps_keep_the_strategy_that_they_are_of(kind, task) -> None:
    typed = [f"--task={task}"] if task else []
    assert started(kind, *typed).lr_strategy == "cosine_decay"
    found = started(kind, *typed, "--lr_steps=50")
    assert (found.lr_strategy, found.lr_steps) == ("piecewise_decay", "50")
    assert started(kind, *typed, "--lr_steps=50", "--lr_strategy=piecewise_decay").lr_strategy == "piecewise_decay"
    with pytest.raises(UserError, match="--lr_steps has no meaning without --lr_strategy=piecewise_decay"):
        started(kind, *typed, "--lr_steps=50", "--lr_strategy=cosine_decay")


def test_a_momentum_needs_the_optimizer_that_has_one() -> None:
    assert started(ElemOptions, "--task=classify").optimizer == "adam"
    with pytest.raises(UserError, match="--momentum has no meaning without --optimizer=momentum"):
        started(ElemOptions, "--task=classify", "--momentum=0.8")
    assert started(ElemOptions, "--task=classify", "--momentum=0.8", "--optimizer=momentum").momentum == 0.8
    assert started(ElemOptions, "--momentum=0.8").momentum == 0.8
