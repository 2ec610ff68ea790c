"""The pool against its slow twin: bookkeeping, loss and gradient over several steps, and its edges."""

import naive_losses as naive
import numpy as np
import paddle
import pytest
from loss_cases import numeric_gradient
from naive_pool import NaivePool

from metric_learning.checks import UserError
from metric_learning.losses import ELEMENT_LOSSES, pool_loss
from metric_learning.losses.centers import sharded_names
from metric_learning.losses.ledger import EMPTY, Ledger

C, D = 12, 5
# Settings at which every branch of a margin matters.
MARGINS = [
    ("arcmargin", {"scale": 8.0, "margin": 0.5}),
    ("amsoftmax", {"scale": 8.0, "margin": 0.2}),
    ("magface", {"scale": 8.0, "l_a": 1.5, "u_a": 2.5, "lambda_g": 2.0}),
    ("sphereface", {"scale": 6.0, "margin": 1.35}),
    ("curricularface", {"scale": 8.0, "margin": 1.2, "ema_rate": 0.3}),
    ("adaface", {"scale": 8.0, "margin": 0.7, "h": 0.8, "ema_rate": 0.2}),
]


def made(slots=4, name="arcmargin", seed=0, **settings):
    paddle.seed(seed)
    return pool_loss(name, C, D, slots, **{"scale": 8.0, **settings})


def rows(loss):
    return [getattr(loss.element.centers, f"row{row}").numpy().astype(np.float64) for row in range(2)]


def naive_of(loss):
    return NaivePool(*(row.tolist() for row in rows(loss)))


def drawn(count, seed):
    return np.random.default_rng(seed).normal(size=(count, D)).astype(np.float32).astype(np.float64)


def run(loss, x, labels, features, names, keep=True):
    tensor = paddle.to_tensor(np.asarray(x, np.float32), stop_gradient=False)
    value = loss(
        tensor,
        paddle.to_tensor(np.asarray(labels)),
        paddle.to_tensor(np.asarray(features, np.float32)),
        paddle.to_tensor(np.asarray(names)),
        keep,
    )
    assert list(value.shape) == [] and value.dtype == paddle.float32
    value.backward()
    return value.item(), tensor.grad.numpy().astype(np.float64)


def write(loss, features, names, keep=True):
    """Written without looking at the loss: by a probe of class 0."""
    return run(loss, np.ones((1, D)), [0], features, names, keep)


def same_pool(loss, twin):
    for row, expected in zip(rows(loss), twin.rows, strict=True):
        np.testing.assert_allclose(row, expected, atol=2e-7)
    ledger = loss.element.centers.ledger()
    filled = np.flatnonzero(ledger.identity != EMPTY)
    order = filled[np.argsort(ledger.used[filled])]
    assert [(int(ledger.identity[slot]), int(slot)) for slot in order] == list(twin.used.items())
    assert {int(ledger.identity[slot]): int(ledger.turn[slot]) for slot in filled} == twin.turn


# ---- bookkeeping


@pytest.mark.parametrize("seed", range(30))
def test_the_ledger_is_an_ordered_dictionary(seed):
    rng = np.random.default_rng(seed)
    slots, count = int(rng.integers(1, 9)), int(rng.integers(1, 12))
    ledger, twin = Ledger.of(slots), NaivePool([[1.0]] * slots, [[1.0]] * slots)
    for _ in range(20):
        people = rng.choice(30, slots, replace=False)  # never more of them than slots
        names = rng.choice(people, count).tolist()
        went = ledger.write(names)
        for name, (slot, row, new) in zip(names, went, strict=True):
            assert new == (name not in twin.used)
            assert row == (0 if new else twin.turn[name])
            twin.write([[1.0]], [name])
            assert slot == twin.used[name]
        asked = list(range(30))
        assert ledger.find(asked).tolist() == [twin.used.get(name, EMPTY) for name in asked]


def test_the_oldest_goes_first_and_a_writing_renews():
    ledger = Ledger.of(3)
    assert [place.slot for place in ledger.write([7, 8, 9])] == [0, 1, 2]
    ledger.write([7])  # now 8 is the oldest
    assert ledger.write([5])[0] == (1, 0, True)
    assert ledger.find([7, 8, 9, 5]).tolist() == [0, EMPTY, 2, 1]
    # In one batch too: 9 is the oldest, goes for 4, and comes back as a new one in the slot of 7.
    assert ledger.write([4, 9]) == [(2, 0, True), (0, 0, True)]


def test_a_known_identity_alternates_rows():
    loss = made()
    features = drawn(5, 1)
    for number, feature in enumerate(features):
        write(loss, [feature], [6])
        found = [row[0] for row in rows(loss)]
        latest, before = number % 2, (number + 1) % 2
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        np.testing.assert_allclose(found[latest], unit[number], atol=1e-6)
        np.testing.assert_allclose(found[before], unit[max(number - 1, 0)], atol=1e-6)


def test_an_identity_twice_in_a_batch_fills_both_rows_and_thrice_its_first_again():
    loss, features = made(), drawn(4, 2)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    write(loss, features[:2], [3, 3])
    np.testing.assert_allclose([row[0] for row in rows(loss)], unit[:2], atol=1e-6)
    loss = made()
    write(loss, features, [3, 3, 1, 3])
    np.testing.assert_allclose([row[0] for row in rows(loss)], unit[[3, 1]], atol=1e-6)


def test_who_takes_a_slot_leaves_nothing_of_who_had_it():
    loss, features = made(1), drawn(3, 3)
    write(loss, features[:2], [3, 3])
    write(loss, features[2:], [4])
    unit = features[2] / np.linalg.norm(features[2])
    np.testing.assert_allclose([row[0] for row in rows(loss)], [unit, unit], atol=1e-6)


def test_more_identities_than_slots_are_refused():
    with pytest.raises(UserError, match=r"4 slots can't take the 5 identities .* --pool_size to 5"):
        write(made(4), drawn(5, 1), [1, 2, 3, 4, 5])
    write(made(4), drawn(5, 1), [1, 2, 3, 4, 4])


def test_a_start_of_unit_vectors_from_everywhere():
    for row in rows(made(200)):
        np.testing.assert_allclose(np.linalg.norm(row, axis=1), 1.0, atol=1e-6)
        assert np.linalg.norm(row.mean(axis=0)) < 0.2
    first, second = rows(made(200))
    assert abs(first - second).max() > 0.1


# ---- the loss over steps


def known(name, settings, twin, x, labels, state):
    """What each sample's logits depend on beside it; margins move by the pictures in the pool and row 0."""
    inside = [i for i, label in enumerate(labels) if label in twin.used]
    seen, slots = [x[i] for i in inside], [twin.used[labels[i]] for i in inside]
    rate = settings.get("ema_rate", 0.01)
    if name == "curricularface" and inside:
        state["t"] = naive.curricularface_t(seen, slots, twin.rows[0], state.get("t", 0.0), rate)
    if name == "adaface" and inside:
        state["mean"], state["std"] = naive.adaface_averages(
            seen, state.get("mean", 20.0), state.get("std", 100.0), rate
        )


def logits_of(name, settings, state):
    function = getattr(naive, f"{name}_logits")
    alike = {k: v for k, v in settings.items() if k not in ("h", "ema_rate", "lambda_g")}

    def logits(v, slot, weight, row):
        beside = {"t": state["t"]} if name == "curricularface" else {}
        if name == "adaface":
            beside = {"z": naive.adaface_z(v, state["mean"], state["std"], settings["h"])}
        return function(v, slot, weight, **alike, **beside)

    return logits


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize(("name", "settings"), MARGINS)
@pytest.mark.parametrize("slots", [4, 40])
@pytest.mark.sweep
def test_the_loss_is_its_twin_s_over_several_steps(name, settings, slots, gamma):
    if name == "adaface":  # z has no gradient, and the twin's difference would see one
        settings = {**settings, "h": 0.0}
    loss = made(slots, name, focal_gamma=gamma, **settings)
    twin, state = naive_of(loss), {}
    rng = np.random.default_rng(5)
    for step in range(6):
        # Four classes at most are written, all twelve are looked at: some are in the pool and some are not.
        names, labels = rng.choice(C, 4, replace=False)[rng.integers(4, size=5)], rng.integers(C, size=5)
        features, x = drawn(5, 100 + step), drawn(5, 200 + step)
        keep = step % 2 == 1
        after = twin.trial()
        after.write(features.tolist(), names.tolist())
        known(name, settings, after, x.tolist(), labels.tolist(), state)
        penalty = {k: v for k, v in settings.items() if k in ("l_a", "u_a", "lambda_g")}
        added = (lambda v, p=penalty: naive.magface_penalty(v, **p)) if name == "magface" else (lambda v: 0.0)

        def value(moved, after=after, labels=labels, added=added):
            return after.loss(moved, labels.tolist(), logits_of(name, settings, state), gamma, added)

        found, slope = run(loss, x, labels, features, names, keep)
        assert found == pytest.approx(value(x.tolist()), rel=1e-4, abs=1e-4)
        expected = numeric_gradient(value, x)
        np.testing.assert_allclose(slope, expected, rtol=2e-3, atol=2e-4 * max(1.0, np.abs(expected).max()))
        twin = after if keep else twin
        same_pool(loss, twin)


def test_adaface_gets_the_true_norms():
    loss = made(6, "adaface", scale=8.0, margin=0.7, h=0.8, ema_rate=0.2)
    twin, state, settings = naive_of(loss), {}, {"scale": 8.0, "margin": 0.7, "h": 0.8, "ema_rate": 0.2}
    features, x, names, labels = drawn(4, 1), 3 * drawn(4, 2), [1, 2, 3, 4], [1, 2, 3, 9]
    twin.write(features.tolist(), names)
    known("adaface", settings, twin, x.tolist(), labels, state)
    found, _ = run(loss, x, labels, features, names)
    assert found == pytest.approx(twin.loss(x.tolist(), labels, logits_of("adaface", settings, state)), rel=1e-4)
    assert loss.element.margin.mean.item() == pytest.approx(state["mean"], rel=1e-5)
    assert loss.element.margin.std.item() == pytest.approx(state["std"], rel=1e-5)


@pytest.mark.parametrize("name", [name for name, kind in ELEMENT_LOSSES.items() if kind.normalized])
def test_every_margin_of_the_table(name):
    loss = made(5, name)
    value, slope = run(loss, drawn(4, 1), [0, 1, 2, 7], drawn(4, 2), [0, 1, 2, 3])
    assert np.isfinite(value) and np.isfinite(slope).all() and np.abs(slope).max(axis=1).all()


@pytest.mark.parametrize("name", [name for name, kind in ELEMENT_LOSSES.items() if not kind.normalized])
def test_losses_of_products_have_no_cosines(name):
    with pytest.raises(UserError, match="softmax and bce have products"):
        made(name=name)


@pytest.mark.parametrize(("slots", "k"), [(1, 1), (2, 2), (3, 3), (19_999, 3), (20_000, 4), (49_999, 9), (10**5, 10)])
def test_how_many_cosines_count_outside(slots, k):
    assert pool_loss("arcmargin", C, 2, slots).hardest == k


def test_all_outside_is_a_mean_of_the_largest_cosines():
    loss, features = made(30), drawn(3, 1)
    x = drawn(4, 7)
    value, slope = run(loss, x, [8, 9, 10, 11], features, [0, 1, 2])
    twin = naive_of(loss)
    unit = [np.array(naive.unit(v)) for v in x.tolist()]
    expected = 0.0
    for row in (0, 1):
        hard = [np.clip(np.sort([v @ np.array(w) for w in twin.rows[row]])[-3:], 0, None) for v in unit]
        expected += np.mean(hard)
    assert value == pytest.approx(expected, rel=1e-5)
    assert np.abs(slope).max() > 0
    assert loss.figures.keys() == {"in_pool", "pool_fill", "outside_cosine"}
    assert loss.figures["in_pool"] == 0.0 and loss.figures["pool_fill"] == pytest.approx(0.1)


def test_none_outside_and_a_pool_larger_than_the_classes():
    loss = made(C + 5)
    names = list(range(C))
    value, _ = run(loss, drawn(C, 1), names, drawn(C, 2), names)
    twin = naive_of(loss)
    assert loss.figures["in_pool"] == 1.0 and "outside_cosine" not in loss.figures
    twin.used = {name: name for name in names}
    assert value == pytest.approx(
        twin.loss(drawn(C, 1).tolist(), names, lambda v, s, w, r: naive.arcmargin_logits(v, s, w, 8.0)), rel=1e-4
    )


def test_below_zero_a_cosine_outside_teaches_nothing():
    loss = made(1)
    value, slope = run(loss, [[-1.0, 0, 0, 0, 0]], [5], [[1.0, 0, 0, 0, 0]], [4])
    assert value == 0.0 and not slope.any()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", [name for name, kind in ELEMENT_LOSSES.items() if kind.normalized])
def test_gradients_are_finite_at_cosine_one_and_at_zero(name, sign):
    features = np.eye(D)[:4]
    x = np.concatenate([sign * 2 * features, np.zeros((1, D)), sign * features[:1], np.zeros((1, D))])
    value, slope = run(made(6, name), x, [0, 1, 2, 3, 0, 9, 9], features, [0, 1, 2, 3])
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_what_is_not_kept_changes_nothing():
    loss = made()
    write(loss, drawn(3, 1), [0, 1, 2])
    before = {name: value.numpy().copy() for name, value in loss.state_dict().items()}
    first, _ = run(loss, drawn(3, 2), [4, 0, 9], drawn(3, 3), [4, 5, 0], keep=False)
    for name, value in loss.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    again, _ = run(loss, drawn(3, 2), [4, 0, 9], drawn(3, 3), [4, 5, 0], keep=True)
    assert first == again
    assert any((value.numpy() != before[name]).any() for name, value in loss.state_dict().items())


def test_two_passes_before_one_backward_keep_their_own_pools():
    """The pool goes on while the graph of an earlier pass still needs what it was."""
    x = paddle.to_tensor(np.asarray(drawn(3, 2), np.float32), stop_gradient=False)

    def value(loss, keep, features):
        names = paddle.to_tensor(np.array([0, 1, 2]))
        return loss(x, names, paddle.to_tensor(np.asarray(features, np.float32)), names, keep)

    alone = made()
    value(alone, False, drawn(3, 3)).backward()
    one = x.grad.numpy().copy()
    x.clear_gradient()
    both = made()
    first = value(both, False, drawn(3, 3))
    value(both, True, drawn(3, 4))
    first.backward()
    np.testing.assert_array_equal(x.grad.numpy(), one)


def test_labels_that_are_no_class_are_named():
    for labels, names, bad in (([0, C], [0, 1], C), ([0, 1], [0, -1], -1)):
        with pytest.raises(UserError, match=f"got {bad}"):
            run(made(), drawn(2, 1), labels, drawn(2, 2), names)


def test_dropout_is_of_training_only():
    def value(train):
        loss = made(dropout=0.5)
        loss.train() if train else loss.eval()
        paddle.seed(3)
        return run(loss, drawn(3, 1), [0, 1, 2], drawn(3, 2), [0, 1, 2])[0]

    assert value(True) != value(False) == run(made(), drawn(3, 1), [0, 1, 2], drawn(3, 2), [0, 1, 2])[0]


def test_the_rows_are_divided_and_saved_once_and_the_ledger_is_whole():
    loss = made()
    assert sharded_names(loss) == ["element.centers.row0", "element.centers.row1"]
    assert set(loss.state_dict()) == {f"element.centers.{n}" for n in ("row0", "row1", "identity", "used", "turn")}
    assert not [p for p in loss.parameters() if not p.stop_gradient]
