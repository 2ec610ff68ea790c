"""What a loss has learnt of its classes, as logits and probabilities without Paddle and without a margin."""

import math

import naive_losses as naive
import numpy as np
import paddle
import pytest
from loss_cases import embeddings, run
from margin_twins import CASES, built

from metric_learning.checks import UserError
from metric_learning.files import read_tensors, write_tensors
from metric_learning.losses import ELEMENT_LOSSES, element_loss, pool_loss
from metric_learning.losses.classifier import Classifier, classifier_of


@pytest.mark.parametrize("centers", ["all", "partial"])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_logits_are_those_of_the_twin_without_a_margin(name, settings, centers):
    if (name, centers) == ("bce", "partial"):
        return
    loss = built(name, centers=centers, **settings)
    if loss.centers.bias is not None:
        loss.centers.bias.set_value(np.array([0.0, -0.2, 0.1, 0.7], dtype=np.float32))
    x = embeddings(6)
    weight = loss.centers.weight.numpy().astype(np.float64).tolist()
    if ELEMENT_LOSSES[name].normalized:
        expected = [[loss.margin.scale * c for c in naive.cosines(v, weight)] for v in x.tolist()]
    else:
        bias = loss.centers.bias.numpy().astype(np.float64).tolist()
        expected = [naive.softmax_logits(v, 0, weight, bias) for v in x.tolist()]
    found = classifier_of(loss)
    assert loss.centers.training
    logits = found.logits(x)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    shares = [[math.exp(v - naive.log_sum_exp(row)) for v in row] for row in expected]
    np.testing.assert_allclose(found.probabilities(x), shares, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ELEMENT_LOSSES)
def test_the_nearest_class_is_the_one_that_the_loss_counts_as_right(name):
    loss = built(name)
    x = embeddings(50)
    labels = classifier_of(loss).logits(x).argmax(axis=1)
    run(loss, x, labels)
    assert loss.figures["accuracy"] == 1.0


def test_probabilities_of_bce_are_sigmoids():
    loss = element_loss("bce", 2, 3)
    x = embeddings(5, 3, spread=50.0)
    z = x @ loss.centers.weight.numpy()[1].astype(np.float64)
    expected = [1 / (1 + math.exp(-v)) for v in z]
    found = classifier_of(loss).probabilities(x)
    np.testing.assert_allclose(found[:, 1], expected, rtol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-6)


def test_a_stray_number_in_the_fixed_row_of_bce_counts_nowhere():
    loss = element_loss("bce", 2, 3)
    loss.centers.bias.set_value(np.array([5.0, 1.0], np.float32))
    assert classifier_of(loss).bias.tolist() == [0.0, 1.0]


def test_huge_logits_and_an_embedding_of_zeros():
    one = Classifier(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), False)
    np.testing.assert_array_equal(one.probabilities(np.array([[1e4, -1e4], [-1e4, 1e4]])), [[1, 0], [0, 1]])
    two = Classifier(np.eye(2, dtype=np.float32), None, True, 64.0)
    np.testing.assert_array_equal(two.probabilities(np.zeros((1, 2))), [[0.5, 0.5]])
    assert two.logits(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("name", ["softmax", "arcmargin"])
def test_a_file_and_back(name, tmp_path):
    made = classifier_of(built(name))
    arrays, metadata = made.to_arrays()
    write_tensors(tmp_path / "x.safetensors", {**arrays, "other": np.zeros(3, np.float32)}, {"classifier": metadata})
    arrays, metadata = read_tensors(tmp_path / "x.safetensors")
    again = Classifier.from_arrays(arrays, metadata["classifier"])
    x = embeddings(3)
    np.testing.assert_array_equal(again.logits(x), made.logits(x))


@pytest.mark.parametrize(
    "change",
    [
        {"classifier.weight": None},
        {"classifier.weight": np.ones(3)},
        {"classifier.weight": np.full((4, 5), np.nan)},
        {"classifier.weight": np.array([["a"]])},
        {"classifier.weight": np.zeros((0, 5))},
        {"classifier.bias": np.ones(3)},
        {"scale": 0.0},
        {"scale": "x"},
        {"scale": None},
        {"scale": math.inf},
        {"cosine": 1},
        {"cosine": True},
    ],
)
def test_what_cannot_be_a_classifier_is_one_line(change):
    arrays, metadata = classifier_of(built("softmax")).to_arrays()
    whole = {name: value for name, value in {**arrays, **metadata, **change}.items() if value is not None}
    with pytest.raises(UserError) as caught:
        Classifier.from_arrays({n: v for n, v in whole.items() if "." in n}, whole)
    assert "\n" not in str(caught.value)


def test_embeddings_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"embeddings \(N, 5\); got \(2, 4\)"):
        classifier_of(built("softmax")).logits(np.zeros((2, 4)))


def test_a_pool_has_no_classes():
    with pytest.raises(UserError, match="learns no class centres"):
        classifier_of(pool_loss("arcmargin", 4, 5, 3).element)


def test_it_is_what_the_loss_says_without_a_margin():
    """Through the loss itself: amsoftmax with a margin of 0 is softmax over the classifier's logits."""
    loss = built("amsoftmax", scale=8.0, margin=0.0)
    x, labels = embeddings(7), [3, 0, 1, 1, 3, 2, 0]
    shares = classifier_of(loss).probabilities(x)[np.arange(7), labels]
    assert run(loss, x, labels)[0] == pytest.approx(-np.log(shares).mean(), rel=1e-5)
    assert paddle.is_grad_enabled()
