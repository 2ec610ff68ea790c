"""infer --export: what is written, that it is the same function, what is refused, and the programs of the page."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import paddle
import pytest
from cli_cases import leftovers, refused, run
from PIL import Image

from metric_learning import export as exporting
from metric_learning import to_onnx
from metric_learning.backbones import BACKBONES
from metric_learning.checks import UserError
from metric_learning.config import InferOptions, parse
from metric_learning.data.transforms import PictureSpec
from metric_learning.embedder import ClassesOf, Embedder, EmbedderSpec, save_embedder
from metric_learning.engine import eager, load_program
from metric_learning.export import SAME, difference, drawn_pictures, export
from metric_learning.losses.classifier import Classifier
from metric_learning.metrics.cosine import unit_rows
from metric_learning.metrics.similarity import Calibration, StoredPoint

ROOT = Path(__file__).resolve().parents[1]
SPEC = PictureSpec((3, 36, 48), color_order="BGR")  # a last map of 4 x 6, which no windows of one size and step cover
CALIBRATION = Calibration(9.0, StoredPoint(0.3, 1e-3, 40, 4000), {"b": StoredPoint(0.4, 1e-3, 20, 2000)})
KINDS = ("paddle", "onnx")


def need(kind: str) -> None:
    try:
        to_onnx.check_tools(kind)
    except UserError as error:
        pytest.skip(str(error))


def embedder_of(model: str = "SmallCNN", size: int = 16, spec: PictureSpec = SPEC) -> Embedder:
    """With statistics of drawn pictures, so that maps neither fade nor overflow."""
    paddle.seed(0)
    made = Embedder(EmbedderSpec(model, size, spec))
    for layer in made.sublayers():
        if hasattr(layer, "_momentum"):
            layer._momentum = 0.0
    made.train()
    with paddle.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Paddle's, of every training
        made(paddle.to_tensor(drawn_pictures(spec)[:4]))
    made.eval()
    return made


def classes_of(cosine: bool) -> ClassesOf:
    weight = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    bias = None if cosine else np.array([0.5, -1, 0], np.float32)
    return ClassesOf(["a", "b", "c"], Classifier(weight, bias, cosine, 4.0 if cosine else 1.0))


def loaded(folder: Path):
    """An export as a function, by its own description."""
    about = json.loads((folder / "preprocessing.json").read_text())
    if about["format"] == "onnx":
        return to_onnx.session(folder / "model.onnx")
    return load_program(next(folder / name for name in about["files"] if not name.endswith(".pdiparams")))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_embedder(file, embedder_of(), {}, CALIBRATION)
    return file


# ---- the function


@pytest.mark.parametrize(("given", "places"), [(14, 4), (5, 4), (3, 7), (8, 4), (1, 7), (7, 7)])
def test_products_are_adaptive_pooling(given, places) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, given, given + 1)).astype(np.float32)
    made = to_onnx.WindowMeans((given, given + 1), (places, places))(paddle.to_tensor(x)).numpy()
    expected = paddle.nn.functional.adaptive_avg_pool2d(paddle.to_tensor(x), (places, places)).numpy()
    np.testing.assert_allclose(made, expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_is_the_same_function_for_any_number_of_pictures(kind, tmp_path) -> None:
    need(kind)
    source = embedder_of()
    made = export(source, None, kind, tmp_path / "deep" / "out", {"more": 1})
    assert made.difference < 1e-5 and {path.name for path in made.place.iterdir()} == set(made.files)
    about = json.loads((made.place / "preprocessing.json").read_text())
    assert about["more"] == 1 and about["check"]["largest_difference"] == made.difference
    assert about["embedding"] == {"size": 16, "normalised": False} and about["outputs"] == ["embeddings"]
    assert about["picture"]["mean"] == [0.406, 0.456, 0.485] and about["picture"]["channel_order"] == "BGR"
    images = np.random.default_rng(1).normal(size=(5, *SPEC.shape)).astype(np.float32)
    np.testing.assert_allclose(loaded(made.place)(images)[0], eager(source, images), rtol=1e-4, atol=1e-5)
    assert os.listdir(tmp_path / "deep") == ["out"]
    assert isinstance(source.backbone.pool, paddle.nn.AdaptiveAvgPool2D)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cosine", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_classifier_has_its_probabilities_too(kind, cosine, tmp_path) -> None:
    need(kind)
    source, known = embedder_of(), classes_of(cosine)
    made = export(source, known, kind, tmp_path / "out", {})
    images = drawn_pictures(SPEC)[:2]
    embeddings, probabilities = loaded(made.place)(images)
    np.testing.assert_allclose(unit_rows(embeddings), unit_rows(eager(source, images)), atol=1e-5)
    np.testing.assert_allclose(probabilities, known.classifier.probabilities(embeddings), atol=1e-5)
    assert json.loads((made.place / "preprocessing.json").read_text())["outputs"] == ["embeddings", "probabilities"]


def test_the_difference_sees_each_batch_size_shapes_and_nan() -> None:
    images, rows = np.zeros((8, 1)), np.eye(8, dtype=np.float32)
    shares = np.full((8, 2), 0.5, np.float32)
    assert difference(lambda x: [3 * rows[: len(x)]], images, [rows]) == 0
    assert difference(lambda x: [rows[:8]], images, [rows]) == np.inf
    assert difference(lambda x: [rows[: len(x)] + (len(x) == 3) * 0.1], images, [rows]) > 0.05
    assert difference(lambda x: [rows[: len(x)] * np.nan], images, [rows]) == np.inf
    assert difference(lambda x: [rows[: len(x)], shares[: len(x)] + 0.25], images, [rows, shares]) == 0.25
    assert difference(lambda x: [rows[: len(x)]], images, [rows, shares]) == np.inf


def test_another_function_is_refused_and_nothing_written(tmp_path, monkeypatch) -> None:
    def wrong(program):
        return lambda images: [load_program(program)(images)[0] + 0.01]

    monkeypatch.setattr(exporting, "load_program", wrong)
    with pytest.raises(UserError, match="differs from its source") as caught:
        export(embedder_of(), None, "paddle", tmp_path / "out", {})
    assert "\n" not in str(caught.value) and os.listdir(tmp_path) == []


# Without those that differ in depth alone; METRIC_LEARNING_DEPTHS=all tries them as well.
KINDS_OF_BACKBONES = [name for name in BACKBONES if not re.search("34|101|152", name)]


@pytest.mark.slow
@pytest.mark.parametrize("model", BACKBONES if "METRIC_LEARNING_DEPTHS" in os.environ else KINDS_OF_BACKBONES)
@pytest.mark.sweep
def test_every_backbone_becomes_onnx(model, tmp_path) -> None:
    need("onnx")
    source = embedder_of(model, 0, PictureSpec((3, 112, 112)))
    assert export(source, None, "onnx", tmp_path / "out", {}).difference < SAME


@pytest.mark.slow
@pytest.mark.parametrize("model", KINDS_OF_BACKBONES)
@pytest.mark.sweep
def test_every_kind_of_backbone_of_another_size_and_gray(model, tmp_path) -> None:
    source = embedder_of(model, 0, PictureSpec((1, 80, 112)))
    assert export(source, None, "paddle", tmp_path / "paddle", {}).difference < SAME
    need("onnx")
    assert export(source, None, "onnx", tmp_path / "onnx", {}).difference < SAME


# ---- the command


def test_the_command_writes_what_the_weights_know(weights, tmp_path) -> None:
    said = run("infer", "--export=paddle", f"--pretrained_model={weights}", f"--output={tmp_path / 'out'}")
    assert said.status == 0 and said.err == "" and "Largest difference" in said.out
    about = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    assert about["similarity"]["slope"] == 9 and about["similarity"]["groups"]["b"]["threshold"] == 0.4
    assert about["weights"]["model"] == "SmallCNN" and len(about["weights"]["fingerprint"]) == 32
    assert about["classes"] is None and about["group_means"] is None and about["versions"]["metric_learning"]
    again = run("infer", "--export=paddle", f"--pretrained_model={weights}", f"--output={tmp_path / 'out'}")
    refused(again, "is there already")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("typed", ["--query=a.jpg", "--pairs=a.csv", "--input=a", "--flip_test=True", "--top_k=3"])
def test_what_has_no_meaning_with_an_export_is_refused(typed) -> None:
    with pytest.raises(UserError, match="has no meaning with --export"):
        parse(InferOptions, ["--export=onnx", typed])


def test_the_command_refuses(weights, tmp_path) -> None:
    typed = ["infer", "--export=paddle", f"--pretrained_model={weights}"]
    refused(run(*typed, f"--output={tmp_path / 'a.onnx'}"), "Name a folder")
    refused(run(*typed[:2], f"--pretrained_model={weights},{weights}"), "takes one network")
    refused(run(*typed, "--task=classify"), "holds no classifier")
    (tmp_path / "file").write_text("")
    refused(run(*typed, f"--output={tmp_path / 'file' / 'out'}"), "Can't write to")


@pytest.mark.parametrize("name", to_onnx.TOOLS)
def test_a_missing_tool_is_named_with_what_to_install(name, weights, tmp_path, monkeypatch) -> None:
    for other in to_onnx.TOOLS:
        monkeypatch.setitem(sys.modules, other, ModuleType(other))
    monkeypatch.setitem(sys.modules, name, None)
    said = run("infer", "--export=onnx", f"--pretrained_model={weights}", f"--output={tmp_path / 'out'}")
    refused(said, name, "pip install paddle2onnx", "onnxruntime")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_kill_leaves_no_half_export(weights, tmp_path) -> None:
    place = tmp_path / "out"
    command = [sys.executable, "infer.py", "--export=paddle", f"--pretrained_model={weights}", f"--output={place}"]
    for wait in (0.0, 0.05, 0.2, 0.4):
        started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while started.poll() is None and not leftovers(tmp_path):
            time.sleep(0.005)
        time.sleep(wait)
        started.send_signal(signal.SIGKILL)
        started.wait()
        for left in leftovers(tmp_path):
            shutil.rmtree(left)
        if place.exists():  # it was too late
            assert loaded(place)(drawn_pictures(SPEC)[:1])[0].shape == (1, 16)
            shutil.rmtree(place)
    assert subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert loaded(place)(drawn_pictures(SPEC)[:1])[0].shape == (1, 16)


# ---- the programs of the page


def example(kind: str) -> str:
    """The program of docs/deployment.md that loads this kind."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "deployment.md").read_text(), flags=re.DOTALL)
    library = {"onnx": "import onnxruntime", "paddle": "import paddle"}[kind]
    (found,) = [block for block in blocks if library in block]
    return found


def photographs(folder: Path) -> list[str]:
    """JPEG files of several sizes, larger and smaller than the network's input, one of them turned by EXIF."""
    paths = []
    for number, (width, height) in enumerate([(90, 61), (61, 90), (30, 47), (48, 36), (300, 100)]):
        coarse = np.random.default_rng(number).integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), np.uint8)
        image, turned = Image.fromarray(coarse).resize((width, height)), Image.Exif()
        turned[0x0112] = 6 if number == 0 else 1
        paths.append(str(folder / f"{number}.jpg"))
        image.save(paths[-1], quality=90, exif=turned)
    return paths


@pytest.mark.parametrize("kind", [pytest.param("paddle", marks=pytest.mark.slow), "onnx"])
@pytest.mark.parametrize(
    "spec", [SPEC, pytest.param(PictureSpec((1, 36, 48), test_crop=0.7), marks=pytest.mark.slow)], ids=["BGR", "gray"]
)
def test_the_programs_of_the_page_embed_as_infer_does(kind, spec, tmp_path) -> None:
    need(kind)
    save_embedder(tmp_path / "w.safetensors", embedder_of(spec=spec), {})
    paths = photographs(tmp_path)
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    typed = ["infer", f"--pretrained_model={tmp_path / 'w.safetensors'}", "--precision=float32"]
    embedded = run(*typed, f"--input={tmp_path / 'list.txt'}", f"--output={tmp_path / 'by_infer.npz'}")
    exported = run(*typed[:2], f"--export={kind}", f"--output={tmp_path / 'out'}")
    assert (embedded.status, exported.status) == (0, 0), embedded.err + exported.err
    program = tmp_path / "program.py"
    program.write_text("import sys\nsys.modules['metric_learning'] = None\n" + example(kind))
    done = subprocess.run(
        [sys.executable, "-I", str(program), str(tmp_path / "out"), *paths],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made, expected = np.load(tmp_path / "embeddings.npy"), np.load(tmp_path / "by_infer.npz")["embeddings"]
    np.testing.assert_allclose(made, unit_rows(expected), atol=1e-5)
