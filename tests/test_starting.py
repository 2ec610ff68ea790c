"""What a run starts with: the recipes of the demo data and of --task=classify beside what is typed."""

import pytest

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.config import ElemOptions, PairOptions, names, parse
from metric_learning.data.loader import own_slots
from metric_learning.data.sources import PictureSet, Sample
from metric_learning.stages.parts import check_division, parts
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


PAIRED = [*((name, None) for name in names.PAIR_LOSSES), *(("triplet", mining) for mining in names.MININGS)]
PAIRED += [("quadruplet_full", "given"), ("quadruplet_full", "batch_hard")]


@pytest.mark.parametrize(("loss", "mining"), PAIRED)
def test_every_pair_loss_begins_on_the_demo_data(loss, mining) -> None:
    config = started(PairOptions, f"--loss_name={loss}", *([f"--mining={mining}"] if mining else []))
    assert started(PairOptions, f"--loss_name={loss}", "--train_batch_size=12").train_batch_size == 12
    train = PictureSet.of([Sample(f"{person}/{n}.jpg", str(person)) for person in range(160) for n in range(10)])
    made = parts(config, train, 8)
    triplets = loss == "triplet" and mining in (None, "given")
    assert len(made.sampler.batch(0)) == config.train_batch_size == (60 if triplets else 64)
    assert own_slots(config.train_batch_size, (1, 4)) and not made.notes


def test_no_process_has_fewer_pictures_than_pieces(monkeypatch) -> None:
    typed = ("--train_batch_size=8", "--accumulate=8")
    check_division(started(ElemOptions, *typed))
    monkeypatch.setattr(dist, "size", lambda: 2)
    with pytest.raises(UserError, match="--accumulate=8 must be at most 4, what each of 2 processes has of --train_b"):
        check_division(started(ElemOptions, *typed))
    check_division(started(ElemOptions, "--train_batch_size=8", "--accumulate=4"))
    with pytest.raises(UserError, match="--train_batch_size=9 must be a multiple of 2"):
        check_division(started(ElemOptions, "--train_batch_size=9"))
