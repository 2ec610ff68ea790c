"""Run folders, and checkpoints that go on to the same last bit."""

import itertools
import json
import os
import time
from pathlib import Path

import numpy as np
import paddle
import pytest
from small_runs import Training, equal_arrays, images, new_embedder, write_pictures

from metric_learning import checkpoint
from metric_learning.checkpoint import State
from metric_learning.checks import UserError
from metric_learning.engine import Predictor
from metric_learning.files import read_tensors, write_tensors
from metric_learning.optimizer import Optimizer
from metric_learning.runs import Run, checkpoint_to_resume, new_run, newest_run, run_of, weights_file
from metric_learning.runtime import onednn_works

pytestmark = pytest.mark.filterwarnings("ignore:When training")


def fake_run(folder: Path, *files: str, started: float = 0.0) -> Run:
    run = Run(folder)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    os.utime(folder / "config.json", (started, started))
    for name in files:
        (folder / name).write_bytes(b"")
    return run


LATEST = "checkpoints/latest.safetensors"


# ---- folders


def test_two_runs_of_one_second_get_two_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "20260131-120000")
    runs = [new_run(str(tmp_path / "new"), "train_elem", "softmax", {"lr": 0.5}) for _ in range(3)]
    names = [run.folder.name for run in runs]
    assert names == [f"elem-softmax-20260131-120000{end}" for end in ("", "-1", "-2")]
    assert {"command": "train_elem", "lr": 0.5}.items() <= runs[0].config().items()
    assert runs[0].classes() == {} and runs[0].steps() == []


def test_a_place_where_no_run_can_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^Can't make a run in .*file.*--model_save_dir\.$"):
        new_run(str(tmp_path / "file"), "train_elem", "softmax", {})


def test_the_newest_run_is_the_one_started_last_that_has_weights(tmp_path):
    assert newest_run(str(tmp_path)) is None and newest_run(str(tmp_path / "none")) is None
    fake_run(tmp_path / "elem-a-2", "best.safetensors", started=20)
    fake_run(tmp_path / "elem-b-1", LATEST, started=30)
    fake_run(tmp_path / "pair-a-1", "best.safetensors", started=40)
    fake_run(tmp_path / "pair-b-9", started=50)
    (tmp_path / "no run").mkdir()
    newest = {stage: newest_run(str(tmp_path), stage) for stage in (None, "elem", "pair", "other")}
    names = {stage: run.folder.name if run else None for stage, run in newest.items()}
    assert names == {None: "elem-b-1", "elem": "elem-b-1", "pair": "pair-a-1", "other": None}


def test_the_run_of_a_folder_or_of_a_file_in_it(tmp_path):
    run = fake_run(tmp_path / "run", "best.safetensors", LATEST)
    for path in (run.folder, run.best, run.latest, run.latest.parent):
        assert run_of(path) == run
    (tmp_path / "x.safetensors").write_bytes(b"")
    assert run_of(tmp_path / "x.safetensors") is None and run_of(tmp_path / "none") is None


def test_weights_that_a_typed_path_means(tmp_path):
    run = fake_run(tmp_path / "run", LATEST)
    assert weights_file(run.folder) == run.latest
    run.best.write_bytes(b"")
    assert weights_file(run.folder) == run.best
    assert weights_file(run.latest) == run.latest
    for name in ("a.safetensors", "b.pdparams"):
        (tmp_path / name).write_bytes(b"")
        assert weights_file(tmp_path / name) == weights_file(tmp_path / Path(name).stem) == tmp_path / name
    with pytest.raises(UserError, match=r"^There are no weights in .*checkpoints/latest\.safetensors\.$"):
        weights_file(tmp_path)
    with pytest.raises(UserError, match=r"^There are no weights at .*none: no such file or run\.$"):
        weights_file(tmp_path / "none")


def test_what_a_typed_checkpoint_means(tmp_path):
    run = fake_run(tmp_path / "run")
    assert checkpoint_to_resume(str(run.folder)) == (run, None)
    run.latest.write_bytes(b"")
    step = run.folder / "checkpoints" / "step-00000004.safetensors"
    step.write_bytes(b"")
    assert checkpoint_to_resume(str(run.folder)) == (run, run.latest)
    assert checkpoint_to_resume(str(step)) == (run, step)
    missing = (tmp_path / "none", step.with_name("step-00000099.safetensors"), run.folder / "no such thing")
    for path in (*missing, tmp_path):
        with pytest.raises(UserError, match=r"^There is no run at .*--model_save_dir"):
            checkpoint_to_resume(str(path))


def test_a_config_that_is_none(tmp_path):
    run = fake_run(tmp_path / "run")
    for content in ("[]", "{", ""):
        (run.folder / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"config\.json"):
            run.config()


# ---- one checkpoint


def small_state(loss=None, seed=0, kind="momentum") -> State:
    embedder = new_embedder(seed)
    loss = loss or paddle.nn.Linear(8, 2)
    optimizer = Optimizer(kind, embedder, loss)
    optimizer.set_lr(0.05)
    return State(embedder, loss, optimizer)


def step(state: State, seed: int = 0) -> None:
    state.embedder.train()
    state.loss(state.embedder(paddle.to_tensor(images(4, seed=seed)))).square().mean().backward()
    state.update()


def everything(state: State, folder: Path) -> dict[str, np.ndarray]:
    state.save(Run(folder), keep=0)
    return read_tensors(Run(folder).latest)[0]


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_a_checkpoint_holds_and_restores_everything(tmp_path, kind):
    one = small_state(kind=kind)
    step(one)
    one.best = [0.5, 0.25]
    saved = everything(one, tmp_path / "a")
    kinds = {name.split(".")[-1] for name in saved if name.startswith("optimizer.")}
    assert len(kinds) == {"momentum": 1, "adam": 4}[kind], kinds
    places = {name.split(".")[1] for name in saved if name.startswith("optimizer.")}
    assert len(places) == len(one.optimizer.main._parameter_list)
    new_embedder(5)  # moves the counters behind Paddle's automatic names
    other = small_state(seed=1, kind=kind)
    other.restore(Run(tmp_path / "a").latest)
    assert (other.step, other.best) == (1, [0.5, 0.25])
    for state in (one, other):
        step(state, 1)
    equal_arrays(everything(other, tmp_path / "b"), everything(one, tmp_path / "a"))


def test_a_state_may_be_restored_over_one_that_has_trained(tmp_path):
    one = small_state()
    step(one)
    saved = everything(one, tmp_path / "a")
    step(one, 1)
    expected = everything(one, tmp_path / "b")
    one.restore(tmp_path / "a" / LATEST)
    equal_arrays(everything(one, tmp_path / "c"), saved)
    step(one, 1)
    equal_arrays(everything(one, tmp_path / "d"), expected)


@pytest.mark.parametrize("keep", [0, 1, 2, 9])
def test_the_oldest_checkpoints_go_and_latest_is_the_newest(tmp_path, keep):
    state, run = small_state(), Run(tmp_path)
    for number in (2, 10, 100):
        state.step = number
        state.save(run, keep)
        assert read_tensors(run.latest)[1]["state"]["step"] == number
    kept = [2, 10, 100][-keep:] if keep else [2, 10, 100]
    assert [path.name for path in run.steps()] == [f"step-{number:08d}.safetensors" for number in kept]
    assert sorted(os.listdir(run.latest.parent)) == sorted(["latest.safetensors", *(p.name for p in run.steps())])


@pytest.mark.parametrize("call", ["replace", "link", "fsync", "unlink"])
def test_latest_is_whole_whenever_saving_stops(tmp_path, monkeypatch, call):
    """Killed at each call that saving makes of the system: what stays is the old checkpoint or the new one, whole."""
    state, run = small_state(), Run(tmp_path)
    state.step = 4
    state.save(run, 1)
    whole = read_tensors(run.latest)[0]
    state.step = 8
    plain = getattr(os, call)
    for fatal in itertools.count():
        calls = itertools.count()

        def killed(*arguments, calls=calls, fatal=fatal, **named):
            if next(calls) == fatal:
                raise SystemExit
            return plain(*arguments, **named)

        monkeypatch.setattr(os, call, killed)
        try:
            state.save(run, 1)
        except SystemExit:
            monkeypatch.undo()
            arrays, metadata = read_tensors(run.latest)
            assert metadata["state"]["step"] in (4, 8) and arrays.keys() == whole.keys()
            assert run.steps()
            continue
        monkeypatch.undo()
        break
    assert next(calls) >= 1 and read_tensors(run.latest)[1]["state"]["step"] == 8


def test_what_a_killed_process_left_is_cleared_and_harms_nothing(tmp_path):
    state, run = small_state(), Run(tmp_path)
    state.step = 4
    state.save(run, 0)
    four = run.steps()[0].read_bytes()
    # A process of the same number died between the link and the renaming.
    os.link(run.steps()[0], run.latest.with_name(f".latest.safetensors.{os.getpid()}.part"))
    run.latest.with_name(".step-00000006.safetensors.0.part").write_bytes(b"half")
    state.step = 8
    state.save(run, 0)
    assert run.steps()[0].read_bytes() == four
    assert not list(run.latest.parent.glob(".*"))


def test_a_file_system_without_links_gets_a_copy(tmp_path, monkeypatch):
    def none(*_):
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", none)
    state, run = small_state(), Run(tmp_path)
    state.save(run, 1)
    equal_arrays(read_tensors(run.latest)[0], read_tensors(run.steps()[0])[0])


def test_a_checkpoint_that_is_not_finite_is_not_written(tmp_path):
    state, run = small_state(), Run(tmp_path)
    state.save(run, 0)
    state.loss.bias.set_value(paddle.to_tensor([np.nan, 0.0]))
    state.step = 4
    with pytest.raises(UserError, match=r"^loss\.bias is no longer finite, so .*step-00000004"):
        state.save(run, 0)
    assert len(run.steps()) == 1 and read_tensors(run.latest)[1]["state"]["step"] == 0


def test_a_damaged_checkpoint_is_refused_and_the_one_before_named(tmp_path):
    state, run = small_state(), Run(tmp_path)
    for number in (4, 8):
        state.step = number
        state.save(run, 0)
    four, eight = run.steps()
    data, weights = eight.read_bytes(), state.embedder.arrays()
    state.step = 9
    arrays, about = read_tensors(eight)
    arrays["embedder.neck.0.bias"] = np.full(8, np.nan, np.float32)
    write_tensors(tmp_path / "nan.safetensors", arrays, about)
    nan = (tmp_path / "nan.safetensors").read_bytes()
    for damaged in (data[:-1], data[: len(data) // 2], b"", data[:-1] + bytes([data[-1] ^ 4]), nan):
        eight.write_bytes(damaged)
        for path in (run.latest, eight):
            with pytest.raises(UserError, match=rf"^[^\n]*Go on from the one before: --checkpoint={four}$"):
                state.restore(path)
    assert state.step == 9
    equal_arrays(state.embedder.arrays(), weights)
    state.restore(four)
    assert state.step == 4
    four.write_bytes(b"")
    with pytest.raises(UserError, match=r"^[^\n]*0004\.safetensors: [^\n]*\.$"):
        state.restore(four)


def test_weights_without_a_state_are_refused_in_one_line(tmp_path):
    state = small_state()
    write_tensors(tmp_path / "a.safetensors", state.embedder.arrays(), {"embedder": state.embedder.spec.to_dict()})
    with pytest.raises(UserError, match=r"holds weights but no training state\. .*--pretrained_model"):
        state.restore(tmp_path / "a.safetensors")
    saved = everything(state, tmp_path / "run")
    with pytest.raises(UserError, match=r"loss.*|weights of another"):
        small_state(paddle.nn.Linear(8, 3)).restore(tmp_path / "run" / LATEST)
    metadata = read_tensors(tmp_path / "run" / LATEST)[1]
    for damaged in ({"step": 1}, {"best": []}, [], "x"):
        write_tensors(tmp_path / "b.safetensors", saved, metadata | {"state": damaged})
        with pytest.raises(UserError) as caught:
            state.restore(tmp_path / "b.safetensors")
        assert "\n" not in str(caught.value)


def test_an_optimizer_of_another_run_is_refused(tmp_path):
    one = small_state()
    step(one)
    saved = everything(one, tmp_path)
    metadata = read_tensors(tmp_path / LATEST)[1]
    write_tensors(tmp_path / "b.safetensors", saved | {"optimizer.999.velocity_0": np.ones(3, np.float32)}, metadata)
    with pytest.raises(UserError) as caught:
        small_state().restore(tmp_path / "b.safetensors")
    assert "\n" not in str(caught.value)


# ---- 8 steps = 4 + restore + 4


CASES = [
    {"loss": "softmax", "optimizer": "momentum", "clip": 0.5, "onednn": True, "workers": 3},
    {"loss": "triplet", "optimizer": "adam", "clip": 0.0, "onednn": False, "workers": 1},
    {"loss": "arcmargin", "optimizer": "momentum", "clip": 0.0, "onednn": False, "workers": 0},
]
ALL = [
    {"loss": loss, "optimizer": optimizer, "clip": clip, "onednn": onednn, "workers": workers}
    for loss in ("arcmargin", "eml")
    for optimizer in ("momentum", "adam")
    for clip in (0.0, 0.5)
    for onednn in (False, True)
    for workers in (0, 1, 3)
]


def eight_is_four_and_four(folder: Path, evaluate: bool, **case) -> None:
    pictures = write_pictures(folder / "pictures")

    def training(name: str, **changed) -> Training:
        made = Training(pictures, folder / name, **{**case, **changed})
        if evaluate:

            def judge():
                embedder = made.state.embedder
                found = Predictor(embedder, (3, 32, 32), "float32")(images(4))
                return {"score": float(np.abs(found).mean())}

            made.judge = judge
        return made

    whole = training("whole").go(8)
    first = training("parts").go(4)
    new_embedder(7)  # another network in the process moves the counters of Paddle's automatic names
    second = training("parts", workers=2)
    second.run = first.run
    second.state.restore(first.run.latest)
    assert second.state.step == 4
    second.go(8)
    for name in ("checkpoints/step-00000004.safetensors", LATEST, "best.safetensors"):
        expected, about = read_tensors(whole.run.folder / name)
        found, same = read_tensors(second.run.folder / name)
        equal_arrays(expected, found)
        assert about == same
    assert not np.array_equal(
        read_tensors(whole.run.steps()[0])[0]["embedder.neck.0.weight"], whole.state.embedder.arrays()["neck.0.weight"]
    )


@pytest.mark.parametrize("number", range(len(CASES)))
def test_eight_steps_are_four_and_four(tmp_path, number):
    if CASES[number]["onednn"] and not onednn_works():
        pytest.skip("this build trains through eager convolutions")
    eight_is_four_and_four(tmp_path, evaluate=number == 0, **CASES[number])


@pytest.mark.slow
@pytest.mark.parametrize("evaluate", [False, True])
@pytest.mark.parametrize("number", range(len(ALL)))
@pytest.mark.sweep
def test_eight_steps_are_four_and_four_in_every_way(tmp_path, number, evaluate):
    if ALL[number]["onednn"] and not onednn_works():
        pytest.skip("this build trains through eager convolutions")
    eight_is_four_and_four(tmp_path, evaluate=evaluate, **ALL[number])


def test_a_checkpoint_can_run_no_code():
    """All that is read back goes through safetensors and JSON."""
    source = Path(checkpoint.__file__).read_text()
    assert "pickle" not in source and "paddle.load" not in source and json.loads("{}") == {}
