"""Weights, galleries and runs of strangers that got more than a refusal, until that was mended; see test_fuzz.py."""

import json
import zipfile
from pathlib import Path

import numpy as np
import paddle
import pytest
from fuzzing import seeds
from fuzzing.hostile import hostile
from paddle import nn

from metric_learning.checkpoint import State
from metric_learning.checks import UserError, plain_line
from metric_learning.cli import _machine
from metric_learning.config import ElemOptions, check_saved
from metric_learning.data import prepare
from metric_learning.embedder import saved_calibration, saved_classes, saved_group_means, saved_spec
from metric_learning.files import write_json, write_tensors
from metric_learning.gallery import Gallery
from metric_learning.optimizer import Optimizer
from metric_learning.runs import Run
from metric_learning.saved_state import read_state
from metric_learning.weights import read_arrays

DESCRIBED = hostile()["spec, calibration, classes"]


@pytest.mark.parametrize("case", [case for case in DESCRIBED if not case.startswith("read")])
def test_what_weights_say_of_themselves_is_checked(tmp_path, case):
    (tmp_path / "a.safetensors").write_bytes(DESCRIBED[case]())
    with pytest.raises(UserError, match=r"a\.safetensors"):
        [read(tmp_path / "a.safetensors") for read in (saved_spec, saved_calibration, saved_group_means, saved_classes)]


@pytest.mark.parametrize("case", hostile()["safetensors"])
def test_tensors_made_to_do_harm_are_refused(tmp_path, case):
    (tmp_path / "a.safetensors").write_bytes(hostile()["safetensors"][case]())
    with pytest.raises(UserError, match="Can't read the weights"):
        read_arrays(tmp_path / "a.safetensors")


@pytest.mark.parametrize("case", [case for case in hostile()["embeddings .npz"] if not case.startswith("read")])
def test_a_gallery_made_to_do_harm_is_refused(tmp_path, case):
    (tmp_path / "a.npz").write_bytes(hostile()["embeddings .npz"][case]())
    with pytest.raises(UserError, match="Can't read the embeddings"):
        Gallery.read(tmp_path / "a.npz")


def test_a_gallery_is_read_by_the_names_that_were_checked(tmp_path):
    data = seeds.embeddings()
    (tmp_path / "a.npz").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embeddings", bytes(1000))
    assert Gallery.read(tmp_path / "a.npz").paths == ["a.jpg", "b.jpg", "ü.jpg"]


GOOD = {"step": 3, "best": [0.5], "scores": [], "processes": 2, "sharded": ["loss.weight"], "scale": [4.0, 7]}


def saved(folder: Path, state: object) -> Path:
    path = folder / "step-00000003.safetensors"
    write_tensors(path, {"a": np.zeros(1, np.float32)}, {"state": state})
    return path


def test_an_optimizer_that_lacks_something_is_refused(tmp_path):
    network, loss = nn.Linear(3, 2), nn.Linear(2, 1)
    state = State(network, loss, Optimizer("momentum", network, loss))
    loss(network(paddle.ones([1, 3]))).sum().backward()
    state.update()
    arrays, _ = state._arrays()
    del arrays[next(name for name in arrays if name.startswith("optimizer."))]
    write_tensors(tmp_path / "a.safetensors", arrays, {"state": {"step": 1, "best": []}})
    with pytest.raises(UserError, match=r"The checkpoint's optimizer does not fit this run's: .* not found"):
        state.restore(tmp_path / "a.safetensors")


def test_a_state_comes_back(tmp_path):
    found = read_state(saved(tmp_path, GOOD))
    assert found == {**GOOD, "averaged": 0, "scale": [4.0, 7.0]}
    assert read_state(saved(tmp_path, {"step": 0, "best": []}))["processes"] == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"step": "3"},
        {"step": -1},
        {"step": 1e3},
        {"processes": 10**9},
        {"processes": 0},
        {"best": 0.5},
        {"scores": ["x"]},
        {"scores": [10**400]},
        {"sharded": [["a"]]},
        {"sharded": "a"},
        {"scale": [1.0]},
        {"scale": [float("nan"), 0]},
        {"averaged": None},
    ],
)
def test_a_state_that_no_training_wrote_is_refused(tmp_path, changed):
    with pytest.raises(UserError, match="holds no training state that this version knows"):
        read_state(saved(tmp_path, GOOD | changed))


@pytest.mark.parametrize(
    "arrays",
    [
        {"optimizer.0.velocity_0": np.zeros((3, 3), np.float32)},
        {"optimizer.0.velocity_0": np.zeros((3, 2), np.int64)},
        {"optimizer.².velocity_0": np.zeros((3, 2), np.float32)},
        {"optimizer.9.velocity_0": np.zeros((3, 2), np.float32)},
    ],
)
def test_an_optimizer_of_another_size_is_refused(tmp_path, arrays):
    network, loss = nn.Linear(3, 2), nn.Layer()
    state = State(network, loss, Optimizer("momentum", network, loss))
    weights = {f"embedder.{name}": value.numpy() for name, value in network.state_dict().items()}
    write_tensors(tmp_path / "a.safetensors", weights | arrays, {"state": {"step": 1, "best": []}})
    with pytest.raises(UserError, match=r"The checkpoint's optimizer has (other parameters|another size)"):
        state.restore(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "changed",
    [
        {"lr": "0.1"},
        {"data_dir": "a\0b"},
        {"image_shape": "0" * 5000},
        {"seed": 10**30},
        {"lr": 10**400},
        {"flip": 1},
        {"min_crop_area": []},
    ],
)
def test_a_config_with_values_that_no_option_has_is_refused(tmp_path, changed):
    config = {"command": "train_elem", **ElemOptions(loss_name="softmax").to_dict()}
    check_saved(config)
    write_json(tmp_path / "config.json", config | changed)
    with pytest.raises(UserError, match=rf"config\.json: The saved config can't be used: {next(iter(changed))} is"):
        Run(tmp_path).config()


@pytest.mark.parametrize("classes", [[], {"train": "a"}, {"train": [["a"]]}, {"train": {"a": 1}}, 3])
def test_classes_that_are_no_names_are_refused(tmp_path, classes):
    write_json(tmp_path / "classes.json", classes)
    with pytest.raises(UserError, match=r"classes\.json does not list the classes"):
        Run(tmp_path).classes()


@pytest.mark.parametrize("text", ["[" * 100_000, json.dumps({"threads": 10**12})])
def test_threads_of_a_run_that_can_not_be_are_not_taken(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    assert 0 <= _machine(ElemOptions(loss_name="softmax", checkpoint=str(tmp_path)))[0] <= 1024


def test_a_refusal_drives_no_terminal(capsys):
    assert plain_line("a\x1b[2J\n\u202eb \udcff ü") == "a\\x1b[2J \\u202eb \\udcff ü"
    assert prepare.main(["--data_dir=\x1b[31mnone", "--output=none"]) == 2
    assert "\\x1b[31mnone does not exist" in capsys.readouterr().err
