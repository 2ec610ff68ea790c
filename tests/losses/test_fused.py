"""The fast ways for a CPU against the plain Paddle code of the same losses, which is what a GPU uses."""

import math
import tracemalloc

import numpy as np
import paddle
import pytest
from loss_cases import UNEQUAL, embeddings, run
from margin_twins import CASES as MARGINS
from margin_twins import built as element
from pair_cases import UNORDERED, built

from metric_learning.losses import ELEMENT_LOSSES, MemoryLoss, fused_pairs
from metric_learning.losses.centers import AllCenters
from metric_learning.losses.element import ElementLoss
from metric_learning.losses.margins.base import Logits, Margin

FAST = [case for case in UNORDERED if built(*case).rows or built(*case).hardest]
PLAIN = [(name, settings) for name, settings in MARGINS if element(name).margin.plain]
every_fast_pair_loss = pytest.mark.parametrize("case", FAST, ids=str)
every_plain_margin = pytest.mark.parametrize(("name", "settings"), PLAIN)


def batch(count=83, dim=19, classes=17, seed=0):
    """Embeddings with a direction for each class, a row of 0, two alike, and a class with one sample."""
    labels = np.random.default_rng(seed).integers(0, classes, count)
    labels[5] = classes
    x = embeddings(count, dim, seed) + embeddings(classes + 1, dim, seed + 1)[labels]
    x[3], x[9] = 0.0, x[8]
    return x, labels


def slow(loss):
    """The same loss by `compute`."""
    loss.rows = loss.hardest = None
    return loss


def close(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-5 * max(1e-3, np.abs(expected[1]).max()))


def test_which_pair_losses_are_fast():
    assert {case[:2] for case in FAST} >= {
        ("eml", None),
        ("triplet", "batch_hard"),
        ("quadruplet", None),
        ("multi_similarity", None),
    }


def test_which_margins_are_fast():
    assert {name for name, _ in PLAIN} == ELEMENT_LOSSES.keys() - {"curricularface"}


@every_fast_pair_loss
@pytest.mark.parametrize("pieces", [1, 7])
def test_pair_losses_equal_compute(case, pieces, monkeypatch):
    x, labels = batch()
    monkeypatch.setattr(fused_pairs, "IN_CACHE", len(x) ** 2 // pieces)
    monkeypatch.setattr(fused_pairs, "AT_ONCE", len(x) ** 2 // pieces)
    loss, twin = built(*case), slow(built(*case))
    close(run(loss, x, labels), run(twin, x, labels))
    assert loss.figures == pytest.approx(twin.figures, rel=1e-4)


@every_fast_pair_loss
def test_pair_losses_equal_compute_with_a_memory(case):
    loss = MemoryLoss(built(*case), 19, 120, start=0)
    twin = MemoryLoss(slow(built(*case)), 19, 120, start=0)
    for step in range(4):
        x, labels = batch(seed=step)
        close(run(loss, x, labels), run(twin, x, labels))
        assert loss.figures == pytest.approx(twin.figures, rel=1e-4)


@every_fast_pair_loss
def test_the_gradient_follows_what_is_made_of_the_value(case):
    x, labels = batch()
    _, expected = run(built(*case), x, labels)
    tensor = paddle.to_tensor(x.astype(np.float32))
    tensor.stop_gradient = False
    value = built(*case)(tensor, paddle.to_tensor(labels))
    (value * 3.0 + 1.0).backward()
    np.testing.assert_allclose(tensor.grad.numpy(), 3.0 * expected, rtol=1e-5)


@every_fast_pair_loss
def test_without_a_gradient_the_value_is_the_same(case):
    x, labels = batch()
    value, _ = run(built(*case), x, labels)
    tensor, names = paddle.to_tensor(x.astype(np.float32)), paddle.to_tensor(labels)
    assert built(*case)(tensor, names).item() == value
    tensor.stop_gradient = False
    with paddle.no_grad():
        assert built(*case)(tensor, names).item() == value


@every_fast_pair_loss
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_none_shows_in_the_loss(case, bad):
    x = embeddings(len(UNEQUAL))
    x[4, 2] = bad
    assert math.isnan(run(built(*case), x, UNEQUAL)[0])


def test_a_margin_of_another_kind_takes_the_composed_way():
    class Squared(Margin):
        """One that moves every class, as `logits` alone can say."""

        def logits(self, cosine, own, norms, extra):
            return Logits(cosine**2, own**2)

    assert not Squared().plain and element("arcmargin").margin.plain and not element("curricularface").margin.plain
    loss = ElementLoss(AllCenters(5, 7), Squared())
    value = loss(paddle.to_tensor(embeddings(6, 7)), paddle.to_tensor(np.arange(6) % 5))
    assert math.isfinite(value.item())


@every_fast_pair_loss
def test_an_overflow_is_not_a_row_of_zero(case):
    """A squared length beyond float32: as in Paddle's own way there are NaNs, which the loop reports."""
    value, slope = run(built(*case), embeddings(len(UNEQUAL)) * np.float32(1e25), UNEQUAL)
    assert not (math.isfinite(value) and np.isfinite(slope).all())


def peak_of(case, count):
    """The most memory that NumPy held, in matrices of float32 of count x count."""
    x, labels = embeddings(count, 8).astype(np.float32), np.arange(count) // 4
    loss, tensor, names = built(*case), paddle.to_tensor(x), paddle.to_tensor(labels)
    tensor.stop_gradient = False
    tracemalloc.start()
    loss(tensor, names).backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / (4 * count**2)


def test_one_matrix_is_held_where_every_pair_counts():
    assert 1.0 < peak_of(("multi_similarity", None, False), 1600) < 1.7


def test_no_matrix_is_held_where_one_pair_of_each_anchor_counts(monkeypatch):
    monkeypatch.setattr(fused_pairs, "AT_ONCE", 2**18)
    assert peak_of(("triplet", "batch_hard", False), 1600) < 0.5


def with_parameters(loss, x, labels):
    value, gradient = run(loss, x, labels)
    return value, np.concatenate([gradient.ravel(), *(each.grad.numpy().ravel() for each in loss.parameters())])


@every_plain_margin
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_element_losses_equal_the_composed_ones(name, settings, gamma, monkeypatch):
    x, labels = batch()
    loss = element(name, 18, 19, trained=True, focal_gamma=gamma, **settings)
    twin = element(name, 18, 19, trained=True, focal_gamma=gamma, **settings)
    for each in (loss, twin):
        each.centers.weight.set_value(each.centers.weight * (paddle.arange(18) != 2).astype("float32").unsqueeze(1))
    found = with_parameters(loss, x, labels)
    monkeypatch.setattr(ElementLoss, "_fits_one_matrix", lambda *_: False)
    close(found, with_parameters(twin, x, labels))
    assert loss.figures == pytest.approx(twin.figures, rel=1e-4, abs=1e-6)


@every_plain_margin
def test_centres_without_a_gradient_stay_without(name, settings):
    x, labels = batch()
    loss = element(name, 18, 19, **settings)
    expected = run(element(name, 18, 19, **settings), x, labels)
    for parameter in loss.parameters():
        parameter.stop_gradient = True
    found = run(loss, x, labels)
    assert found[0] == expected[0] and np.array_equal(found[1], expected[1])
    assert all(parameter.grad is None for parameter in loss.parameters())


@every_plain_margin
def test_centres_learn_from_fixed_embeddings(name, settings):
    x, labels = batch()
    loss, twin = element(name, 18, 19, **settings), element(name, 18, 19, **settings)
    run(twin, x, labels)
    loss(paddle.to_tensor(x.astype(np.float32)), paddle.to_tensor(labels)).backward()
    for own, same in zip(loss.parameters(), twin.parameters(), strict=True):
        assert np.array_equal(own.grad.numpy(), same.grad.numpy())


@every_plain_margin
def test_a_number_that_is_none_shows_in_the_loss_of_centres(name, settings):
    x, labels = batch()
    x[4, 2] = math.nan
    assert math.isnan(run(element(name, 18, 19, **settings), x, labels)[0])
