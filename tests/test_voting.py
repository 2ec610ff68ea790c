"""What classifiers that nobody trained say of pictures, worked out by hand: the flip test, and classes by name."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from cli_cases import refused, run

from metric_learning.data import loader
from metric_learning.data.transforms import PictureSpec
from metric_learning.embedder import ClassesOf, Embedder, EmbedderSpec, save_embedder
from metric_learning.engine import Predictor
from metric_learning.losses.classifier import Classifier

SIDE = 32
SPEC = EmbedderSpec("SmallCNN", 8, PictureSpec((3, SIDE, SIDE), test_crop=1.0))
KNOWN = ["dog", "bird", "cat"]  # in no order of the alphabet, and one that the data has not


def drawn(folder: Path) -> Path:
    """3 cats and 5 dogs, all noise that is darker on the left."""
    rng = np.random.default_rng(0)
    for label, count in (("cat", 3), ("dog", 5)):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            picture = rng.integers(0, 256, (SIDE, SIDE, 3)) * np.linspace(0, 1, SIDE)[None, :, None]
            cv2.imwrite(str(folder / label / f"{number}.png"), picture.astype(np.uint8))
    return folder


@pytest.fixture
def network():
    paddle.seed(3)
    embedder = Embedder(SPEC)
    embedder.eval()
    return embedder


def embeddings(network: Embedder, paths: list[str], flip: bool) -> np.ndarray:
    batches = loader.test_batches(paths, SPEC.picture, 50, 0, loader.BadPictures(len(paths), 0.0), flip)
    return np.concatenate([Predictor(network, SPEC.picture.shape)(images) for _, images in batches])


def judging(network: Embedder, paths: list[str]) -> Classifier:
    """A linear one that is of several minds over these pictures."""
    rows = embeddings(network, paths, False)
    weight = np.random.default_rng(1).normal(size=(3, rows.shape[1])).astype(np.float32) / rows.std()
    return Classifier(weight, -(weight @ rows.mean(axis=0)), cosine=False)


def answers(path: Path) -> tuple[list[dict[str, str]], np.ndarray]:
    rows = list(csv.DictReader(path.read_text().splitlines()))
    return rows, np.array([[float(row[f"p({name})"]) for name in KNOWN] for row in rows])


@pytest.fixture
def made(tmp_path, network):
    """(folder of pictures, their paths in the order of the answers, weights file, classifier)"""
    data = drawn(tmp_path / "data")
    paths = sorted(map(str, data.glob("*/*.png")))
    judge = judging(network, paths)
    save_embedder(tmp_path / "a.safetensors", network, {}, classes=ClassesOf(KNOWN, judge))
    return data, paths, tmp_path / "a.safetensors", judge


@pytest.mark.slow
def test_the_flip_test_is_the_mean_of_a_picture_and_its_mirror(made, network, tmp_path):
    data, paths, weights, judge = made
    typed = (f"--pretrained_model={weights}", f"--input={data}", f"--output={tmp_path / 'a.csv'}")
    said = run("infer", *typed, "--probabilities=True", "--flip_test=True", "--use_gpu=False")
    assert said.status == 0, said
    rows, found = answers(tmp_path / "a.csv")
    assert [row["path"] for row in rows] == paths
    own, mirrored = (embeddings(network, paths, flip) for flip in (False, True))
    np.testing.assert_allclose(found, judge.probabilities((own + mirrored) / 2), rtol=1e-3, atol=1e-5)
    for other in (own, mirrored, own + mirrored):  # so that the above says something
        assert np.abs(found - judge.probabilities(other)).max() > 0.01


@pytest.mark.slow
def test_classes_are_known_by_name(made, tmp_path):
    """The data has them in another order than the weights, and not all of them."""
    data, _, weights, _ = made
    typed = (f"--pretrained_model={weights}", "--use_gpu=False")
    assert run("infer", *typed, f"--input={data}", f"--output={tmp_path / 'a.csv'}").status == 0
    expected = np.zeros((3, 3), int)
    for row in csv.DictReader((tmp_path / "a.csv").read_text().splitlines()):
        expected[KNOWN.index(Path(row["path"]).parent.name), KNOWN.index(row["label"])] += 1
    assert expected.sum(axis=1).tolist() == [5, 0, 3] and (expected.sum(axis=0) > 0).sum() > 1
    said = run("eval", *typed, f"--data_dir={data}", f"--output={tmp_path / 'e.json'}")
    assert said.status == 0, said
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["classes"] == KNOWN and found["all"]["confusion"] == expected.tolist()
    assert found["all"]["accuracy"] == np.trace(expected) / 8 and found["about"]["pictures / classes"] == "8 / 3"


def test_a_class_that_the_weights_do_not_know_is_refused(made):
    data, _, weights, _ = made
    (data / "dog").rename(data / "cow")
    refused(run("eval", f"--pretrained_model={weights}", f"--data_dir={data}", "--use_gpu=False"), "'cow'", "dog, bird")


@pytest.mark.parametrize("command", ["infer", "eval"])
def test_the_uncertain_replace_nothing_else(made, tmp_path, command):
    data, paths, weights, _ = made
    (data / "list.csv").write_text("\n".join(["path,label", *(f"{p},{Path(p).parent.name}" for p in paths[1:])]))
    output = tmp_path / ("x.csv" if command == "infer" else "x.json")
    typed = [f"--pretrained_model={weights}", f"--data_dir={data}", "--test_list=list.csv", "--use_gpu=False"]
    typed += [f"--output={output}"] + (["--train_list=list.csv"] if command == "eval" else [])
    before = {path: path.read_bytes() for path in data.rglob("*.*")}
    # the answer or its plot; the list; a picture that is asked about; one that is not
    for name in ("x.csv", "data/list.csv", "data/dog/1.csv", "data/cat/0"):
        refused(run(command, *typed, f"--uncertain={tmp_path / name}"), "--uncertain=", "would write over")
    assert before == {path: path.read_bytes() for path in data.rglob("*.*")} and not output.exists()


@pytest.mark.slow
def test_the_uncertain_may_go_into_a_folder(made, tmp_path):
    data, _, weights, _ = made
    typed = (f"--pretrained_model={weights}", f"--input={data}", f"--output={tmp_path / 'a.csv'}", "--use_gpu=False")
    for name in ("", "unsure.png", "unsure.png"):
        assert run("infer", *typed, f"--uncertain={tmp_path / name}", "--uncertain_band=0.5").status == 0
    for name in ("uncertain.csv", "uncertain.png", "unsure.png.csv", "unsure.png.png"):
        assert (tmp_path / name).is_file(), name
