import functools
import itertools

import naive_losses as naive
import numpy as np
import pytest
from loss_cases import QUADRUPLES, UNEQUAL, check_against, embeddings, run

from metric_learning.checks import UserError
from metric_learning.losses.quadruplet import QuadrupletFullLoss, QuadrupletLoss


@pytest.mark.parametrize("margin", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_quadruplet_equals_the_naive_twin(margin, seed):
    twin = functools.partial(naive.quadruplet, margin=margin)
    check_against(QuadrupletLoss(margin), twin, embeddings(len(UNEQUAL), seed=seed), UNEQUAL)


def test_paddlecv_form_is_the_batch_wide_hardest():
    x, samples = embeddings(8), 2
    unit = x / np.sqrt((x**2).sum(axis=1, keepdims=True))
    d = ((unit[:, None] - unit[None]) ** 2).sum(axis=2)
    block = np.arange(8) // samples
    same = block[:, None] == block[None, :]
    expected = max(d[same & ~np.eye(8, dtype=bool)].max() - d[~same].min() + 0.1, 0.0)
    assert run(QuadrupletLoss(), x, block)[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("margins", [(0.1, 0.05), (0.0, 0.0), (1.0, 2.0)])
@pytest.mark.parametrize("mining", ["given", "batch_hard"])
def test_full_form_equals_the_naive_twin(mining, margins):
    labels = QUADRUPLES if mining == "given" else UNEQUAL
    naive_form = naive.quadruplet_full_given if mining == "given" else naive.quadruplet_full_batch_hard
    twin = functools.partial(naive_form, margin=margins[0], second=margins[1])
    for seed in range(3):
        check_against(QuadrupletFullLoss(*margins, mining), twin, embeddings(len(labels), seed=seed), labels)


def test_full_form_finds_the_nearest_strangers_of_every_class():
    for seed, classes in itertools.product(range(4), (3, 4, 9)):
        generator = np.random.default_rng(seed)
        labels = [*range(classes), *generator.integers(0, classes, 19 - classes).tolist()]
        x = embeddings(19, dim=2, seed=seed)
        value, _ = run(QuadrupletFullLoss(), x, labels)
        assert value == pytest.approx(naive.quadruplet_full_batch_hard(x.tolist(), labels), rel=1e-4)


def test_full_form_with_two_classes_has_no_quadruplet():
    with pytest.warns(UserWarning, match="three classes"):
        value, gradient = run(QuadrupletFullLoss(), embeddings(4), [0, 0, 1, 1])
    assert value == 0.0
    assert not gradient.any()


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        ([0, 0, 1], "divisible by 4"),
        ([0, 0, 1, 1], r"\[0, 0, 1, 1\]"),
        ([0, 0, 1, 0], r"0\.\.3"),
        ([0, 1, 2, 3], "0, 1"),
    ],
)
def test_given_rows_of_the_wrong_classes_are_refused(labels, word):
    with pytest.raises(UserError, match=word):
        run(QuadrupletFullLoss(mining="given"), embeddings(len(labels)), labels)


@pytest.mark.parametrize("settings", [{"margin": -1.0}, {"second_margin": float("nan")}, {"mining": "batch_all"}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        QuadrupletFullLoss(**settings)
    with pytest.raises(UserError, match="margin"):
        QuadrupletLoss(-0.1)
