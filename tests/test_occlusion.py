"""Covering parts of the last map: what is covered, which shape is chosen, and that every backbone can be cut in two."""

import itertools

import numpy as np
import paddle
import pytest
from small_runs import images, new_embedder

from metric_learning.backbones import BACKBONES, backbone
from metric_learning.checks import UserError
from metric_learning.config.names import OCCLUSION_SHAPES
from metric_learning.data.loader import Batch
from metric_learning.losses import element_loss, pair_loss
from metric_learning.losses.group_margins import GroupMarginLoss
from metric_learning.occlusion import SHAPES, OccludedForward, Occlusion, candidates
from metric_learning.runtime import onednn_works

pytestmark = pytest.mark.filterwarnings("ignore:When training")
QUICK = ("ResNet18", "IR18", "IRSE18", "MobileNetV1", "MobileNetV2", "MobileNetV3Small", "MobileFaceNet")
QUICK += ("MobileFaceNetX2", "MobileFaceNetReLU6", "VarGFaceNet", "SmallCNN", "DeeperCNN")
MODELS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
EVERY = tuple(SHAPES)
LABELS = np.arange(6) % 3


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- what is covered


def test_the_options_name_every_shape():
    assert OCCLUSION_SHAPES == EVERY


@pytest.mark.parametrize(("height", "width"), [(7, 7), (4, 4), (3, 6), (2, 5)])
def test_halves_cover_half_and_leave_the_middle_of_odd_maps(height, width):
    left, right, top, bottom, scattered = candidates(EVERY, 3, height, width, rng())
    for row, column in itertools.product(range(height), range(width)):
        assert (left[:, row, column] == (column >= width // 2)).all()
        assert (right[:, row, column] == (column < (width + 1) // 2)).all()
        assert (top[:, row, column] == (row >= height // 2)).all()
        assert (bottom[:, row, column] == (row < (height + 1) // 2)).all()
    assert ((scattered == 0).sum(axis=(1, 2)) == height * width // 2).all()
    assert set(np.unique(scattered)) == {0.0, 1.0}


def test_scattered_places_are_even_and_differ_between_pictures():
    masks = candidates(["random_half"], 4000, 4, 4, rng())[0]
    assert np.abs(masks.mean(axis=0) - 0.5).max() < 0.05
    assert len({mask.tobytes() for mask in masks[:50]}) > 45


# ---- one step


def covered(how: Occlusion, *, loss=None, seed: int = 0, onednn: bool = False) -> OccludedForward:
    embedder = new_embedder()
    return OccludedForward(embedder, loss or element_loss("arcmargin", 3, 8), how, seed, onednn)


def batch(count: int = 6):
    return paddle.to_tensor(images(count)), paddle.to_tensor(LABELS[:count])


def at(labels, step: int, pictures=None) -> Batch:
    """The batch of a step."""
    names = labels.numpy()
    return Batch(step, None if pictures is None else pictures.numpy(), names, names, [], [])


def last_map(forward: OccludedForward, pictures):
    return forward.embedder.backbone.to_map(pictures).detach()


def test_masks_are_a_function_of_seed_and_step_alone():
    one, other = covered(Occlusion(EVERY)), covered(Occlusion(EVERY))
    pictures, labels = batch()
    given = last_map(one, pictures)
    for step in (0, 3):
        paddle.seed(step + 99)
        np.testing.assert_array_equal(one.masks(given, at(labels, step)), other.masks(given, at(labels, step)))
    assert any((one.masks(given, at(labels, 0)) != one.masks(given, at(labels, step))).any() for step in range(1, 4))
    assert any(
        (one.masks(given, at(labels, step)) != covered(Occlusion(EVERY), seed=1).masks(given, at(labels, step))).any()
        for step in range(4)
    )


@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize(("rate", "low", "high"), [(0.0, 0, 0), (0.25, 0.15, 0.35), (1.0, 1, 1)])
def test_the_rate_is_the_share_of_covered_pictures(rate, low, high, adversarial):
    forward = covered(Occlusion(EVERY, rate, adversarial))
    pictures, labels = batch()
    given = last_map(forward, pictures)
    share = np.mean([(forward.masks(given, at(labels, step)) == 0).any(axis=(1, 2)).mean() for step in range(40)])
    assert low <= share <= high


@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_parts_of_a_batch_are_covered_as_the_whole_is(parts, adversarial):
    forward = covered(Occlusion(EVERY, 0.6, adversarial))
    pictures, labels = batch()
    given = last_map(forward, pictures)
    whole = at(labels, 3, pictures)
    cut = [whole.part(slice(6 * k // parts, 6 * (k + 1) // parts)) for k in range(parts)]
    found = [forward.masks(given[part.slots.start : part.slots.stop], part) for part in cut]
    np.testing.assert_array_equal(np.concatenate(found), forward.masks(given, whole))


def test_every_shape_comes_up():
    forward = covered(Occlusion(("left", "top"), 1.0))
    pictures, labels = batch()
    masks = np.concatenate([forward.masks(last_map(forward, pictures), at(labels, step)) for step in range(20)])
    is_left = (masks == candidates(["left"], 1, *masks.shape[1:], rng())[0]).all(axis=(1, 2))
    assert 0.3 < is_left.mean() < 0.7


def test_the_embedding_is_that_of_the_masked_map():
    forward = covered(Occlusion(EVERY, 0.7))
    pictures, labels = batch()
    found = forward(at(labels, 5, pictures)).numpy()
    net = forward.embedder
    given = net.backbone.to_map(pictures)
    mask = forward.masks(given, at(labels, 5))
    features = (given.numpy() * mask[:, None]).mean(axis=(2, 3))
    np.testing.assert_allclose(found, features @ net.neck[0].weight.numpy() + net.neck[0].bias.numpy(), atol=1e-5)
    assert (mask == 0).any() and mask.all(axis=(1, 2)).any()


def test_no_gradient_comes_from_covered_places():
    forward = covered(Occlusion(("left",), 1.0))
    pictures, labels = batch()
    seen = []
    plain = forward._to_map
    forward._to_map = lambda x: seen.append(plain(x)) or seen[0]
    out = forward(at(labels, 0, pictures))
    seen[0].retain_grads()
    out.sum().backward()
    gradient = seen[0].grad.numpy()
    half = gradient.shape[3] // 2
    assert not gradient[..., :half].any() and gradient[..., half:].all()
    assert np.abs(forward.embedder.backbone.layers[0].weight.grad.numpy()).max() > 0


# ---- the choice by the loss


def losses_of_every_mask(forward: OccludedForward, given, labels, masks) -> np.ndarray:
    """(K, B): one picture and one mask at a time, everything in evaluation mode."""
    forward.embedder.eval()
    forward.loss.eval()
    found = np.zeros(masks.shape[:2])
    for k, i in np.ndindex(*masks.shape[:2]):
        alone = forward.embedder.from_map(given[i : i + 1] * paddle.to_tensor(masks[k, i]))
        found[k, i] = forward.loss(alone, labels[i : i + 1]).item()
    forward.embedder.train()
    forward.loss.train()
    return found


def group_margins():
    groups = ["a", "b"]
    return GroupMarginLoss(element_loss("arcmargin", 3, 8), groups, np.array([0, 1, 0]), {"a": 0.4})


@pytest.mark.parametrize("name", ["softmax", "arcmargin", "magface", "curricularface", "group margins"])
def test_each_picture_gets_the_mask_of_its_greatest_loss(name):
    paddle.seed(1)
    loss = group_margins() if name == "group margins" else element_loss(name, 3, 8)
    shapes = ("left", "right", "top", "bottom")
    forward = covered(Occlusion(shapes, 1.0, adversarial=True), loss=loss)
    before = [value.numpy().copy() for value in (*forward.embedder.state_dict().values(), *loss.state_dict().values())]
    pictures, labels = batch()
    forward.embedder.eval()  # so that making the map moves no statistic either
    given = last_map(forward, pictures)
    forward.embedder.train()
    found = forward.masks(given, at(labels, 0))
    masks = candidates(shapes, 6, *given.shape[2:], rng())
    expected = losses_of_every_mask(forward, given, labels, masks)
    assert (np.sort(expected, axis=0)[-1] - np.sort(expected, axis=0)[0]).min() > 1e-6
    worst = expected.argmax(axis=0)
    np.testing.assert_array_equal(found, masks[worst, np.arange(6)])
    assert len(set(worst)) > 1
    after = [value.numpy() for value in (*forward.embedder.state_dict().values(), *loss.state_dict().values())]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    assert forward.embedder.training and forward.embedder.neck.training and loss.training


def test_a_loss_is_the_mean_of_each():
    loss = element_loss("magface", 3, 8, focal_gamma=2.0)
    x, labels = paddle.to_tensor(images(6, (8,))), paddle.to_tensor(LABELS)
    assert loss(x, labels).item() == pytest.approx(loss.each(x, labels).numpy().mean(), rel=1e-6)


# ---- through oneDNN


@pytest.mark.skipif(not onednn_works(), reason="this build trains through eager convolutions")
def test_onednn_gives_what_the_eager_network_gives():
    outs, gradients = [], []
    for onednn in (False, True):
        forward = covered(Occlusion(EVERY, 0.7, True), onednn=onednn)
        pictures, labels = batch()
        out = forward(at(labels, 2, pictures))
        (out * paddle.to_tensor(images(6, (8,), seed=9))).sum().backward()
        outs.append(out.numpy())
        gradients.append([p.grad.numpy() for p in forward.embedder.parameters() if not p.stop_gradient])
    np.testing.assert_allclose(outs[1], outs[0], atol=1e-4)
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4 * max(1.0, np.abs(a).max()))


# ---- every backbone


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.sweep
def test_a_backbone_is_its_two_parts_and_the_map_is_where_it_can_be_covered(name):
    paddle.seed(0)
    side = 64 if name.startswith("V") else 48
    net = backbone(name, (3, side, side))
    net.eval()
    pictures = paddle.to_tensor(images(2, (3, side, side)))
    with paddle.no_grad():
        last = net.to_map(pictures)
        whole = net(pictures).numpy()
        np.testing.assert_array_equal(net.from_map(last).numpy(), whole)
        assert len(last.shape) == 4 and min(last.shape[2:]) >= 2
        mask = candidates(["left"], 2, *last.shape[2:], rng())[0][:, None]
        assert np.abs(net.from_map(last * paddle.to_tensor(mask)).numpy() - whole).max() > 0.01 * np.abs(whole).max()


# ---- refusals


def test_refusals():
    small = new_embedder(model="ResNet18")  # its map is 1x1 at 32x32 pixels
    with pytest.raises(UserError, match="--occlusion_shapes=left: the last map of ResNet18 is 1x1 at 32x32 pixels"):
        OccludedForward(small, element_loss("softmax", 3, 8), Occlusion(("left",)), 0, False)
    with pytest.raises(UserError, match="needs a loss of each picture"):
        covered(Occlusion(EVERY, 0.5, True), loss=pair_loss("eml"))
    for bad in ({"shapes": ("lefft",)}, {"shapes": ()}, {"shapes": ("left",), "rate": 1.5}):
        with pytest.raises(UserError, match="--occlusion_"):
            Occlusion(**bad)
