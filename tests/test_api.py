"""The Python API: what README.md and docs/api.md show runs and is typed; load, BatchSampler, errors of losses."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from small_runs import equal_arrays

from metric_learning import UserError, losses
from metric_learning.data.batch_sampler import BatchSampler
from metric_learning.data.pictures import read_picture
from metric_learning.data.samplers import ClassSampler, ShuffleSampler
from metric_learning.data.transforms import PictureSpec, TestTransform, to_batch
from metric_learning.embedder import Embedder, EmbedderSpec, save_embedder
from metric_learning.inference import load
from metric_learning.losses import AmSoftmax, ArcMargin, Softmax, TripletLoss, element_loss

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "api.md"]
pytestmark = pytest.mark.filterwarnings("ignore:When training")


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a run of a small network and four pictures."""
    paddle.seed(0)
    network = Embedder(EmbedderSpec("SmallCNN", 8, PictureSpec((3, 32, 32), color_order="BGR")))
    (tmp_path / "run").mkdir()
    save_embedder(tmp_path / "run" / "best.safetensors", network, {})
    for number, name in enumerate(("a", "b", "c", "query")):
        pixels = np.random.default_rng(number % 3).integers(0, 256, (40, 48, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), pixels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_on_the_pages_runs(page, place, capsys):
    """The blocks of a page, one after the other, as one program."""
    known: dict[str, object] = {"__name__": "page"}
    assert blocks(page)
    for block in blocks(page):
        exec(compile(block, page.name, "exec"), known)
    if page.name == "api.md":
        assert "[('a.jpg', " in capsys.readouterr().out  # the query's pixels are those of a


@pytest.mark.slow
def test_the_python_on_the_pages_is_typed(tmp_path):
    for page in PAGES:
        (tmp_path / f"{page.stem.lower()}_page.py").write_text("\n\n".join(blocks(page)))
    files = sorted(map(str, tmp_path.glob("*.py")))
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *files], capture_output=True, text=True, cwd=ROOT, check=False
    )
    if "No module named mypy" in done.stderr:
        pytest.skip("mypy is not installed")
    assert done.returncode == 0, done.stdout


# ---- trained weights


def test_embeddings_are_those_of_the_network_whatever_a_picture_is_given_as(place):
    embed = load("run", precision="float32")
    pixels = read_picture("a.jpg")
    found = embed(["a.jpg", Path("a.jpg"), Path("a.jpg").read_bytes(), pixels])
    picture = TestTransform(embed.spec.picture)(pixels)
    expected = embed.network(paddle.to_tensor(to_batch([picture], embed.spec.picture))).numpy()
    assert found.shape == (4, embed.size) == (4, 8) and found.dtype == np.float32 and embed.way
    np.testing.assert_allclose(found, np.repeat(expected, 4, axis=0), rtol=1e-3, atol=1e-4)
    assert not np.allclose(embed([pixels[:, :, ::-1]]), expected, rtol=1e-3, atol=1e-4)  # the order of colours matters
    assert embed([]).shape == (0, 8)
    assert embed.model["weights"] == "run/best.safetensors" and embed.calibration is None


def test_a_gallery_is_of_the_numbers_of_weights_not_of_their_file(place):
    network = Embedder(EmbedderSpec("SmallCNN", 8, PictureSpec((3, 32, 32))))
    found = []
    for about in ({}, {"calibration": "fitted later"}, {"a number": "changed"}):
        if "a number" in about:
            weight = network.parameters()[0]
            weight.set_value(weight * np.float32(1 + 1e-6))
        save_embedder(place / "w.safetensors", network, about)
        found.append(load(place / "w.safetensors").model["digest"])
    assert found[0] == found[1] != found[2]


def test_the_flip_test_adds_the_mirror_image(place):
    pixels = read_picture("a.jpg")
    both = load("run", precision="float32")([pixels, pixels[:, ::-1]])
    found = load("run", flip_test=True, precision="float32")([pixels])
    np.testing.assert_allclose(found[0], both.sum(axis=0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        (["a.jpg", "none.jpg"], "none.jpg: No such file"),
        ([b"no picture"], "picture 0: not a picture"),
        ([np.zeros((4, 4), np.uint8)], r"\(H, W, 3\) uint8 in RGB; got \(4, 4\)"),
        ([np.zeros((4, 4, 3))], "got .* of float64"),
        ([None], "picture 0: must be a path.* got NoneType"),
        ([[1, 2]], "picture 0: must be a path.* got list"),
        ("a.jpg", "as a list"),
    ],
)
def test_what_is_no_picture_is_said(place, pictures, said):
    with pytest.raises(UserError, match=said):
        load("run")(pictures)


def test_weights_that_do_not_name_their_network_need_a_spec(place):
    embed = load("run")
    paddle.save(embed.network.state_dict(), "plain.pdparams")
    with pytest.raises(UserError, match="EmbedderSpec"):
        load("plain.pdparams")
    equal_arrays(load("plain.pdparams", embed.spec).network.arrays(), embed.network.arrays())
    with pytest.raises(UserError, match="no such file or run"):
        load("nowhere")


# ---- batches for paddle.io.DataLoader


def test_epochs_of_a_sampler_follow_each_other_and_can_be_chosen():
    rows = ShuffleSampler(10, 4, seed=1)
    batches = BatchSampler(rows, steps=3)
    seen = [list(batches), list(batches)]
    assert len(batches) == 3 and seen == [[rows.batch(s).tolist() for s in range(e, e + 3)] for e in (0, 3)]
    batches.set_epoch(1)
    assert list(batches) == seen[1] == list(BatchSampler(rows, 3, epoch=1))
    with pytest.raises(UserError, match="steps"):
        BatchSampler(rows, 0)


@pytest.mark.parametrize("labels", [["a", "b"], [0.0, 1.0], [[0, 1]], [-1, 1]])
def test_labels_of_a_sampler_that_are_no_classes_are_refused(labels):
    with pytest.raises(UserError, match="labels must be integers from 0 on"):
        ClassSampler(np.array(labels), 4, 2)


# ---- losses


def test_every_loss_that_a_table_names_can_be_imported():
    for kind in (*losses.ELEMENT_LOSSES.values(), *losses.PAIR_LOSSES.values()):
        assert kind.__name__ in losses.__all__ and kind()
    assert all(hasattr(losses, name) for name in losses.__all__)


def test_a_loss_of_a_margin_is_that_of_its_name():
    x, labels = paddle.rand([6, 4]), paddle.to_tensor([0, 1, 2, 0, 1, 2])
    found = []
    for loss in (element_loss("amsoftmax", 3, 4, scale=8.0), element_loss(AmSoftmax(scale=8.0), 3, 4)):
        loss.centers.weight.set_value(paddle.ones([3, 4]) * paddle.to_tensor([[1.0], [2.0], [3.0]]))
        found.append(loss(x, labels).item())
    assert found[0] == found[1]
    with pytest.raises(UserError, match=r"scale must be said to ArcMargin\(\.\.\.\) itself"):
        element_loss(ArcMargin(), 3, 4, scale=8.0)


def test_a_batch_that_does_not_fit_a_loss_is_refused_in_a_line():
    x, labels = paddle.rand([4, 6]), paddle.to_tensor([0, 0, 1, 1])
    triplet, softmax = TripletLoss(mining="batch_hard"), element_loss(Softmax(), 2, 8)
    with pytest.raises(UserError, match="labels must be a Paddle tensor; got ndarray"):
        triplet(x, labels.numpy())
    with pytest.raises(UserError, match="embeddings must be a Paddle tensor; got list"):
        triplet([[0.0]], labels)
    with pytest.raises(UserError, match=r"got \(4, 6\) and \(3,\)"):
        triplet(x, labels[:3])
    with pytest.raises(UserError, match="embeddings of size 8; got 6"):
        softmax(x, labels)
    with pytest.warns(UserWarning, match="1 classes taught TripletLoss nothing"):
        assert triplet(x, labels * 0).item() == 0.0
