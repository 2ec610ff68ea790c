"""What holds for every pair loss. A new line in PAIR_LOSSES is tested by being there."""

import math
import warnings

import numpy as np
import paddle
import pytest
from loss_cases import UNEQUAL, embeddings, run
from pair_cases import CASES, FIRST_IS_ANCHOR, MININGS, UNORDERED, built, labels_for

from metric_learning.checks import UserError
from metric_learning.losses import PAIR_LOSSES, pair_loss

every_case = pytest.mark.parametrize(("name", "mining", "soft"), CASES)
every_unordered_case = pytest.mark.parametrize(("name", "mining", "soft"), UNORDERED)


@every_case
def test_forward_and_backward(name, mining, soft):
    labels = labels_for(name, mining)
    value, gradient = run(built(name, mining, soft), embeddings(len(labels)), labels)
    assert math.isfinite(value) and value > 0.0
    assert np.isfinite(gradient).all() and gradient.any()


@every_case
def test_a_step_down_the_gradient_lowers_the_loss(name, mining, soft):
    labels = labels_for(name, mining)
    loss, x = built(name, mining, soft), embeddings(len(labels))
    value, gradient = run(loss, x, labels)
    # A small step: where a step changes which negative is chosen, semi-hard mining is not continuous.
    assert run(loss, x - 1e-4 * gradient / np.abs(gradient).max(), labels)[0] < value


@every_case
def test_figures(name, mining, soft):
    labels = labels_for(name, mining)
    loss = built(name, mining, soft)
    assert loss.figures == {}
    run(loss, embeddings(len(labels)), labels)
    assert set(loss.figures) == {"active_share", "positive_distance", "negative_distance", "embedding_norm"}
    assert 0.0 < loss.figures["active_share"] <= 1.0
    assert all(math.isfinite(value) and value > 0.0 for value in loss.figures.values())


@every_unordered_case
@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [5, 5, 5], [7]])
def test_a_batch_without_pairs_gives_zero_with_a_graph_and_warns_once(name, mining, soft, labels):
    loss, x = built(name, mining, soft), embeddings(len(labels))
    with pytest.warns(UserWarning, match="nothing: it needs"):
        value, gradient = run(loss, x, labels)
    assert value == 0.0
    assert not gradient.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(loss, x, labels)[0] == 0.0
    assert set(loss.figures) == {"active_share", "embedding_norm"}
    assert loss.figures["active_share"] == 0.0


@every_unordered_case
def test_after_a_batch_without_pairs_the_next_one_counts(name, mining, soft):
    loss = built(name, mining, soft)
    with pytest.warns(UserWarning, match="nothing"):
        run(loss, embeddings(2), [0, 1])
    assert run(loss, embeddings(len(UNEQUAL)), UNEQUAL)[0] > 0.0


@every_unordered_case
def test_order_of_the_batch_does_not_matter(name, mining, soft):
    labels, x = np.array(UNEQUAL), embeddings(len(UNEQUAL))
    order = np.random.default_rng(1).permutation(len(labels))
    if name in FIRST_IS_ANCHOR:
        for label in np.unique(labels):
            places = labels[order] == label
            order[places] = np.sort(order[places])
    value, gradient = run(built(name, mining, soft), x, labels)
    again, moved = run(built(name, mining, soft), x[order], labels[order])
    assert again == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(moved, gradient[order], rtol=1e-3, atol=1e-5)


@every_case
def test_the_names_of_the_classes_do_not_matter(name, mining, soft):
    labels = labels_for(name, mining)
    x = embeddings(len(labels))
    value, _ = run(built(name, mining, soft), x, labels)
    # Beyond 2^24 and 2^53, where labels kept as floats would collide.
    assert run(built(name, mining, soft), x, labels + 2**60)[0] == value


@every_case
def test_the_same_batch_gives_the_same_bits(name, mining, soft):
    labels = labels_for(name, mining)
    first, second = (run(built(name, mining, soft), embeddings(len(labels)), labels) for _ in range(2))
    assert first[0] == second[0]
    assert np.array_equal(first[1], second[1])


@every_case
@pytest.mark.parametrize("point", [0.0, 0.3])
def test_identical_embeddings_have_a_finite_gradient(name, mining, soft, point):
    labels = labels_for(name, mining)
    value, gradient = run(built(name, mining, soft), np.full((len(labels), 5), point), labels)
    assert math.isfinite(value) and np.isfinite(gradient).all()


@every_case
def test_pairs_of_identical_embeddings_have_a_finite_gradient(name, mining, soft):
    labels = labels_for(name, mining)
    x = embeddings(len(labels))
    x[1], x[-1] = x[0], -x[0]
    x[2] = x[0] + 1e-7
    value, gradient = run(built(name, mining, soft), x, labels)
    assert math.isfinite(value) and np.isfinite(gradient).all()


@every_case
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(name, mining, soft, dtype):
    labels = labels_for(name, mining)
    x = paddle.to_tensor(embeddings(len(labels)).astype("float32")).astype(dtype).astype("float32").numpy()
    assert run(built(name, mining, soft), x, labels, dtype)[0] == run(built(name, mining, soft), x, labels)[0]


@every_case
def test_a_column_of_labels_is_refused(name, mining, soft):
    labels = labels_for(name, mining)
    with pytest.raises(UserError, match=r"labels \(B,\)"):
        built(name, mining, soft)(paddle.randn([len(labels), 5]), paddle.to_tensor(labels[:, None]))


@pytest.mark.parametrize("name", [name for name in PAIR_LOSSES if name not in MININGS])
def test_a_batch_of_1024_is_quick(name):
    value, gradient = run(pair_loss(name), embeddings(1024, dim=16), np.arange(1024) // 4)
    assert math.isfinite(value) and np.isfinite(gradient).all()


def test_defaults_are_those_of_the_field():
    assert (pair_loss("triplet").margin, pair_loss("triplet").mining) == (0.1, "given")
    assert pair_loss("quadruplet").margin == 0.1
    full = pair_loss("quadruplet_full")
    assert (full.margin, full.second_margin, full.mining) == (0.1, 0.05, "batch_hard")
    assert pair_loss("eml").beta == 1e5
    assert pair_loss("npairs").reg_lambda == 0.01
    contrastive, circle = pair_loss("contrastive"), pair_loss("circle")
    assert (contrastive.pos_margin, contrastive.neg_margin) == (0.0, 0.5)
    assert (circle.margin, circle.gamma) == (0.4, 80.0)
    similar = pair_loss("multi_similarity")
    assert (similar.alpha, similar.beta, similar.base, similar.epsilon) == (2.0, 50.0, 0.5, 0.1)
    assert pair_loss("supcon").temperature == 0.1
    recall = pair_loss("recall_at_k")
    assert (recall.ks, recall.tau1, recall.tau2) == ((1, 2, 4, 8, 16), 1.0, 0.01)


def test_settings_reach_the_loss():
    loss = pair_loss("triplet", margin=0.3, mining="semi_hard", soft_margin=True)
    assert (loss.margin, loss.mining, loss.soft_margin) == (0.3, "semi_hard", True)
    full = pair_loss("quadruplet_full", margin=0.3, second_margin=0.2, mining="given")
    assert (full.margin, full.second_margin, full.mining) == (0.3, 0.2, "given")
    assert pair_loss("quadruplet", margin=0.3).margin == 0.3
    assert pair_loss("eml", beta=3.0).beta == 3.0
    assert pair_loss("npairs", reg_lambda=0.5).reg_lambda == 0.5


def test_a_setting_that_no_loss_has_is_refused():
    with pytest.raises(UserError, match="Did you mean 'margin'"):
        pair_loss("triplet", margn=0.3)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'triplet'"):
        pair_loss("tripplet")
