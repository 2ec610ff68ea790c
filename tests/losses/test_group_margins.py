"""Margins by group: against a twin, and how they move."""

import math

import numpy as np
import paddle
import pytest

from metric_learning.checks import UserError
from metric_learning.config.names import ELEMENT_LOSSES
from metric_learning.losses import ELEMENT_LOSSES as MARGINS
from metric_learning.losses import element_loss
from metric_learning.losses.group_margins import GroupMarginLoss, moved

GROUPS = ["a", "b", "c"]
OF_CLASS = np.array([0, 1, 1, 2, 0], np.int64)
ABLE = [name for name in ELEMENT_LOSSES if MARGINS[name].takes_extra]


def made(name: str = "arcmargin", offsets=None, rate: float = 0.0, largest: float = 0.1, **settings) -> GroupMarginLoss:
    paddle.seed(1)
    element = element_loss(name, 2 if name == "bce" else 5, 4, **settings)
    return GroupMarginLoss(element, GROUPS, OF_CLASS, offsets, rate, largest)


def batch(count: int = 12) -> tuple[paddle.Tensor, paddle.Tensor]:
    rng = np.random.default_rng(3)
    return paddle.to_tensor(rng.normal(size=(count, 4)).astype("float32")), paddle.to_tensor(np.arange(count) % 5)


def naive_arc(x, weight, labels, margins, scale) -> float:
    """ArcFace with a margin a sample, in loops."""
    total = 0.0
    for row, label, margin in zip(x.tolist(), labels.tolist(), margins, strict=True):
        cosines = []
        for center in weight.tolist():
            dot = sum(p * q for p, q in zip(row, center, strict=True))
            cosines.append(dot / math.sqrt(sum(p * p for p in row)) / math.sqrt(sum(q * q for q in center)))
        own = cosines[label]
        theta = math.acos(own)
        cosines[label] = math.cos(theta + margin) if theta <= math.pi - margin else own - margin * math.sin(margin)
        top = max(scale * c for c in cosines)
        total += top + math.log(sum(math.exp(scale * c - top) for c in cosines)) - scale * cosines[label]
    return total / len(x)


def test_each_sample_has_the_margin_of_its_group() -> None:
    offsets = {"a": 0.3, "c": -0.1}
    loss = made(offsets=offsets, scale=8.0, margin=0.2)
    x, labels = batch()
    value = float(loss(x, labels).item())
    margins = [0.2 + {0: 0.3, 1: 0.0, 2: -0.1}[int(OF_CLASS[label])] for label in labels.numpy()]
    weight = loss.element.centers.weight.numpy().astype(np.float64)
    assert value == pytest.approx(
        naive_arc(x.numpy().astype(np.float64), weight, labels.numpy(), margins, 8.0), rel=1e-5
    )
    assert loss.each(x, labels).numpy().mean() == pytest.approx(value, rel=1e-6)
    assert loss.figures == loss.element.figures and loss.figures


@pytest.mark.parametrize("name", ABLE)
def test_no_offset_is_the_plain_loss_and_a_larger_one_costs_more(name: str) -> None:
    x, labels = batch()
    plain, larger = (float(made(name, offsets)(x, labels).item()) for offsets in (None, {"b": 0.2}))
    paddle.seed(1)
    element = element_loss(name, 5, 4)
    assert plain == pytest.approx(float(element(x, labels).item()), rel=1e-6)
    assert larger > plain


def test_centres_learn_and_offsets_do_not() -> None:
    loss = made(offsets={"a": 0.1})
    x, labels = batch()
    x.stop_gradient = False
    loss(x, labels).backward()
    assert np.isfinite(x.grad.numpy()).all() and np.abs(x.grad.numpy()).max() > 0
    assert len(loss.parameters()) == len(loss.element.parameters()) and "offsets" in loss.state_dict()
    assert loss.offsets.stop_gradient


@pytest.mark.parametrize("name", [name for name in ELEMENT_LOSSES if name not in ABLE])
def test_losses_without_such_a_margin_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="has no margin that can differ between groups"):
        made(name)


def test_unknown_groups_and_labels_are_refused() -> None:
    paddle.seed(0)
    element = element_loss("arcmargin", 2, 4)
    with pytest.raises(UserError, match="Did you mean 'African'"):
        GroupMarginLoss(element, ["African", "Asian"], np.array([0, 1]), {"Afrikan": 0.1})
    with pytest.raises(UserError, match="--group_margins of Asian must be at"):
        GroupMarginLoss(element, ["African", "Asian"], np.array([0, 1]), {"Asian": 1.5})
    x, _ = batch(1)
    with pytest.raises(UserError, match=r"labels must be 0\.\.4"):
        made()(x, paddle.to_tensor([5]))


# ---- adaptation


def naive_moved(offsets, frr, rate, largest):
    known = [f for f in frr if f is not None]
    found = []
    for offset, f in zip(offsets, frr, strict=True):
        if f is None or len(known) < 2:
            found.append(offset)
        else:
            found.append(min(max(offset + rate * (f - sum(known) / len(known)), -largest), largest))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_the_rule_against_its_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 6))
    offsets = rng.uniform(-0.1, 0.1, count)
    frr = [None if rng.random() < 0.2 else float(f) for f in rng.random(count)]
    rate, largest = float(rng.uniform(0, 1)), 0.1
    before = offsets.copy()
    new = moved(offsets, frr, rate, largest)
    assert new == pytest.approx(naive_moved(offsets.tolist(), frr, rate, largest), abs=1e-15)
    assert np.array_equal(offsets, before)  # in place would spoil what the caller holds
    assert (np.abs(new) <= largest).all()


def test_who_is_rejected_more_gets_a_larger_margin() -> None:
    new = moved(np.zeros(3), [0.6, 0.2, 0.4], rate=0.1, largest=1.0)
    assert new == pytest.approx([0.02, -0.02, 0.0])
    assert moved(np.zeros(3), [0.6, 0.2, 0.4], rate=100.0, largest=0.05).tolist()[:2] == [0.05, -0.05]
    assert moved(np.zeros(3), [0.3, 0.3, 0.3], rate=5.0, largest=1.0) == pytest.approx([0, 0, 0], abs=1e-15)


@pytest.mark.parametrize("frr", [[None, None], [None, 0.5]])
def test_one_known_group_moves_nothing(frr) -> None:
    assert moved(np.array([0.03, -0.01]), frr, 1.0, 0.1).tolist() == [0.03, -0.01]


def test_the_loss_adapts_by_name_and_leaves_groups_without_figures() -> None:
    loss = made(rate=0.5, largest=0.1, offsets={"c": 0.05})
    loss.adapt({"b": 0.1, "a": 0.3, "elsewhere": 0.9})
    assert loss.by_group() == pytest.approx({"a": 0.05, "b": -0.05, "c": 0.05})
    loss.adapt({})
    assert loss.by_group() == pytest.approx({"a": 0.05, "b": -0.05, "c": 0.05})
    for _ in range(5):
        loss.adapt({"a": 0.3, "b": 0.1, "c": 0.2})
    assert loss.by_group() == pytest.approx({"a": 0.1, "b": -0.1, "c": 0.05})


def test_offsets_travel_in_the_state() -> None:
    loss, other = made(rate=0.5), made(rate=0.5)
    loss.adapt({"a": 0.3, "b": 0.1})
    other.set_state_dict(loss.state_dict())
    assert other.by_group() == loss.by_group() != made().by_group()
