"""The moving average of the weights: its formula, where it stands in, and that a resumed run has it again."""

from pathlib import Path

import numpy as np
import paddle
import pytest
from cli_cases import run
from small_runs import Training, equal_arrays, new_embedder, write_pictures

from metric_learning.average import Average
from metric_learning.checks import UserError
from metric_learning.config import ElemOptions
from metric_learning.embedder import arrays_of
from metric_learning.files import read_tensors
from metric_learning.stages.parts import averaged as averaged_of

pytestmark = pytest.mark.filterwarnings("ignore:When training")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def test_it_is_the_formula():
    net = new_embedder()
    average, expected = Average(net, 0.5), {n: v.astype(np.float64) for n, v in arrays_of(net).items()}
    for t in range(1, 9):
        for value in net.state_dict().values():
            value.set_value(value + paddle.randn(value.shape))
        average.update()
        decay = min(0.5, (1 + t) / (10 + t))
        expected = {n: decay * v + (1 - decay) * arrays_of(net)[n] for n, v in expected.items()}
    for n, value in expected.items():
        np.testing.assert_allclose(average.arrays()[n], value, rtol=1e-4, atol=1e-5)


def test_it_stands_in_for_the_weights_and_goes_again():
    net = new_embedder()
    average, before = Average(net, 0.9), arrays_of(net)
    for value in net.state_dict().values():
        value.set_value(value * 2.0 + 1.0)
    now = arrays_of(net)
    with average.in_place():
        equal_arrays(arrays_of(net), before)
    equal_arrays(arrays_of(net), now)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(UserError, match="--ema"):
        Average(new_embedder(), decay)


def averaged(pictures, folder, task="embed") -> Training:
    training = Training(pictures, folder)
    parts = ElemOptions(task=task), training.state.embedder, training.loss
    training.state.average = Average(averaged_of(*parts), 0.8)
    return training


def test_the_average_is_what_is_kept_and_judged(pictures, tmp_path):
    training = averaged(pictures, tmp_path)
    judged = []

    def judge():
        judged.append(arrays_of(training.state.embedder))
        return {"score": float(len(judged))}

    training.judge = judge
    training.go(4, test=4)
    best = read_tensors(training.run.best)[0]
    equal_arrays(best, judged[-1])
    equal_arrays(best, training.state.average.arrays())
    assert not np.array_equal(best["neck.0.weight"], arrays_of(training.state.embedder)["neck.0.weight"])


def test_with_classes_their_centres_are_averaged_too(pictures, tmp_path):
    training, found = averaged(pictures, tmp_path, "classify"), []

    def judge():
        found.append((arrays_of(training.state.embedder), arrays_of(training.loss.centers)))
        return {"score": float(len(found))}

    training.judge = judge
    training.go(4, test=4)
    expected = training.state.average.arrays()
    for part, arrays in zip(("embedder", "centers"), found[-1], strict=True):
        equal_arrays(arrays, {n.removeprefix(f"{part}."): v for n, v in expected.items() if n.startswith(f"{part}.")})
    assert not np.array_equal(expected["centers.weight"], training.loss.centers.weight.numpy())


@pytest.mark.parametrize("task", ["embed", "classify"])
def test_four_steps_and_four_more_are_eight(pictures, tmp_path, task):
    averaged(pictures, tmp_path / "a", task).go(4)
    again = averaged(pictures, tmp_path / "b", task)
    again.state.restore(
        tmp_path / "a" / sorted(p.name for p in (tmp_path / "a").iterdir())[0] / "checkpoints" / "latest.safetensors"
    )
    again.go(8)
    whole = averaged(pictures, tmp_path / "c", task).go(8)
    equal_arrays(read_tensors(again.run.latest)[0], read_tensors(whole.run.latest)[0])


def elem(folder: str, *typed: str) -> Path:
    said = run("train_elem", f"--model_save_dir={folder}", *typed)
    assert said.status == 0, said.err
    (config,) = Path(folder).glob("*/config.json")
    return config.parent


@pytest.mark.slow
def test_a_resumed_run_of_the_script_has_its_average_again(pictures, tmp_path, monkeypatch):
    """And a new one begins at the weights that it starts from, not at random ones."""
    monkeypatch.chdir(tmp_path)
    data = Path(pictures.paths[0]).parents[1]
    how = [f"--data_dir={data}", "--test_classes=1", "--val_classes=0", "--ema=0.9", "--onednn=False", "--keep=0"]
    first = elem("a", *how, "--total_iter_num=4", "--lr=0.05")
    half = elem("b", *how, "--total_iter_num=2", "--lr=0.05")
    elem("b", f"--checkpoint={half}", "--total_iter_num=4")
    equal_arrays(*(read_tensors(folder / "checkpoints" / "latest.safetensors")[0] for folder in (first, half)))
    again = elem("c", *how, "--total_iter_num=1", "--lr=1e-9", f"--pretrained_model={first}")
    before, after = (read_tensors(folder / "best.safetensors")[0] for folder in (first, again))
    np.testing.assert_allclose(after["neck.0.weight"], before["neck.0.weight"], atol=1e-6)
