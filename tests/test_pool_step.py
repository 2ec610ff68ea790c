"""The two passes of a pool's step, its second network, what checkpoints keep of both, and what it does not go with."""

import numpy as np
import paddle
import pytest
from cli_cases import refused, run
from small_runs import Training, equal_arrays, write_pictures

from metric_learning.checks import UserError
from metric_learning.config import ElemOptions, parse
from metric_learning.data.loader import Batch
from metric_learning.data.pool_sampler import PoolSampler
from metric_learning.files import read_tensors
from metric_learning.losses import pool_loss
from metric_learning.optimizer import Optimizer
from metric_learning.pool_step import PoolStep, follow, gallery_of, halves, same_as
from metric_learning.runs import Run
from metric_learning.stages.pooling import slots_of

pytestmark = pytest.mark.filterwarnings("ignore:When training")
STATISTICS = ("_mean", "_variance")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"), classes=6)


class PoolTraining(Training):
    """A small training against a pool of five slots."""

    def __init__(self, *arguments, **settings) -> None:
        super().__init__(*arguments, **{"loss": "arcmargin", **settings})
        self.gallery = gallery_of(self.state.embedder)
        self.gallery.train()
        self.state.further = {"gallery": self.gallery}

    def _loss(self, name):
        self.sampler = PoolSampler(self.pictures.labels, 10, seed=3)
        return pool_loss(name, len(self.pictures.classes), 8, 5, scale=8.0)

    def learn(self, batch):
        def of_gallery(half):
            return self.gallery(paddle.to_tensor(half.images))

        return PoolStep(self.state.embedder, self.gallery, self.embed, of_gallery, self.loss, 3, 0.9)(batch)


def weights(training):
    """Everything but what carries a path."""
    return read_tensors(training.run.latest)[0]


@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.slow
def test_four_and_four_steps_are_eight_to_the_last_bit(pictures, tmp_path, optimizer, onednn):
    how = {"optimizer": optimizer, "onednn": onednn, "clip": 1.0}
    straight = PoolTraining(pictures, tmp_path / "a", **how).go(8)
    first = PoolTraining(pictures, tmp_path / "b", **how).go(4)
    second = PoolTraining(pictures, first.run.folder, **how)
    second.state.restore(first.run.latest)
    second.go(8)
    equal_arrays(weights(straight), weights(second))
    kept = weights(straight)
    assert any(name.startswith("gallery.") for name in kept)
    assert {f"loss.element.centers.{n}" for n in ("row0", "row1", "identity", "used", "turn")} <= kept.keys()
    assert (kept["loss.element.centers.identity"] >= 0).all()
    assert any((kept[name] != kept[f"embedder.{name[8:]}"]).any() for name in kept if name.startswith("gallery."))


def test_a_run_without_a_gallery_is_not_gone_on_with(pictures, tmp_path):
    done = Training(pictures, tmp_path / "a", loss="arcmargin").go(4)
    with pytest.raises(UserError):
        PoolTraining(pictures, tmp_path / "b").state.restore(done.run.latest)


# ---- one step


class Net(paddle.nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = paddle.nn.Linear(6, 7), paddle.nn.BatchNorm1D(7), paddle.nn.Linear(7, 5)

    def forward(self, x):
        return self.last(paddle.tanh(self.norm(self.first(x))))


def a_batch(seed=0, step=3):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(12, 6)).astype(np.float32)
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 7, 5, 8])
    return Batch(step, rows, labels, np.arange(12), [str(i) for i in range(12)], [None] * 12)


def parts(momentum=0.5, **how):
    paddle.seed(1)
    net = Net()
    gallery = gallery_of(net)
    with paddle.no_grad():
        for value in gallery.parameters():
            paddle.assign(value + 0.3 * paddle.randn(value.shape), value)
    loss = pool_loss("arcmargin", 9, 5, 6, scale=8.0)
    forwards = [lambda b, n=n: n(paddle.to_tensor(b.images)) for n in (net, gallery)]
    return net, gallery, loss, PoolStep(net, gallery, *forwards, loss, 0, momentum, **how)


def by_hand(net, gallery, loss, batch):
    """The same two passes with one backward of their sum."""
    x, y = (paddle.to_tensor(batch.images[side::2]) for side in (0, 1))
    a, b = (paddle.to_tensor(batch.labels[side::2]) for side in (0, 1))
    with paddle.no_grad():
        gx, gy = gallery(x), gallery(y)
    value = loss(net(x), a, gy, b, False) + loss(net(y), b, gx, a, True)
    value.backward()
    return value.item()


def test_a_step_is_both_passes_against_the_moved_gallery():
    net, gallery, loss, step = parts()
    other, moved, twin, _ = parts()
    for own, value in zip(moved.parameters(), other.parameters(), strict=True):
        if not own.name.startswith("batch_norm") or "w_1" not in own.name:
            own.set_value(0.5 * own + 0.5 * value)
    for kept, value in ((n, v) for n, v in gallery.state_dict().items() if n.endswith(STATISTICS)):
        moved.state_dict()[kept].set_value(value)
    assert step(a_batch()) == pytest.approx(by_hand(other, moved, twin, a_batch()), rel=1e-5)
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        if one.grad is not None:
            np.testing.assert_allclose(one.grad.numpy(), two.grad.numpy(), atol=1e-5)
    for name, value in loss.state_dict().items():
        np.testing.assert_allclose(value.numpy(), twin.state_dict()[name].numpy(), atol=1e-6)
    assert net.last.weight.grad is not None and all(value.grad is None for value in gallery.parameters())


def test_only_the_second_pass_is_kept():
    _, gallery, loss, step = parts()
    batch = a_batch()
    step(batch)
    assert sorted(loss.element.centers.identity.numpy()) == sorted(batch.labels[0::2])  # of x; 7 and 8 are y's alone
    with paddle.no_grad():
        features = gallery(paddle.to_tensor(batch.images[0::2])).numpy()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(loss.element.centers.row0.numpy(), unit, atol=1e-5)


def test_the_gallery_follows_once_a_step_and_its_statistics_are_its_own():
    net, gallery, _, step = parts(0.9)
    before = {name: value.numpy().copy() for name, value in gallery.state_dict().items()}
    step(a_batch())
    theirs = net.state_dict()
    for name, value in gallery.state_dict().items():
        if name.endswith(STATISTICS):
            assert (value.numpy() != before[name]).any() and (value.numpy() != theirs[name].numpy()).any()
        else:
            np.testing.assert_allclose(value.numpy(), 0.9 * before[name] + 0.1 * theirs[name].numpy(), atol=1e-6)


def test_a_gallery_starts_as_the_network_and_momentum_one_never_moves():
    net, gallery, _, _ = parts()
    same_as(gallery, net)
    equal_arrays(*({n: v.numpy() for n, v in layer.state_dict().items()} for layer in (gallery, net)))
    net.last.bias.set_value(net.last.bias + 1)
    net.norm._mean.set_value(net.norm._mean + 1)
    follow(gallery, net, 1.0)
    assert (gallery.last.bias.numpy() != net.last.bias.numpy()).all()
    follow(gallery, net, 0.0)
    np.testing.assert_array_equal(gallery.last.bias.numpy(), net.last.bias.numpy())
    assert (gallery.norm._mean.numpy() != net.norm._mean.numpy()).all()  # weights follow, statistics do not


def test_halves_take_everything_of_a_picture_along():
    x, y = halves(a_batch(step=5))
    assert (x.step, y.step) == (10, 11)
    assert x.paths == ["0", "2", "4", "6", "8", "10"] and y.labels.tolist() == [0, 1, 2, 3, 7, 8]
    np.testing.assert_array_equal(y.images, a_batch().images[1::2])


def test_scale_multiplies_gradients_only_and_a_teacher_s_part_counts_once():
    plain, scaled = parts(), parts(scale=lambda: 8.0)
    assert plain[3](a_batch()) == scaled[3](a_batch())
    one, two = (made[0].last.weight.grad.numpy() for made in (plain, scaled))
    np.testing.assert_allclose(two, 8 * one, rtol=1e-4, atol=1e-5)
    taught = parts(beside=lambda embeddings, batch: paddle.to_tensor(float(len(batch.labels))))
    assert taught[3](a_batch()) == pytest.approx(parts()[3](a_batch()) + 6.0, rel=1e-6)


def test_a_pool_has_nothing_for_the_optimizer():
    net, _, loss, _ = parts()
    assert not Optimizer("adam", net, loss).own


# ---- options


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--loss_name=softmax"], "needs a loss of cosines"),
        (["--balance=groups"], "sampler of its own"),
        (["--group_margins=auto"], "group_margins"),
        (["--accumulate=2"], "whole batch at once"),
        (["--occlusion=adversarial"], "take random"),
        (["--init_centers=means"], "init_centers=means needs --centers=all"),
        (["--partial_rate=0.2"], "no meaning without --centers=partial"),
        (["--train_batch_size=33"], "must be even"),
        (["--pool_size=0"], "pool_size"),
        (["--pool_momentum=1.5"], "pool_momentum"),
        (["--identity_share=-0.1"], "identity_share"),
    ],
)
def test_what_a_pool_does_not_go_with(typed, said):
    with pytest.raises(UserError, match=said) as caught:
        parse(ElemOptions, ["--loss_name=arcmargin", "--centers=pool", *typed])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pool_size=9", "pool_momentum=0.9", "identity_share=0.5"])
def test_settings_of_a_pool_without_one(name):
    with pytest.raises(UserError, match="no meaning without --centers=pool"):
        parse(ElemOptions, [f"--{name}"])


def test_how_large_a_pool_is():
    def slots(classes, *typed):
        config = parse(ElemOptions, ["--loss_name=arcmargin", "--centers=pool", "--train_batch_size=64", *typed])
        return slots_of(config, classes)

    assert [slots(n) for n in (5, 32, 320, 321, 10_000)] == [5, 32, 32, 32, 1000]
    assert slots(100, "--pool_size=32") == 32 and slots(100, "--pool_size=500") == 500
    with pytest.raises(UserError, match=r"pool_size=31 is less than the 32 identities .* set it to 32 or more"):
        slots(100, "--pool_size=31")


@pytest.mark.slow
def test_the_script_goes_on_where_it_was(tmp_path, monkeypatch):
    write_pictures(tmp_path / "data", classes=12, each=5)
    monkeypatch.chdir(tmp_path)
    options = ["--data_dir=data", "--loss_name=arcmargin", "--arc_scale=8", "--centers=pool", "--save_iter_step=4"]
    options += ["--test_iter_step=4", "--lr_strategy=constant", "--occlusion=random", "--occlusion_shapes=left"]
    options += ["--image_shape=3,48,48"]
    for name, total in (("whole", 8), ("cut", 4)):
        said = run("train_elem", *options, f"--total_iter_num={total}", f"--model_save_dir={name}")
        assert said.status == 0, said
        assert "Pool: 4 slots for " in said.out and "in_pool" in said.out
    (whole,), (cut,) = (list((tmp_path / name).iterdir()) for name in ("whole", "cut"))
    refused(run("train_elem", f"--checkpoint={cut}", "--accumulate=2", small=False), "whole batch at once")
    said = run("train_elem", f"--checkpoint={cut}", "--total_iter_num=8", "--accumulate=1", small=False)
    assert said.status == 0 and "Resumed at step 4" in said.out
    equal_arrays(read_tensors(Run(whole).latest)[0], read_tensors(Run(cut).latest)[0])
    assert not any(name.startswith("gallery") for name in read_tensors(Run(cut).best)[0])
