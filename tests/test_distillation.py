"""Learning from a teacher and covering parts, as the two commands do it: gradients, exact resume, generations."""

import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from cli_cases import folders, refused, run
from small_runs import equal_arrays, images, new_embedder

from metric_learning.data.respec import respec
from metric_learning.data.transforms import PictureSpec
from metric_learning.embedder import Embedder, EmbedderSpec
from metric_learning.engine import eager
from metric_learning.files import read_tensors
from metric_learning.stages.teaching import Teacher

pytestmark = pytest.mark.filterwarnings("ignore:When training")
LEAN = ("--val_classes=0", "--test_classes=0", "--lr_strategy=constant", "--lr=0.02", "--save_iter_step=1", "--keep=0")
LEAN += ("--model=MobileFaceNet", "--onednn=False", "--train_batch_size=6", "--precision=float32")
BOTH = ("--occlusion=adversarial", "--color_jitter=0.1")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return folders(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory) -> Path:
    """A run of another size, mean and order of the channels than the students'."""
    place = tmp_path_factory.mktemp("teacher")
    train(
        "train_elem", data, place, "--image_shape=3,40,40", "--color_order=BGR", "--image_mean=0.5,0.5,0.4", "--seed=5"
    )
    return runs(place)[0]


def train(command: str, data: Path, place: Path, *options: object):
    said = run(command, *LEAN, f"--data_dir={data}", f"--model_save_dir={place}", *map(str, options))
    assert said.status == 0, said.out + said.err
    return said


def runs(place: Path) -> list[Path]:
    """The run folders, in the order of their generations."""
    return sorted(
        (path.parent for path in place.glob("*/config.json")), key=lambda folder: config(folder)["generation"]
    )


def config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def same_weights(one: Path, other: Path, name: str = "checkpoints/latest.safetensors") -> None:
    equal_arrays(read_tensors(one / name)[0], read_tensors(other / name)[0])


# ---- the teacher


def taught(picture: PictureSpec, student: PictureSpec, weight: float = 7.0) -> Teacher:
    paddle.seed(3)
    return Teacher(Embedder(EmbedderSpec("ResNet18", 8, picture)), student, weight, "auto")


def test_the_loss_is_that_of_the_eager_teacher_on_its_own_pictures():
    student, own = PictureSpec((3, 32, 32)), PictureSpec((1, 40, 24), (0.3,), (0.5,))
    teacher = taught(own, student)
    batch, s = images(4), images(4, (8,), seed=2)
    t = eager(teacher._predictor.net, respec(batch, student, own))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (t.astype(np.float64), s.astype(np.float64))]
    expected = ((unit[0] - unit[1]) ** 2).sum(axis=1).mean()
    assert teacher.figures == {}
    assert teacher.loss(paddle.to_tensor(s), batch).item() == pytest.approx(7 * expected, rel=1e-4)
    assert teacher.figures["distillation"] == pytest.approx(expected, rel=1e-4)


def test_the_student_learns_and_the_teacher_does_not_move():
    spec = PictureSpec((3, 32, 32))
    teacher, student, batch = taught(spec, spec), new_embedder(), images(6)
    net = teacher._predictor.net
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    optimizer = paddle.optimizer.Momentum(0.01, parameters=student.parameters())
    losses = []
    for _ in range(8):
        loss = teacher.loss(student(paddle.to_tensor(batch)), batch)
        loss.backward()
        grads = {name: p.grad for name, p in student.named_parameters() if not p.stop_gradient}
        assert all(grad is not None and np.abs(grad.numpy()).max() > 0 for grad in grads.values())
        assert all(p.grad is None for p in net.parameters())
        optimizer.step()
        optimizer.clear_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    equal_arrays(before, {name: value.numpy() for name, value in net.state_dict().items()})


# ---- runs


@pytest.mark.parametrize(
    ("command", "onednn"),
    [
        pytest.param("train_elem", False, marks=pytest.mark.slow),
        pytest.param("train_elem", True, marks=pytest.mark.slow),
        pytest.param("train_pair", False, marks=pytest.mark.slow),
    ],
)
@pytest.mark.sweep
def test_eight_steps_are_four_and_four_bit_for_bit(command, onednn, data, teacher, tmp_path):
    kind = ("--occlusion=random", "--pretrained_model=none") if command == "train_pair" else ()
    options = (*BOTH, *kind, f"--onednn={onednn}", f"--teacher={teacher}")
    train(command, data, tmp_path / "whole", *options, "--total_iter_num=8")
    first = train(command, data, tmp_path / "halves", *options, "--total_iter_num=4")
    assert "distillation" in first.out and f"Teacher: Weights: {teacher / 'best.safetensors'}" in first.out
    half = runs(tmp_path / "halves")[0]
    said = run(command, f"--checkpoint={half}", "--total_iter_num=8", small=False)
    assert said.status == 0 and "Resumed at step 4" in said.out, said
    same_weights(runs(tmp_path / "whole")[0], half)


@pytest.mark.slow
def test_both_change_what_is_learnt(data, teacher, tmp_path):
    ends = []
    for number, options in enumerate([(), ("--occlusion=random",), (f"--teacher={teacher}",)]):
        train("train_elem", data, tmp_path / str(number), *options)
        ends.append(read_tensors(runs(tmp_path / str(number))[0] / "best.safetensors")[0]["backbone.conv1.0.weight"])
    assert not np.array_equal(ends[0], ends[1]) and not np.array_equal(ends[0], ends[2])


@pytest.fixture(scope="module")
def lineage(data, teacher, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("lineage")
    said = train("train_elem", data, place, f"--teacher={teacher}", "--generations=2")
    assert "Generation 2 of 2: the student starts from" in said.out
    return place


@pytest.mark.slow
def test_every_generation_is_a_run_from_the_last_one_with_the_same_teacher(lineage, teacher):
    made = runs(lineage)
    assert [config(folder)["generation"] for folder in made] == [1, 2]
    assert {config(folder)["teacher"] for folder in made} == {str(teacher / "best.safetensors")}
    name = "backbone.conv1.0.weight"
    begin = [read_tensors(folder / "checkpoints/step-00000001.safetensors")[0][f"embedder.{name}"] for folder in made]
    for number, (before, after) in enumerate(itertools.pairwise(made), 1):
        assert config(after)["pretrained_model"] == str(before / "best.safetensors")
        end = read_tensors(before / "best.safetensors")[0][name]
        assert np.abs(begin[number] - end).max() < np.abs(begin[number] - begin[0]).max()


@pytest.mark.parametrize("moment", ["behind generation 1", "within generation 2"])
@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_generations_that_are_left(lineage, tmp_path, moment):
    chain = tmp_path / "chain"
    shutil.copytree(lineage, chain)
    for folder in runs(chain):
        text = (folder / "config.json").read_text()
        (folder / "config.json").write_text(text.replace(str(lineage), str(chain)))
    first, second = runs(chain)
    if moment == "within generation 2":
        back_to_step_1(second)
    else:
        shutil.rmtree(second)
    said = run("train_elem", f"--checkpoint={first}", small=False)
    assert said.status == 0, said
    assert ("Resumed at step 1" in said.out) == (moment == "within generation 2")
    for expected, found in zip(runs(lineage), runs(chain), strict=True):
        same_weights(expected, found)
        same_weights(expected, found, "best.safetensors")


def back_to_step_1(folder: Path) -> None:
    """As a run looks that was killed behind its first step."""
    for step in sorted(folder.glob("checkpoints/step-*"))[1:]:
        step.unlink()
    os.remove(folder / "checkpoints" / "latest.safetensors")
    shutil.copy(folder / "checkpoints" / "step-00000001.safetensors", folder / "checkpoints" / "latest.safetensors")


# ---- refusals


@pytest.mark.slow
def test_refusals(data, teacher, tmp_path):
    def no(*options: str, command: str = "train_elem") -> object:
        return run(command, f"--data_dir={data}", f"--model_save_dir={tmp_path}", *options)

    refused(no(f"--teacher={teacher}", "--embedding_size=16"), "embeddings of 8 numbers", "--embedding_size=8")
    refused(no("--teacher=nowhere"), "There are no weights at nowhere")
    (tmp_path / "bare").mkdir()
    np.savez(tmp_path / "bare" / "a.npz", a=np.ones(2))
    refused(no(f"--teacher={tmp_path / 'bare' / 'a.npz'}"), "must end in one of")
    refused(no("--generations=2"), "--generations=2", "--teacher")
    refused(no("--generations=0"), "--generations must be at least 1")
    refused(no("--generation=2", f"--teacher={teacher}"), "--generations")
    refused(no("--distill_weight=2"), "--distill_weight has no meaning without --teacher")
    refused(no(f"--teacher={teacher}", "--distill_weight=-1"), "--distill_weight must be at least 0")
    refused(no("--occlusion=randon"), "Did you mean 'random'?")
    refused(no("--occlusion_rate=0.3"), "--occlusion_rate has no meaning without --occlusion")
    refused(no("--occlusion=random", "--occlusion_rate=2"), "--occlusion_rate must be at least 0 and at most 1")
    refused(no("--occlusion=random", "--occlusion_shapes=left,topp"), "Did you mean 'top'?")
    refused(no("--occlusion=random", "--occlusion_shapes=left,left"), "names a shape twice")
    refused(no("--occlusion=random", "--model=ResNet18"), "is 1x1 at 32x32 pixels", "--image_shape")
    refused(no("--occlusion=adversarial", command="train_pair"), "needs a loss of each picture")
    assert not runs(tmp_path)
