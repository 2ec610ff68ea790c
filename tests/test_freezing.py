"""What is frozen does not move by a bit, and what is not learns as it would."""

from unittest import mock

import numpy as np
import paddle
import pytest
from small_runs import Tiny, Training, equal_arrays, images, new_embedder, write_pictures

from metric_learning.average import Average
from metric_learning.backbones import BACKBONES
from metric_learning.backbones.iresnet import FixedScaleNorm
from metric_learning.checks import UserError
from metric_learning.data.transforms import PictureSpec
from metric_learning.embedder import Embedder, EmbedderSpec
from metric_learning.files import read_tensors
from metric_learning.freezing import freeze, freeze_layers, learning
from metric_learning.onednn.forward import training_forward
from metric_learning.recompute import recompute_blocks

pytestmark = pytest.mark.filterwarnings("ignore:When training", "ignore:In transformed code")


def stepped(embedder: Embedder, onednn: bool = False, steps: int = 2) -> dict[str, np.ndarray]:
    """The arrays after some steps of SGD."""
    embedder.train()
    learning = [p for p in embedder.parameters() if not p.stop_gradient]
    optimizer = paddle.optimizer.Momentum(0.1, parameters=learning, weight_decay=0.01)
    forward = training_forward(embedder, embedder.spec.picture.shape[0], onednn)
    for step in range(steps):
        x = paddle.to_tensor(images(4, embedder.spec.picture.shape, seed=step))
        (forward(x) ** 2).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
    return {name: array.copy() for name, array in embedder.arrays().items()}


def moved(before, after) -> set[str]:
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}


def statistics(names) -> set[str]:
    return {name for name in names if name.endswith(("_mean", "_variance"))}


@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize("model", ["Tiny", pytest.param("MobileFaceNet", marks=pytest.mark.slow)])
def test_what_moves(model, onednn):
    shape = (3, 32, 32) if model == "Tiny" else (3, 48, 48)
    with mock.patch.dict(BACKBONES, {"Tiny": Tiny}):
        made = {}
        for what in ("none", "norms", "backbone"):
            paddle.seed(0)
            made[what] = Embedder(EmbedderSpec(model, 8, PictureSpec(shape), model == "Tiny"))
            freeze(made[what], what)
    before = {name: array.copy() for name, array in made["none"].arrays().items()}
    every = moved(before, stepped(made["none"], onednn))
    assert statistics(every)
    norms = moved(before, stepped(made["norms"], onednn))
    assert not statistics(norms) and {name for name in every - statistics(every) if "bias" not in name} <= norms
    rest = moved(before, stepped(made["backbone"], onednn))
    behind = ("neck.",) if model == "Tiny" else ("neck.", "backbone.gdconv.", "backbone.conv3.", "backbone.bn.")
    assert rest and all(name.startswith(behind) for name in rest) and not statistics(rest)
    assert {"neck.0.weight"} <= rest and (model == "Tiny" or "backbone.conv3.weight" in rest)


def test_frozen_norms_are_those_of_evaluation():
    embedder = new_embedder()
    stepped(embedder)  # so that the running statistics are not those of the start
    freeze(embedder, "norms")
    x = paddle.to_tensor(images(4))
    embedder.train()
    trained = embedder(x).numpy()
    embedder.eval()
    np.testing.assert_allclose(trained, embedder(x).numpy(), rtol=1e-5, atol=1e-6)


class Faces(Tiny):
    """With the last normalisation of IR networks."""

    def __init__(self, shape) -> None:
        super().__init__(shape)
        self.features = FixedScaleNorm(16)

    def from_map(self, last):
        return self.features(super().from_map(last))


@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize("how", ["norms", "backbone", "layers"])
@pytest.mark.parametrize("model", ["Faces", pytest.param("IR18", marks=pytest.mark.slow)])
def test_the_last_normalisation_of_face_networks_stays_too(model, how, onednn):
    with mock.patch.dict(BACKBONES, {"Faces": Faces}):
        embedder = Embedder(EmbedderSpec(model, 8, PictureSpec((3, 32, 32))))
    before = {name: array.copy() for name, array in embedder.arrays().items()}
    last = {f"backbone.features.{name}" for name in ("_mean", "_variance")}
    assert last <= before.keys()
    if how == "layers":
        freeze_layers(embedder, len(layers(embedder)) - 1)
    else:
        freeze(embedder, how)
    changed = moved(before, stepped(embedder, onednn))
    assert "neck.0.weight" in changed and not statistics(changed)
    x = paddle.to_tensor(images(4))
    trained = training_forward(embedder, 3, onednn)(x).numpy()
    embedder.eval()
    np.testing.assert_allclose(trained, embedder(x).numpy(), rtol=1e-4, atol=1e-5)


def test_nothing_behind_the_map_is_refused():
    with mock.patch.dict(BACKBONES, {"Tiny": Tiny}):
        embedder = Embedder(EmbedderSpec("Tiny", 0, PictureSpec((3, 32, 32))))
    with pytest.raises(UserError, match="--freeze=backbone leaves nothing of Tiny"):
        freeze(embedder, "backbone")


# ---- the first layers


def made(model: str, count: int, size: int = 8, shape=(3, 48, 48)) -> Embedder:
    paddle.seed(0)
    with mock.patch.dict(BACKBONES, {"Tiny": Tiny}):
        embedder = Embedder(EmbedderSpec(model, size, PictureSpec(shape)))
    freeze_layers(embedder, count)
    return embedder


def layers(embedder: Embedder) -> list[str]:
    """The names of convolutions and linear layers, as they are defined."""
    kinds = (paddle.nn.Conv2D, paddle.nn.Linear)
    return [name for name, layer in embedder.named_sublayers() if isinstance(layer, kinds)]


@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize(("model", "count"), [("SmallCNN", 2), ("MobileFaceNet", 7), ("Tiny", 1), ("Tiny", 2)])
@pytest.mark.sweep
def test_the_first_layers_stay_and_the_others_learn(model, count, onednn):
    """Where no gradient is asked for none is there, and weight decay moves nothing."""
    every = set(layers(made(model, 0)))
    embedder = made(model, count)
    before = {name: array.copy() for name, array in embedder.arrays().items()}
    changed = moved(before, stepped(embedder, onednn))
    still = set(layers(embedder)[:count])
    assert {f"{name}.weight" for name in every - still} <= changed
    assert not [name for name in changed if name.rpartition(".")[0] in still]
    learns = {name for name, p in embedder.named_parameters() if not p.stop_gradient}
    assert changed - statistics(changed) <= learns
    norms = [name for name, layer in embedder.named_sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    frozen = {name for name in norms if f"{name}._mean" not in changed}
    assert len(frozen) == count and all(f"{name}.weight" not in learns for name in frozen)


@pytest.mark.parametrize("model", ["IRSE18", "MobileNetV2", "ViTS16", "VarGFaceNet"])
@pytest.mark.sweep
def test_what_stays_is_the_beginning_and_learns_nothing(model):
    """Whatever reaches the first layer that learns, no gradient is asked for before it; behind it all learns."""
    embedder = made(model, 5)
    embedder.train()
    (embedder(paddle.to_tensor(images(4, (3, 48, 48)))) ** 2).sum().backward()
    named = dict(embedder.named_parameters())
    with_slope = {name for name, p in named.items() if p.grad is not None}
    assert with_slope == {name for name, p in named.items() if not p.stop_gradient}
    kept = [name for name in layers(embedder) if f"{name}.weight" not in with_slope]
    assert len(kept) == 5
    if model == "ViTS16":
        assert "backbone.cls_token" not in with_slope and "backbone.patch_embed.proj" in kept


def test_frozen_first_layers_are_those_of_evaluation():
    embedder = made("SmallCNN", 3)
    x = paddle.to_tensor(images(4, (3, 48, 48)))
    first = embedder.backbone.stages[:3]
    embedder.train()
    trained = first(x)
    embedder.eval()
    np.testing.assert_allclose(trained.numpy(), first(x).numpy(), rtol=1e-5, atol=1e-6)
    assert trained.stop_gradient and not embedder.training


@pytest.mark.parametrize(("size", "count"), [(8, 5), (0, 4), (0, 99)])
def test_as_many_layers_as_there_are_is_one_line(size, count):
    most = 4 if size else 3
    with pytest.raises(UserError, match=rf"leaves nothing of SmallCNN to learn: .*{most + 1} .*at most {most}\."):
        made("SmallCNN", count, size)
    made("SmallCNN", most, size)


def test_how_much_learns_is_said():
    embedder = made("SmallCNN", 0, 8)
    total = sum(p.size for p in embedder.parameters() if not p.stop_gradient)
    assert learning(embedder) == f"{total:,} of the network's {total:,} parameters learn."
    assert learning(made("SmallCNN", 4, 8)) == f"{16 * 128 * 8 + 8:,} of the network's {total:,} parameters learn."


def test_with_a_moving_average_and_recomputed_blocks_nothing_of_it_moves():
    found = []
    for again in (False, True):
        embedder = made("SmallCNN", 2)
        if again:
            recompute_blocks(embedder.backbone)
        before = {name: array.copy() for name, array in embedder.arrays().items()}
        average = Average(embedder, 0.9)
        stepped(embedder)
        for _ in range(5):
            average.update()
        changed = moved(before, {name: value.numpy() for name, value in average.values.items()})
        assert changed and not [name for name in changed if name.startswith(("backbone.stages.0", "backbone.stages.1"))]
        found.append(embedder.arrays())
    equal_arrays(*found)


def test_a_run_is_resumed_to_the_same_bits(tmp_path):
    pictures = write_pictures(tmp_path / "pictures", 4, 3)

    class Frozen(Training):
        def __init__(self, *arguments, **named) -> None:
            with mock.patch("small_runs.new_embedder", return_value=first_frozen(new_embedder())):
                super().__init__(*arguments, **named)

    whole = Frozen(pictures, tmp_path / "whole").go(8)
    half = Frozen(pictures, tmp_path / "half").go(4)
    again = Frozen(pictures, half.run.folder)
    again.state.restore(half.run.latest)
    again.go(8)
    one, other = (read_tensors(each.run.latest)[0] for each in (whole, again))
    equal_arrays(one, other)
    start = first_frozen(new_embedder()).arrays()
    assert (one["embedder.backbone.layers.0.weight"] == start["backbone.layers.0.weight"]).all()
    assert (one["embedder.backbone.layers.3.weight"] != start["backbone.layers.3.weight"]).any()


def first_frozen(embedder: Embedder) -> Embedder:
    freeze_layers(embedder, 1)
    return embedder
