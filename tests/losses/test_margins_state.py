"""What a loss remembers beside its centres, and dropout: saved, resumed, and still outside of training."""

import naive_losses as naive
import numpy as np
import paddle
import pytest
from loss_cases import embeddings, run
from margin_twins import built
from small_runs import Training, equal_arrays, write_pictures

from metric_learning.checks import UserError
from metric_learning.data.samplers import ShuffleSampler
from metric_learning.embedder import arrays_of, put_arrays
from metric_learning.files import read_tensors
from metric_learning.losses import ELEMENT_LOSSES, element_loss

pytestmark = pytest.mark.filterwarnings("ignore:When training")
BUFFERS = {"sphereface": ["margin.t"], "curricularface": ["margin.t"], "adaface": ["margin.mean", "margin.std"]}
LABELS = [3, 0, 1, 1, 3, 2, 0]


def buffers(loss):
    return {name: value for name, value in arrays_of(loss).items() if name.startswith("margin.")}


@pytest.mark.parametrize("name", ELEMENT_LOSSES)
def test_buffers_are_saved_and_move_in_training_only(name):
    loss = built(name)
    before = buffers(loss)
    assert sorted(before) == BUFFERS.get(name, [])
    loss.eval()
    run(loss, embeddings(7), LABELS)
    equal_arrays(buffers(loss), before)
    loss.train()
    run(loss, embeddings(7), LABELS)
    assert all((value != before[key]).any() for key, value in buffers(loss).items())


@pytest.mark.parametrize("name", BUFFERS)
def test_a_restored_loss_goes_on_to_the_same_bits(name):
    loss, again = built(name), built(name, seed=1)
    for number in range(3):
        run(loss, embeddings(7, seed=number), LABELS)
    put_arrays(again, arrays_of(loss), "here")
    one, other = (run(each, embeddings(7, seed=9), LABELS) for each in (loss, again))
    assert one[0] == other[0] and np.array_equal(one[1], other[1])
    equal_arrays(arrays_of(loss), arrays_of(again))


def test_averages_are_those_of_the_twins():
    batches = [embeddings(count, seed=count, spread=9.0) for count in (7, 1, 5)]
    curricular, ada = built("curricularface", ema_rate=0.3), built("adaface", ema_rate=0.2)
    weight = curricular.centers.weight.numpy().astype(np.float64).tolist()
    t, average, deviation = 0.0, 20.0, 100.0
    for x in batches:
        labels = LABELS[: len(x)]
        run(curricular, x, labels)
        run(ada, x, labels)
        t = naive.curricularface_t(x.tolist(), labels, weight, t, 0.3)
        average, deviation = naive.adaface_averages(x.tolist(), average, deviation, 0.2)
        assert curricular.margin.t.item() == pytest.approx(t, rel=1e-4)
        assert ada.margin.mean.item() == pytest.approx(average, rel=1e-5)
        assert ada.margin.std.item() == pytest.approx(deviation, rel=1e-5)


def test_two_forwards_before_their_backwards():
    """Buffers change in place, and the first graph must not notice."""
    for name in BUFFERS:
        loss = built(name)
        x = paddle.to_tensor(embeddings(7).astype("float32"), stop_gradient=False)
        first = loss(x, paddle.to_tensor(LABELS))
        loss(x * 3.0, paddle.to_tensor(LABELS))
        first.backward()
        alone = run(built(name), embeddings(7), LABELS)[1]
        np.testing.assert_allclose(x.grad.numpy(), alone, rtol=1e-6)


class FaceTraining(Training):
    def _loss(self, name):
        self.sampler = ShuffleSampler(len(self.pictures), 6, 3)
        return element_loss(name, len(self.pictures.classes), 8, scale=8.0, dropout=0.3)


@pytest.mark.parametrize("name", BUFFERS)
def test_eight_steps_are_four_and_four_with_buffers_and_dropout(name, tmp_path):
    pictures = write_pictures(tmp_path / "pictures", 4, 3)
    whole = FaceTraining(pictures, tmp_path / "whole", name).go(8)
    half = FaceTraining(pictures, tmp_path / "half", name).go(4)
    again = FaceTraining(pictures, half.run.folder, name)
    again.state.restore(half.run.latest)
    again.go(8)
    expected, found = (read_tensors(each.run.latest)[0] for each in (whole, again))
    assert {f"loss.{buffer}" for buffer in BUFFERS[name]} <= expected.keys()
    equal_arrays(expected, found)


# ---- dropout


@pytest.mark.parametrize("name", ELEMENT_LOSSES)
class TestDropout:
    def test_outside_of_training_there_is_none(self, name):
        plain, dropping = built(name), built(name, dropout=0.5)
        plain.eval()
        dropping.eval()
        assert run(dropping, embeddings(7), LABELS)[0] == run(plain, embeddings(7), LABELS)[0]

    def test_the_seed_of_the_step_decides_what_is_dropped(self, name):
        def seeded(seed):
            loss = built(name, dropout=0.5)
            paddle.seed(seed)
            return run(loss, embeddings(7), LABELS)

        one, same, other = seeded(1), seeded(1), seeded(2)
        assert one[0] == same[0] and np.array_equal(one[1], same[1])
        assert one[0] != other[0]

    def test_the_length_is_that_of_the_whole_embedding(self, name):
        loss = built(name, dropout=0.5)
        run(loss, embeddings(7), LABELS)
        assert loss.figures["embedding_norm"] == pytest.approx(np.linalg.norm(embeddings(7), axis=1).mean(), rel=1e-5)


def test_dropout_is_the_dropped_embedding_s_loss():
    loss, plain = built("amsoftmax", dim=64, dropout=0.5), built("amsoftmax", dim=64)
    x = paddle.ones([7, 64])
    paddle.seed(4)
    kept = paddle.nn.functional.dropout(x, 0.5).numpy()
    assert set(kept.ravel().tolist()) == {0.0, 2.0} and 0.35 < (kept > 0).mean() < 0.65
    paddle.seed(4)
    assert loss(x, paddle.to_tensor(LABELS)).item() == plain(paddle.to_tensor(kept), paddle.to_tensor(LABELS)).item()


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_cannot_be(share):
    with pytest.raises(UserError, match="dropout"):
        built("softmax", dropout=share)


def test_a_setting_that_no_loss_has_is_refused():
    with pytest.raises(UserError, match="scale"):
        built("amsoftmax", scal=3.0)
