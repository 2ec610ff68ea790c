"""The cross-batch memory, round every pair loss: against its naive twin, and as a queue."""

import copy
import functools
import warnings

import naive_losses as naive
import numpy as np
import paddle
import pytest
from loss_cases import TRIPLES, UNEQUAL, embeddings, numeric_gradient, run
from pair_cases import UNORDERED, built, twin_of

from metric_learning.checks import UserError
from metric_learning.losses import MemoryLoss, pair_loss

every_unordered_case = pytest.mark.parametrize(("name", "mining", "soft"), UNORDERED)
# Of two batches and a half, so that the ring is cut inside a batch.
SIZE = 28


def batch(step):
    """Another batch each step: other embeddings, other counts of the classes, and one class that only it has."""
    labels = np.random.default_rng(step).permutation(UNEQUAL)
    labels[step % len(labels)] = 20 + step
    return embeddings(len(UNEQUAL), seed=step), labels.tolist()


def queue_of(loss):
    """What the queue holds, the oldest first: (embeddings, labels)."""
    entered = int(loss.entered.item())
    filled = min(entered, loss.size)
    order = (entered - filled + np.arange(filled)) % loss.size
    return loss.queue.numpy()[order], loss.queue_labels.numpy()[order]


def with_fixed_weights(twin, x):
    """The twin of circle with the weights that it has at x, through which no gradient goes; any other as it is."""
    fixed = copy.copy(twin)
    if twin.naive is naive.circle:
        fixed.naive = functools.partial(naive.circle, weights_at=[*x.tolist(), *(v for v, _ in twin.past)])
    return fixed


@every_unordered_case
@pytest.mark.sweep
def test_value_and_gradient_equal_the_naive_twin(name, mining, soft):
    loss = MemoryLoss(built(name, mining, soft), 5, SIZE, start=1)
    twin = naive.Memory(twin_of(name, mining, soft), SIZE, 1)
    for step in range(6):
        x, labels = batch(step)
        value, gradient = run(loss, x, labels)
        assert value == pytest.approx(twin.value(x.tolist(), labels), rel=1e-4, abs=1e-5)
        assert loss.figures["memory"] == [0, 0, 11, 22, 28, 28][step]
        if step == 4:
            slope = numeric_gradient(functools.partial(with_fixed_weights(twin, x).value, labels=labels), x)
            np.testing.assert_allclose(gradient, slope, rtol=2e-3, atol=2e-4 * max(1.0, np.abs(slope).max()))
        twin.enter(x.tolist(), labels)


@every_unordered_case
def test_an_empty_memory_changes_nothing(name, mining, soft):
    x, labels = batch(0)
    plain, loss = built(name, mining, soft), MemoryLoss(built(name, mining, soft), 5, SIZE, start=0)
    value, gradient = run(plain, x, labels)
    again, same = run(loss, x, labels)
    assert again == value
    assert np.array_equal(same, gradient)
    assert loss.figures == {**plain.figures, "memory": 0.0}


@every_unordered_case
def test_a_memory_makes_a_batch_of_singletons_useful(name, mining, soft):
    loss = MemoryLoss(built(name, mining, soft), 5, SIZE, start=0)
    run(loss, *batch(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, gradient = run(loss, embeddings(3, seed=9), [1, 4, 2])
    assert value > 0.0
    assert np.isfinite(gradient).all() and gradient.any()
    assert {"positive_distance", "negative_distance"} <= loss.figures.keys()


@every_unordered_case
def test_a_batch_that_the_memory_does_not_help_gives_zero_with_a_graph(name, mining, soft):
    loss = MemoryLoss(built(name, mining, soft), 5, SIZE, start=0)
    run(loss, *batch(0))
    with pytest.warns(UserWarning, match="A batch of 3 samples of 3 classes"):
        value, gradient = run(loss, embeddings(3), [101, 102, 103])
    assert value == 0.0 and not gradient.any()
    assert int(loss.entered.item()) == 14


@every_unordered_case
def test_copies_in_the_memory_have_a_finite_gradient(name, mining, soft):
    loss = MemoryLoss(built(name, mining, soft), 5, SIZE, start=0)
    x, labels = batch(0)
    run(loss, x, labels)
    value, gradient = run(loss, x, labels)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@every_unordered_case
def test_labels_beyond_floats_stay_apart(name, mining, soft):
    near, far = (MemoryLoss(built(name, mining, soft), 5, SIZE, start=0) for _ in range(2))
    for step in range(3):
        x, labels = batch(step)
        assert run(near, x, labels)[0] == run(far, x, np.array(labels) + 2**60)[0]


@every_unordered_case
def test_a_saved_memory_goes_on_to_the_same_bits(name, mining, soft):
    whole, half, rest = (MemoryLoss(built(name, mining, soft), 5, SIZE, start=1) for _ in range(3))
    for step in range(7):
        x, labels = batch(step)
        value, gradient = run(whole, x, labels)
        if step == 4:
            state = {key: value.numpy() for key, value in half.state_dict().items()}
            assert set(state) == {"queue", "queue_labels", "batches", "entered"}
            rest.set_state_dict({key: paddle.to_tensor(value) for key, value in state.items()})
        again, same = run(half if step < 4 else rest, x, labels)
        assert again == value and np.array_equal(same, gradient)


def test_quadruplets_need_a_second_class_in_the_batch():
    loss = MemoryLoss(pair_loss("quadruplet_full"), 5, SIZE, start=0)
    run(loss, *batch(0))
    with pytest.warns(UserWarning, match="three classes"):
        value, gradient = run(loss, embeddings(2), [1, 1])
    assert value == 0.0 and not gradient.any()


def test_the_ring_drops_the_oldest():
    loss = MemoryLoss(pair_loss("contrastive"), 2, 5, start=0)
    entered = []
    for step in range(6):
        x = embeddings(3, dim=2, seed=step)
        run(loss, x, [0, 0, 1 + step])
        entered += zip(x.tolist(), [0, 0, 1 + step], strict=True)
        kept, labels = queue_of(loss)
        assert kept.tolist() == [v for v, _ in entered[-5:]]
        assert labels.tolist() == [y for _, y in entered[-5:]]


def test_of_a_batch_larger_than_the_queue_its_end_enters():
    loss = MemoryLoss(pair_loss("contrastive"), 2, 5, start=0)
    run(loss, embeddings(3, dim=2), [0, 0, 1])
    x = embeddings(12, dim=2, seed=1)
    run(loss, x, np.arange(12) % 4)
    kept, labels = queue_of(loss)
    assert kept.tolist() == x[-5:].tolist()
    assert labels.tolist() == [3, 0, 1, 2, 3]
    assert int(loss.entered.item()) == 3 + 5
    run(loss, embeddings(2, dim=2, seed=2), [7, 7])
    assert queue_of(loss)[1].tolist() == [1, 2, 3, 7, 7]


def test_the_warm_up_neither_fills_nor_sees_it():
    loss = MemoryLoss(pair_loss("eml"), 5, SIZE, start=3)
    for step in range(5):
        run(loss, *batch(step))
        assert int(loss.entered.item()) == max(0, step + 1 - 3) * len(UNEQUAL)
    assert loss.figures["memory"] == len(UNEQUAL)


def test_nothing_enters_outside_of_training():
    loss = MemoryLoss(pair_loss("eml"), 5, SIZE, start=0)
    run(loss, *batch(0))
    before = {key: value.numpy() for key, value in loss.state_dict().items()}
    loss.eval()
    first, second = (run(loss, *batch(1))[0] for _ in range(2))
    assert first == second and loss.figures["memory"] == len(UNEQUAL)
    assert all(np.array_equal(before[key], value.numpy()) for key, value in loss.state_dict().items())


def test_the_queue_is_no_parameter_and_gets_no_gradient():
    loss = MemoryLoss(pair_loss("circle"), 5, SIZE, start=0)
    for step in range(2):
        run(loss, *batch(step))
    assert loss.parameters() == []
    assert loss.queue.stop_gradient and loss.queue.grad is None


def test_half_precision_enters_as_float32():
    loss = MemoryLoss(pair_loss("supcon"), 5, SIZE, start=0)
    x, labels = batch(0)
    run(loss, x, labels, "float16")
    assert loss.queue.dtype == paddle.float32
    half = paddle.to_tensor(x.astype(np.float32)).astype("float16").astype("float32").numpy()
    assert np.array_equal(queue_of(loss)[0], half)
    run(loss, *batch(1), "bfloat16")


def test_figures_are_those_of_batch_and_memory():
    loss = MemoryLoss(pair_loss("eml"), 5, SIZE, start=0)
    past, known = batch(0)
    run(loss, past, known)
    x, labels = batch(1)
    run(loss, x, labels)
    everyone, of = [*x.tolist(), *past.tolist()], [*labels, *known]
    here = range(len(x))
    near = [naive.squared(everyone[a], everyone[p]) for a in here for p in naive.positives(of, a)]
    far = [naive.squared(everyone[a], everyone[n]) for a in here for n in naive.negatives(of, a)]
    assert loss.figures["positive_distance"] == pytest.approx(naive.mean(near), rel=1e-5)
    assert loss.figures["negative_distance"] == pytest.approx(naive.mean(far), rel=1e-5)
    assert loss.figures["embedding_norm"] == pytest.approx(np.linalg.norm(x, axis=1).mean(), rel=1e-5)
    assert loss.figures["memory"] == len(past)


@pytest.mark.parametrize("name", ["triplet", "quadruplet_full"])
def test_rows_in_order_are_refused(name):
    with pytest.raises(UserError, match="ready-made rows"):
        MemoryLoss(pair_loss(name, mining="given"), 5, SIZE)


@pytest.mark.parametrize(("settings", "word"), [((0, 0), "memory_size"), ((4, -1), "memory_start")])
def test_bad_settings_are_refused(settings, word):
    with pytest.raises(UserError, match=word):
        MemoryLoss(pair_loss("eml"), 5, *settings)


def test_embeddings_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"size 5.*got 4"):
        MemoryLoss(pair_loss("eml"), 5, SIZE)(paddle.randn([9, 4]), paddle.to_tensor(TRIPLES))
