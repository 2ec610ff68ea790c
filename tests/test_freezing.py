"""What is frozen does not move by a bit, and what is not learns as it would."""

from unittest import mock

import numpy as np
import paddle
import pytest
from small_runs import Tiny, images, new_embedder

from metric_learning.backbones import BACKBONES
from metric_learning.checks import UserError
from metric_learning.data.transforms import PictureSpec
from metric_learning.embedder import Embedder, EmbedderSpec
from metric_learning.engine import training_forward
from metric_learning.freezing import freeze

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
@pytest.mark.parametrize("model", ["Tiny", "MobileFaceNet"])
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


def test_nothing_behind_the_map_is_refused():
    with mock.patch.dict(BACKBONES, {"Tiny": Tiny}):
        embedder = Embedder(EmbedderSpec("Tiny", 0, PictureSpec((3, 32, 32))))
    with pytest.raises(UserError, match="--freeze=backbone leaves nothing of Tiny"):
        freeze(embedder, "backbone")
