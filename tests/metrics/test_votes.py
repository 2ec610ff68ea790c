"""Votes, fitted weights and the fusion head against plain twins, brute force and finite differences."""

import itertools
import json
import math

import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.files import read_tensors, write_tensors
from metric_learning.metrics import fusion
from metric_learning.metrics import softmax_regression as regression
from metric_learning.metrics.votes import VOTES, FusionHead, fit_fusion, fit_weights, vote


def drawn(seed, models=3, count=60, classes=3, tenths=False):
    rng = np.random.default_rng(seed)
    if tenths:
        return rng.multinomial(10, np.full(classes, 1 / classes), (models, count)) / 10
    return rng.dirichlet(np.ones(classes), (models, count))


def naive_hard(rows):
    """The decision of each picture, and the share of the votes of each class, before ties."""
    decisions, shares = [], []
    for n in range(len(rows[0])):
        votes, means = [0] * len(rows[0][0]), [0.0] * len(rows[0][0])
        for model in rows:
            row = model[n]
            votes[max(range(len(row)), key=lambda c: (row[c], -c))] += 1
            means = [mean + p for mean, p in zip(means, row, strict=True)]
        decisions.append(max(range(len(votes)), key=lambda c: (votes[c], means[c], -c)))
        shares.append([v / len(rows) for v in votes])
    return decisions, shares


# ---- votes


@pytest.mark.parametrize("models", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_hard_votes_are_those_of_the_plain_twin(models, classes):
    rows = drawn(models, models, 300, classes)
    found = vote(rows, "hard")
    decisions, shares = naive_hard(rows.tolist())
    assert found.argmax(axis=1).tolist() == decisions
    assert found.sum(axis=1) == pytest.approx(1.0)
    for row, share in zip(found, shares, strict=True):
        tied = [c for c in range(classes) if share[c] == max(share)]
        expected = share if len(tied) == 1 else [row[c] if c in tied else share[c] for c in range(classes)]
        assert row == pytest.approx(expected, abs=1e-12)
        assert sum(row[tied]) == pytest.approx(sum(share[c] for c in tied))


def test_a_tie_of_votes_is_shared_out_by_the_mean_probability():
    rows = [[[0.9, 0.1, 0.0]], [[0.4, 0.6, 0.0]]]
    assert vote(rows, "hard")[0] == pytest.approx([0.65, 0.35, 0.0])
    # Five models: two, two and one vote; the one keeps its fifth, and has the highest mean to no avail.
    rows = [[[0.4, 0.2, 0.4]]] * 2 + [[[0.1, 0.5, 0.4]]] * 2 + [[[0.0, 0.0, 1.0]]]
    assert vote(rows, "hard")[0] == pytest.approx([0.8 * 1.0 / 2.4, 0.8 * 1.4 / 2.4, 0.2])
    # Equal in votes and in means: the first.
    assert vote([[[0.2, 0.8]], [[0.8, 0.2]]], "hard")[0] == pytest.approx([0.5, 0.5])
    assert vote([[[0.5, 0.5]]], "hard").tolist() == [[1.0, 0.0]]


def test_ties_within_a_model_go_to_the_first_class():
    rows = drawn(1, 3, 200, 4, tenths=True)
    clear = [n for n, share in enumerate(naive_hard(rows.tolist())[1]) if share.count(max(share)) == 1]
    decisions = naive_hard(rows.tolist())[0]
    assert len(clear) > 50
    assert [int(vote(rows, "hard")[n].argmax()) for n in clear] == [decisions[n] for n in clear]


def test_soft_and_weighted_votes():
    rows = drawn(2, 4, 50, 3)
    assert vote(rows, "soft") == pytest.approx(sum(rows) / 4)
    weights = np.array([3.0, 0.0, 1.0, 4.0])
    expected = (3 * rows[0] + rows[2] + 4 * rows[3]) / 8
    assert vote(rows, "weighted", weights) == pytest.approx(expected)
    assert vote(rows, "weighted", [1e300, 0, 1e300 / 3, 4e300 / 3]) == pytest.approx(expected)
    assert vote(rows, "weighted", [1, 1, 1, 1]) == pytest.approx(vote(rows, "soft"))
    assert vote(rows, "weighted", [0, 0, 5, 0]) == pytest.approx(rows[2])


@pytest.mark.parametrize("kind", VOTES)
def test_every_vote_is_a_distribution_that_order_does_not_touch(kind):
    rows = drawn(3, 4, 40, 3)
    weights = np.array([1.0, 2.0, 3.0, 4.0]) if kind == "weighted" else None
    found = vote(rows, kind, weights)
    assert found.dtype == np.float64 and found.shape == (40, 3) and (found >= 0).all()
    assert found.sum(axis=1) == pytest.approx(1.0)
    order = [2, 0, 3, 1]
    again = vote(rows[order], kind, weights[order] if weights is not None else None)
    assert again == pytest.approx(found, abs=1e-12)
    assert vote(rows[:1], kind, [2.0] if weights is not None else None).argmax(axis=1).tolist() == (
        rows[0].argmax(axis=1).tolist()
    )
    assert vote(rows[:, :0], kind, weights).shape == (0, 3)


@pytest.mark.parametrize(
    ("kind", "weights", "words"),
    [
        ("weighed", None, "Did you mean 'weighted'"),
        ("weighted", None, "takes a weight"),
        ("hard", [1, 1], "has no weights"),
        ("soft", [1, 1], "has no weights"),
        ("weighted", [1, 1, 1], "2 numbers"),
        ("weighted", [0, 0], "not all 0"),
        ("weighted", [1, -1], "0 or more"),
        ("weighted", [1, math.nan], "finite"),
        ("weighted", [1, math.inf], "finite"),
        ("weighted", ["a", "b"], "2 numbers"),
    ],
)
def test_bad_votes_are_one_line(kind, weights, words):
    with pytest.raises(UserError, match=words) as caught:
        vote(drawn(0, 2), kind, weights)
    assert "\n" not in str(caught.value)


def test_bad_probabilities_of_votes():
    with pytest.raises(UserError, match="M, N, C"):
        vote(drawn(0)[0], "soft")
    with pytest.raises(UserError, match="softmax"):
        vote(drawn(0) * 1.1, "soft")
    with pytest.raises(UserError, match="at least one model"):
        vote(np.ones((0, 3, 2)), "soft")


# ---- fitted weights


def mixture_loss(rows, labels, weights):
    total = 0.0
    for n, label in enumerate(labels):
        total -= math.log(sum(w * model[n][label] for w, model in zip(weights, rows, strict=True)))
    return total / len(labels)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("models", [2, 3])
def test_weights_are_those_of_brute_force(models, seed):
    rows = drawn(seed, models, 40, 3)
    labels = np.random.default_rng(seed).integers(0, 3, 40)
    rows[0] = 0.5 * rows[0] + 0.5 * np.eye(3)[labels] * (seed % 2) + 0.5 * rows[0] * (1 - seed % 2)
    found = fit_weights(rows, labels)
    steps = 200 if models == 2 else 40
    grid = [p for p in itertools.product(range(steps + 1), repeat=models) if sum(p) == steps]
    losses = {p: mixture_loss(rows.tolist(), labels.tolist(), np.array(p) / steps) for p in grid}
    best = min(losses, key=losses.get)
    reached = mixture_loss(rows.tolist(), labels.tolist(), found)
    assert found.sum() == pytest.approx(1.0) and (found >= 0).all()
    assert reached <= losses[best] + 1e-9
    assert found == pytest.approx(np.array(best) / steps, abs=2 / steps)


def test_weights_of_the_useless_and_of_the_alike():
    labels = np.random.default_rng(0).integers(0, 2, 500)
    right = np.clip(np.eye(2)[labels] * 0.9 + 0.05, 0, 1)
    right /= right.sum(axis=1, keepdims=True)
    assert fit_weights([right, right[::-1], 1 - right], labels) == pytest.approx([1, 0, 0], abs=1e-3)
    alike = drawn(1, 1, 500, 2)[0]
    assert fit_weights([alike, alike, alike], labels) == pytest.approx([1 / 3] * 3)
    assert fit_weights([alike], labels).tolist() == [1.0]
    # A model that is sure and wrong everywhere, and a picture that all have at 0.
    assert fit_weights([alike, 1 - np.eye(2)[labels]], labels) == pytest.approx([1, 0], abs=1e-6)
    assert fit_weights([1 - np.eye(2)[labels]] * 2, labels) == pytest.approx([0.5, 0.5])


def test_fitted_weights_know_no_order():
    rows, labels = drawn(5, 4, 300, 3), np.random.default_rng(5).integers(0, 3, 300)
    found, order = fit_weights(rows, labels), [3, 1, 0, 2]
    assert fit_weights(rows[order], labels) == pytest.approx(found[order], abs=1e-5)
    assert fit_weights(rows[:, ::-1], labels[::-1]) == pytest.approx(found, abs=1e-5)


def test_weights_need_pictures_and_labels():
    with pytest.raises(UserError, match="validation pictures"):
        fit_weights(np.ones((2, 0, 2)), [])
    with pytest.raises(UserError, match=r"0\.\.2"):
        fit_weights(drawn(0), [3] * 60)


# ---- the solver


def naive_objective(features, labels, weights, penalty):
    total = 0.0
    for x, label in zip(features, labels, strict=True):
        logits = [sum(a * w for a, w in zip([*x, 1.0], column, strict=True)) for column in weights.T]
        total += math.log(sum(math.exp(v) for v in logits)) - logits[label]
    return (
        total / len(labels)
        + penalty / 2 * float((weights[:-1] ** 2).sum())
        + regression.BIAS_PENALTY / 2 * float((weights[-1] ** 2).sum())
    )


@pytest.mark.parametrize("classes", [2, 4])
def test_the_gradient_is_that_of_finite_differences(classes):
    rng = np.random.default_rng(classes)
    features, labels = rng.normal(size=(12, 3)), rng.integers(0, classes, 12)
    weights = rng.normal(size=(4, classes))
    loss, gradient = regression.objective(features, labels, classes, 0.3)(weights)
    assert loss == pytest.approx(naive_objective(features, labels, weights, 0.3), rel=1e-12)
    for i, j in itertools.product(range(4), range(classes)):
        step = np.zeros_like(weights)
        step[i, j] = 1e-6
        rise = naive_objective(features, labels, weights + step, 0.3) - naive_objective(
            features, labels, weights - step, 0.3
        )
        assert gradient[i, j] == pytest.approx(rise / 2e-6, abs=1e-8)


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-5])
def test_the_gradient_vanishes_at_the_optimum_from_anywhere(penalty):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 30)) * np.geomspace(1, 1e-2, 30)
    labels = (features[:, 0] + 0.3 * rng.normal(size=200) > 0).astype(int) + (features[:, 1] > 1)
    found = regression.fit(features, labels, 3, penalty)
    function = regression.objective(features, labels, 3, penalty)
    assert np.abs(function(found)[1]).max() <= regression.TOLERANCE
    assert np.abs(found.sum(axis=1)).max() < 1e-2  # the penalty centres the classes
    again = regression.fit(features, labels, 3, penalty, start=rng.normal(size=found.shape))
    assert np.abs(function(again)[1]).max() <= regression.TOLERANCE
    apart = again - found  # but for a shift of all classes alike, which hardly has a penalty in the bias
    assert np.abs(apart - apart.mean(axis=1, keepdims=True)).max() < 1e-3 + 2 * regression.TOLERANCE / penalty


def test_softmax_does_not_overflow():
    assert regression.softmax(np.array([[1e4, 0.0], [-1e4, -1e4]])).tolist() == [[1.0, 0.0], [0.5, 0.5]]


# ---- the head


def two_models(seed, count=300, classes=2, sizes=(8, 5)):
    """Each model sees a half of what tells the classes apart."""
    maps = [np.random.default_rng(m).normal(size=(classes, size)) for m, size in enumerate(sizes)]
    rng = np.random.default_rng(100 + seed)
    labels = rng.integers(0, classes, count)
    return [1.0 + 0.5 * maps[m][labels] + rng.normal(size=(count, size)) for m, size in enumerate(sizes)], labels


def accuracy(head, parts, labels):
    return float((head.probabilities(parts).argmax(axis=1) == labels).mean())


@pytest.mark.parametrize("classes", [2, 4])
def test_a_head_over_two_models_beats_a_head_over_one(classes):
    train, labels = two_models(0, 600, classes)
    test, truth = two_models(1, 600, classes)
    both = accuracy(fit_fusion(train, labels, classes), test, truth)
    assert both > max(accuracy(fit_fusion([train[m]], labels, classes), [test[m]], truth) for m in (0, 1)) > 1 / classes


def test_probabilities_are_as_documented():
    train, labels = two_models(0)
    head = fit_fusion(train, labels, 2)
    assert head.weight.shape == (13, 2) and head.sizes == (8, 5) and head.weight.dtype == np.float32
    for i in range(5):
        logits = head.bias.astype(float).copy()
        for part, weight in zip(train, np.split(head.weight.astype(float), [8]), strict=True):
            logits += part[i] / np.linalg.norm(part[i]) @ weight
        expected = np.exp(logits) / np.exp(logits).sum()
        assert head.probabilities(train)[i] == pytest.approx(expected, abs=1e-6)
    assert head.probabilities([part[:0] for part in train]).shape == (0, 2)


def test_the_head_is_the_optimum_of_the_scaled_problem():
    """Centred, one factor a model, and folded back: nothing is lost on the way."""
    train, labels = two_models(2)
    head = fit_fusion(train, labels, 2)
    units = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in train]
    moved = [part - part.mean(axis=0) for part in units]
    features = np.hstack([part / np.sqrt((part**2).sum(axis=1).mean()) for part in moved])
    weights = regression.fit(features, labels, 2, head.penalty)
    expected = regression.softmax(features @ weights[:-1] + weights[-1])
    assert head.probabilities(train) == pytest.approx(expected, abs=1e-4)


def test_lengths_turns_and_order_do_not_matter():
    train, labels = two_models(3)
    expected = fit_fusion(train, labels, 2).probabilities(train)
    rng = np.random.default_rng(0)
    longer = [train[0] * rng.uniform(0.1, 1000, (300, 1)), train[1] * 1e-3]
    assert fit_fusion(longer, labels, 2).probabilities(longer) == pytest.approx(expected, abs=1e-3)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    turned = [train[0] @ turn, train[1]]
    assert fit_fusion(turned, labels, 2).probabilities(turned) == pytest.approx(expected, abs=1e-3)
    assert fit_fusion(train[::-1], labels, 2).probabilities(train[::-1]) == pytest.approx(expected, abs=1e-3)


def test_the_same_bits_every_time_and_the_seed_deals_the_folds():
    train, labels = two_models(4)
    one, two = fit_fusion(train, labels, 2, seed=1), fit_fusion(train, labels, 2, seed=1)
    assert one.weight.tobytes() == two.weight.tobytes() and one.log_loss == two.log_loss
    assert fit_fusion(train, labels, 2, seed=2).log_loss != one.log_loss


def test_val_chooses_the_penalty_and_is_not_fitted_on():
    train, labels = two_models(5, 60)
    val = two_models(6, 400)
    head = fit_fusion(train, labels, 2, val)
    by_hand = {}
    for penalty in fusion.PENALTIES:
        units = fusion._units(train)
        scaling = fusion._Scaling.of(units)
        weights = regression.fit(scaling.features(units), labels, 2, penalty)
        rows = scaling.head(weights, (8, 5), penalty, None).probabilities(val[0])
        by_hand[penalty] = -float(np.log(rows[np.arange(400), val[1]]).mean())
    assert head.penalty == min(by_hand, key=by_hand.get)
    assert head.log_loss == pytest.approx(by_hand[head.penalty], abs=1e-3)
    # Labels that say nothing call for the strongest penalty; ones that say all for a weak one.
    noise = np.random.default_rng(0).integers(0, 2, 60)
    assert fit_fusion(train, noise, 2).penalty == max(fusion.PENALTIES)
    clear = [np.eye(2)[labels] + 0.01]
    assert fit_fusion(clear, labels, 2).penalty == min(fusion.PENALTIES)


def test_folds_are_stratified_and_hold_each_picture_once():
    truth = np.array([0] * 11 + [1] * 7 + [2] * 2)
    seen = []
    for features, labels, held, held_labels in fusion._folds(np.arange(20.0)[:, None], truth, 0):
        assert len(features) == len(labels) == 16 and len(held) == len(held_labels) == 4
        assert np.bincount(held_labels, minlength=3)[0] in (2, 3) and np.bincount(held_labels, minlength=3)[1] in (1, 2)
        seen += held[:, 0].tolist()
    assert sorted(seen) == list(range(20))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_pictures_absent_classes_and_constant_embeddings(count):
    train, labels = two_models(7, count)
    head = fit_fusion(train, labels, 5)
    assert np.isfinite(head.probabilities(train)).all()
    assert (head.log_loss is None) == (count == 1)
    flat = fit_fusion([np.ones((9, 4)), np.zeros((9, 2))], [0] * 6 + [1] * 3, 2)
    assert flat.probabilities([np.ones((1, 4)), np.zeros((1, 2))])[0] == pytest.approx([2 / 3, 1 / 3], abs=1e-3)


def test_a_head_survives_its_file(tmp_path):
    train, labels = two_models(8)
    head = fit_fusion(train, labels, 2)
    arrays, metadata = head.to_arrays()
    write_tensors(tmp_path / "head.safetensors", arrays, json.loads(json.dumps(metadata)))
    again = FusionHead.from_arrays(*read_tensors(tmp_path / "head.safetensors"))
    assert again.probabilities(train).tobytes() == head.probabilities(train).tobytes()
    assert (again.sizes, again.penalty, again.log_loss) == (head.sizes, head.penalty, head.log_loss)
    alone = fit_fusion([part[:1] for part in train], labels[:1], 2)
    assert FusionHead.from_arrays(*alone.to_arrays()).log_loss is None


@pytest.mark.parametrize(
    ("arrays", "metadata"),
    [
        ({}, {}),
        ({}, {"kind": "else"}),
        ({}, {"sizes": None}),
        ({}, {"sizes": [13]}),
        ({}, {"sizes": [8, "5"]}),
        ({}, {"sizes": [14, -1]}),
        ({}, {"sizes": [8, 6]}),
        ({"weight": np.ones((13, 3), np.float32)}, {}),
        ({"weight": np.ones(13, np.float32)}, {}),
        ({"weight": np.full((13, 2), np.nan, np.float32)}, {}),
        ({"weight": np.ones((13, 2), np.int64)}, {}),
        ({"bias": None}, {}),
        ({"bias": np.full(2, np.inf, np.float32)}, {}),
    ],
)
def test_arrays_of_a_stranger(arrays, metadata):
    good, said = FusionHead(np.ones((13, 2), np.float32), np.ones(2, np.float32), (8, 5), 0.1).to_arrays()
    broken = {name: value for name, value in {**good, **arrays}.items() if value is not None}
    if (not arrays and not metadata) or metadata == {"sizes": [13]}:
        FusionHead.from_arrays(broken, {**said, **metadata})
        FusionHead.from_arrays(broken, {k: v for k, v in said.items() if k not in ("penalty", "log_loss")})
    else:
        with pytest.raises(UserError, match="no fusion head"):
            FusionHead.from_arrays(broken, {**said, **metadata})


def test_bad_embeddings_are_one_line():
    train, labels = two_models(9, 40)
    head = fit_fusion(train, labels, 2)
    nan = [np.where(np.arange(8) == 3, np.nan, train[0]), train[1]]
    for call, words in (
        (lambda: head.probabilities(train[::-1]), r"8 \+ 5; got 5 \+ 8"),
        (lambda: head.probabilities(train[:1]), "got 8"),
        (lambda: head.probabilities([]), "at least one model"),
        (lambda: head.probabilities([train[0], train[1][:3]]), "as many rows; got 40, 3"),
        (lambda: head.probabilities(nan), "model 1 must be finite"),
        (lambda: fit_fusion(train, labels[:3], 2), "one a row"),
        (lambda: fit_fusion(train, labels + 1, 2), r"0\.\.1"),
        (lambda: fit_fusion(train, labels, 1), "at least 2"),
        (lambda: fit_fusion([part[:0] for part in train], [], 2), "none"),
        (lambda: fit_fusion(train, labels, 2, (train[:1], labels)), "val must hold"),
        (lambda: fit_fusion(train, labels, 2, ([part[:0] for part in train], [])), "val must hold"),
        (lambda: fit_fusion(train, labels, 2, (train, labels + 1)), r"0\.\.1"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
