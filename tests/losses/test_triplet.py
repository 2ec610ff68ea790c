import functools
import time

import naive_losses as naive
import numpy as np
import pytest
from loss_cases import TRIPLES, UNEQUAL, check_against, embeddings, run

from metric_learning.checks import UserError
from metric_learning.losses.triplet import MININGS, TripletLoss

TWINS = {
    "given": naive.triplet_given,
    "batch_hard": naive.triplet_batch_hard,
    "semi_hard": naive.triplet_semi_hard,
    "batch_all": naive.triplet_batch_all,
}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.sweep
def test_value_and_gradient_equal_the_naive_twin(mining, margin, soft):
    labels = TRIPLES if mining == "given" else UNEQUAL
    twin = functools.partial(TWINS[mining], margin=margin, soft=soft)
    for seed in range(3):
        check_against(TripletLoss(margin, mining, soft), twin, embeddings(len(labels), seed=seed), labels)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mining", [m for m in MININGS if m != "given"])
def test_value_equals_the_naive_twin_on_larger_batches(mining, soft):
    for seed in range(3):
        labels = np.random.default_rng(seed).integers(0, 7, 31).tolist()
        x = embeddings(31, seed=seed)
        value, _ = run(TripletLoss(0.2, mining, soft), x, labels)
        assert value == pytest.approx(TWINS[mining](x.tolist(), labels, 0.2, soft), rel=1e-4)


def test_paddlecv_form_on_its_own_rows():
    x = embeddings(9)
    unit = (x / np.sqrt((x**2).sum(axis=1, keepdims=True))).reshape(-1, 3, 5)
    d_ap, d_an = (((unit[:, 0] - unit[:, i]) ** 2).sum(axis=1) for i in (1, 2))
    value, _ = run(TripletLoss(), x, TRIPLES)
    assert value == pytest.approx(np.maximum(d_ap + 0.1 - d_an, 0.0).mean(), abs=1e-4)


def test_semi_hard_without_a_farther_negative_takes_the_farthest():
    # The anchor's positive is opposite to it, so no negative is farther than the positive.
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    labels = [0, 0, 1, 2]
    value, _ = run(TripletLoss(0.1, "semi_hard"), x, labels)
    assert value == pytest.approx(((4.0 - 2.0 + 0.1) + (4.0 - 3.2 + 0.1)) / 2, abs=1e-5)


# Four points on a circle about 0: distances of 2 and 4 that float32 holds exactly, so that ties are ties.
CROSS = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]])


def test_semi_hard_does_not_take_a_negative_that_is_just_as_far():
    loss = TripletLoss(0.1, "semi_hard")
    assert run(loss, CROSS, [0, 0, 1, 1])[0] == 0.0
    assert loss.figures["active_share"] == 0.0


def test_batch_all_does_not_count_a_triplet_that_is_just_met():
    loss = TripletLoss(2.0, "batch_all")
    assert run(loss, CROSS, [0, 0, 1, 1])[0] == 2.0
    assert loss.figures["active_share"] == 0.5


@pytest.mark.parametrize(("margin", "soft", "share"), [(0.0, False, 0.0), (0.1, False, 1.0), (0.1, True, 0.0)])
def test_a_triplet_is_active_while_it_pulls(margin, soft, share):
    # Every anchor's positive is as far as its nearest negative.
    for mining, labels in (("batch_hard", [0, 0, 1, 1]), ("given", [0, 0, 1])):
        loss = TripletLoss(margin, mining, soft)
        run(loss, CROSS[: len(labels)], labels)
        assert loss.figures["active_share"] == share


def test_batch_all_without_an_active_triplet_is_zero_and_flat():
    x = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    loss = TripletLoss(0.1, "batch_all")
    value, gradient = run(loss, x, [0, 0, 1, 1])
    assert value == 0.0
    assert not gradient.any()
    assert loss.figures["active_share"] == 0.0


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        ([0, 0, 1, 1], "divisible by 3.*got 4"),
        ([0, 1, 1], r"\[0, 1, 1\]"),
        ([0, 0, 1, 2, 2, 2], r"samples 3\.\.5.*\[2, 2, 2\].*batch_hard"),
    ],
)
def test_given_rows_of_the_wrong_classes_are_refused(labels, word):
    with pytest.raises(UserError, match=word):
        run(TripletLoss(), embeddings(len(labels)), labels)


def test_figures_are_those_of_the_batch():
    x, labels = embeddings(len(UNEQUAL)), UNEQUAL
    unit = [naive.unit(v) for v in x.tolist()]
    everyone = range(len(labels))
    triplets = [
        naive.squared(unit[a], unit[p]) - naive.squared(unit[a], unit[n])
        for a in everyone
        for p in naive.positives(labels, a)
        for n in naive.negatives(labels, a)
    ]
    near = [naive.squared(unit[a], unit[p]) for a in everyone for p in naive.positives(labels, a)]
    far = [naive.squared(unit[a], unit[n]) for a in everyone for n in naive.negatives(labels, a)]
    for soft, bar in ((False, -0.1), (True, 0.0)):
        loss = TripletLoss(0.1, "batch_all", soft)
        run(loss, x, labels)
        assert loss.figures["active_share"] == pytest.approx(naive.mean([t > bar for t in triplets]), abs=1e-6)
        assert loss.figures["positive_distance"] == pytest.approx(naive.mean(near), rel=1e-5)
        assert loss.figures["negative_distance"] == pytest.approx(naive.mean(far), rel=1e-5)
        norms = np.sqrt((x**2).sum(axis=1))
        assert loss.figures["embedding_norm"] == pytest.approx(norms.mean(), rel=1e-5)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mining", [m for m in MININGS if m != "given"])
def test_a_batch_of_1024_needs_no_cube(mining, soft):
    # The cube of 1024 is 4.3 GB of float32; the bound on time would not hold for it either.
    x, labels = embeddings(1024, dim=16), np.arange(1024) // 4
    start = time.perf_counter()
    value, gradient = run(TripletLoss(0.1, mining, soft), x, labels)
    assert value > 0.0 and np.isfinite(gradient).all()
    assert time.perf_counter() - start < 10.0


@pytest.mark.parametrize("settings", [{"margin": -0.1}, {"margin": float("nan")}, {"mining": "batch-hard"}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        TripletLoss(**settings)
