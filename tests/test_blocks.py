"""Blocks round eyes, nose and mouth: which places of the map they cover, and the choice among them."""

import itertools

import numpy as np
import paddle
import pytest
from small_runs import images, new_embedder
from test_occlusion import at

from metric_learning.backbones import backbone
from metric_learning.checks import UserError
from metric_learning.config.names import OCCLUSION_BLOCKS
from metric_learning.losses import element_loss
from metric_learning.occlusion import BLOCKS, OccludedForward, Occlusion, block_boxes, candidates

pytestmark = pytest.mark.filterwarnings("ignore:When training")
NAMES = tuple(BLOCKS)
LABELS = np.arange(6) % 3
# Eyes 0.4 of the width apart, so a block is grown by 0.1 of the width on every side.
FACE = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]])


def masks_of(points: np.ndarray, height: int, width: int, pixels: tuple[int, int] = (100, 100)) -> np.ndarray:
    """(3, B, h, w)"""
    rng = np.random.default_rng(0)
    return candidates(NAMES, len(points), height, width, rng, block_boxes(points, *pixels))


def picture(mask: np.ndarray) -> list[str]:
    """Covered places as #."""
    return ["".join("." if free else "#" for free in row) for row in mask]


# ---- which places are covered


def test_the_options_name_every_block():
    assert OCCLUSION_BLOCKS == NAMES


def test_boxes_by_hand():
    square = block_boxes(FACE[None], 100, 100)
    np.testing.assert_allclose(square["eyes"], [[0.2, 0.25, 0.8, 0.45]])
    np.testing.assert_allclose(square["nose"], [[0.4, 0.45, 0.6, 0.65]])
    np.testing.assert_allclose(square["mouth"], [[0.25, 0.65, 0.75, 0.85]])
    # 80 pixels between the eyes, so 20 on every side: 0.1 of 200 across, 0.4 of 50 down.
    np.testing.assert_allclose(block_boxes(FACE[None], 50, 200)["nose"], [[0.4, 0.15, 0.6, 0.95]])
    turned = FACE[None, :, ::-1]  # the eyes one above the other: 40 of 100 pixels down
    np.testing.assert_allclose(block_boxes(turned, 100, 50)["nose"], [[0.35, 0.4, 0.75, 0.6]])


def test_masks_by_hand_on_a_map_of_7_by_7():
    eyes, nose, mouth = masks_of(FACE[None], 7, 7)[:, 0]
    none = "......."
    assert picture(eyes) == [none, ".#####.", ".#####.", ".#####.", none, none, none]
    assert picture(nose) == [none, none, none, "..###..", "..###..", none, none]
    assert picture(mouth) == [none, none, none, none, ".#####.", ".#####.", none]


def test_masks_by_hand_on_a_map_of_4_by_5():
    eyes, nose, mouth = masks_of(FACE[None] + [0.03, 0.04], 4, 5)[:, 0]
    assert picture(eyes) == [".....", ".####", ".....", "....."]  # 0.23..0.83 by 0.29..0.49
    assert picture(nose) == [".....", "..##.", "..##.", "....."]  # 0.43..0.63 by 0.49..0.69
    assert picture(mouth) == [".....", ".....", ".###.", ".###."]  # 0.28..0.78 by 0.69..0.89


def test_against_small_samples_of_the_box():
    """Every place that holds one of many points of the box, and no other."""
    rng = np.random.default_rng(3)
    points = rng.uniform(-0.3, 1.3, (40, 5, 2))
    masks, boxes = masks_of(points, 5, 8, (60, 90)), block_boxes(points, 60, 90)
    for k, name in enumerate(NAMES):
        for mask, (left, top, right, bottom) in zip(masks[k], boxes[name], strict=True):
            expected = np.ones((5, 8))
            rows = {int(y * 5) for y in np.linspace(top, bottom, 5000) if 0 <= y < 1}
            columns = {int(x * 8) for x in np.linspace(left, right, 5000) if 0 <= x < 1}
            for place in itertools.product(rows, columns):
                expected[place] = 0
            np.testing.assert_array_equal(mask, expected)
    assert masks.all(axis=(2, 3)).any() and not masks.all()


@pytest.mark.parametrize("away", [[1.3, 0], [-1.3, 0], [0, 1.3], [0, -1.3], [np.nan, np.nan]])
def test_what_is_not_seen_or_not_known_is_not_covered(away):
    assert masks_of(np.stack([FACE + away, FACE]), 7, 7)[:, 0].all()
    assert not masks_of(np.stack([FACE + away, FACE]), 7, 7)[:, 1].all(axis=(1, 2)).any()


def test_halves_are_drawn_as_without_blocks():
    boxes = block_boxes(np.stack([FACE] * 3), 9, 9)
    both = candidates(["left", "eyes", "random_half"], 3, 4, 4, np.random.default_rng(5), boxes)
    alone = candidates(["left", "random_half"], 3, 4, 4, np.random.default_rng(5))
    np.testing.assert_array_equal(both[[0, 2]], alone)


# ---- one step


def covered(how: Occlusion, model: str = "Tiny", **changed) -> OccludedForward:
    return OccludedForward(new_embedder(model=model, **changed), element_loss("arcmargin", 3, 8), how, 0, False)


def batch():
    return paddle.to_tensor(images(6)), paddle.to_tensor(LABELS)


def test_every_block_comes_up_and_goes_to_its_own_picture():
    forward = covered(Occlusion(NAMES, 1.0))
    inputs, labels = batch()
    points = FACE + np.linspace(-0.2, 0.2, 6)[:, None, None]
    points[4] = np.nan
    last = forward.embedder.backbone.to_map(inputs).detach()
    expected = masks_of(points, *last.shape[2:], (32, 32))
    taken = set()
    for step in range(10):
        masks = forward.masks(last, at(labels, step), points)
        assert masks[4].all()
        for k in (0, 1, 2, 3, 5):
            same = [name for name, each in zip(NAMES, expected, strict=True) if (each[k] == masks[k]).all()]
            assert len(same) == 1 and not masks[k].all()
            taken |= set(same)
    assert taken == set(NAMES)


def test_adversarial_takes_the_block_of_the_greatest_loss():
    forward = covered(Occlusion(NAMES, 1.0, adversarial=True))
    inputs, labels = batch()
    points = FACE + np.linspace(-0.1, 0.1, 6)[:, None, None]
    points[2] = np.nan
    net = forward.embedder
    last = net.backbone.to_map(inputs).detach()
    found = forward.masks(last, at(labels, 0), points)
    choice = masks_of(points, *last.shape[2:], (32, 32))
    net.eval()
    losses = np.zeros((3, 6))
    for k, i in np.ndindex(3, 6):
        alone = net.from_map(last[i : i + 1] * paddle.to_tensor(choice[k, i]))
        losses[k, i] = forward.loss(alone, labels[i : i + 1]).item()
    worst = losses.argmax(axis=0)
    np.testing.assert_array_equal(found, choice[worst, np.arange(6)])
    assert len(set(worst)) > 1 and found[2].all()


@pytest.mark.slow
def test_blocks_cover_the_patches_of_a_transformer():
    net = backbone("ViTS16", (3, 64, 64))
    net.eval()
    points = FACE[None]
    with paddle.no_grad():
        given = images(1, (3, 64, 64))
        last = net.to_map(paddle.to_tensor(given))
        mask = masks_of(points, *last.shape[2:], (64, 64))[1, 0]
        assert mask.shape == (4, 4) and 0 < mask.sum() < 16
        patch = np.kron(mask, np.ones((16, 16))).astype(bool)
        changed = np.where(patch, given, given + 1).astype(np.float32)
        cut = paddle.to_tensor(mask)
        one, other = (net.from_map(net.to_map(paddle.to_tensor(x)) * cut).numpy() for x in (given, changed))
    np.testing.assert_array_equal(one, other)


def test_refusals_of_the_parts():
    with pytest.raises(
        UserError, match="--occlusion_shapes=nose: the last map of ResNet18 is 2x2 at 56x56 pixels, and"
    ):
        covered(Occlusion(("left", "nose")), model="ResNet18", shape=(3, 56, 56))
    with pytest.raises(UserError, match=r"a block needs at least 3x3\. Make --image_shape larger or take other shapes"):
        covered(Occlusion(("eyes",)), model="ResNet18", shape=(3, 56, 96))
    forward = covered(Occlusion(("mouth",), 1.0))
    inputs, labels = batch()
    with pytest.raises(UserError, match="--occlusion_shapes=mouth needs the points"):
        forward(at(labels, 0, inputs))
    with pytest.raises(UserError, match=r"random_half, eyes, nose, mouth; got 'noes'\. Did you mean 'nose'"):
        Occlusion(("noes",))
