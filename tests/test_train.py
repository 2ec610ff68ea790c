"""The training loop: what it logs, keeps, refuses, and how it stops."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import paddle
import pytest
from small_runs import Quiet, Training, equal_arrays, write_pictures

from metric_learning import train
from metric_learning.checks import Terminated, UserError
from metric_learning.data.loader import Batch
from metric_learning.files import read_tensors
from metric_learning.train import Meter, Plan, clock, interrupts

pytestmark = pytest.mark.filterwarnings("ignore:When training")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


# ---- the meter


class Bar:
    def __init__(self) -> None:
        self.postfixes: list[str] = []

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self.postfixes.append(text)


def test_the_meter_averages_since_its_last_line(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(train.time, "perf_counter", lambda: now[0])
    log, bar = Quiet(), Bar()
    meter = Meter(Plan(total=5, display=2, test=9, save=9, keep=0), log)
    for step, loss in enumerate([1.0, 3.0, 5.0, 7.0, 9.0], start=1):
        now[0] += 2.0
        meter.waited += 0.5
        meter.add(step, 6, loss, 0.1 * step, lambda: {"active_share": 0.5}, bar)
    assert [(tag, step) for tag, _, step in log.numbers] == [
        (tag, s) for s in (2, 4, 5) for tag in ("train", "train_speed")
    ]
    trained, speeds = ([values for tag, values, _ in log.numbers if tag == name] for name in ("train", "train_speed"))
    assert trained[0] == pytest.approx({"lr": 0.2, "loss": 2.0, "active_share": 0.5})
    assert [values["loss"] for values in trained] == [2.0, 6.0, 9.0]
    assert speeds == [pytest.approx({"steps_per_s": 0.5, "pictures_per_s": 3.0, "waiting_for_data": 0.25})] * 3
    assert log.lines[0] == (
        "step 2/5, lr 0.2, loss 2, active_share 0.5, 0.5 steps/s, 3 pictures/s, 25 % waiting for data, 0:06 left"
    )
    assert log.lines[-1].endswith("0:00 left")
    assert bar.postfixes[0] == "loss 1, lr 0.1, waiting 25 %"
    assert bar.postfixes[-1] == "loss 9, lr 0.5, waiting 25 %, active 50 %"


def test_clock():
    assert [clock(seconds) for seconds in (0, 59.4, 59.6, 61, 3725)] == ["0:00", "0:59", "1:00", "1:01", "1:02:05"]


# ---- the loop


def test_the_loop_sets_the_rate_and_the_seed_of_each_step(pictures, tmp_path):
    training = Training(pictures, tmp_path)
    rates, numbers = [], []
    plain = training.loss.forward

    def spy(x, labels):
        rates.append(training.state.optimizer.main.get_lr())
        numbers.append(paddle.rand([1]).item())
        return plain(x, labels)

    training.loss.forward = spy
    training.go(3, rate=lambda step, scores: 0.5 / (step + 1))
    assert rates == pytest.approx([1 / 2, 1 / 4, 1 / 6])
    assert len(set(numbers)) == 3
    again = Training(pictures, tmp_path / "again")
    again.state.step = 1
    again_numbers = []
    plain_again = again.loss.forward

    def spy_again(x, labels):
        again_numbers.append(paddle.rand([1]).item())
        return plain_again(x, labels)

    again.loss.forward = spy_again
    again.go(3)
    assert again_numbers == numbers[1:]


def test_one_step_is_that_of_the_formula(pictures, tmp_path):
    """Momentum with L2 decay: v = g + d w, w -= lr v; the gradients are cleared."""
    training = Training(pictures, tmp_path)
    training.state.embedder.train()
    seen = {}
    plain = training.learn

    def spy(batch: Batch):
        weight = training.state.embedder.neck[0].weight
        value = plain(batch)
        seen.setdefault("all", []).append((weight.numpy().copy(), weight.grad.numpy().copy()))
        return value

    training.learn = spy
    training.go(2, rate=lambda step, scores: 0.25)
    (w0, g0), (w1, g1) = seen["all"]
    v0 = g0 + 1e-3 * w0
    np.testing.assert_allclose(w1, w0 - 0.25 * v0, rtol=1e-4, atol=1e-6)
    v1 = 0.9 * v0 + g1 + 1e-3 * w1
    np.testing.assert_allclose(training.state.embedder.neck[0].weight.numpy(), w1 - 0.25 * v1, rtol=1e-4, atol=1e-6)


def test_a_finished_run_is_not_trained_further(pictures, tmp_path):
    training = Training(pictures, tmp_path).go(2)
    before = training.state.embedder.arrays()
    training.go(2)
    training.go(1)
    equal_arrays(before, training.state.embedder.arrays())


def test_checkpoints_come_at_their_steps_and_at_the_end(pictures, tmp_path):
    training = Training(pictures, tmp_path).go(5, save=2, test=9)
    assert [path.stem for path in training.run.steps()] == [f"step-{step:08d}" for step in (2, 4, 5)]


def test_the_best_weights_are_those_of_the_best_score(pictures, tmp_path):
    """By the first score, then the next; a tie keeps the earlier; the untrained network takes part."""
    scores = iter([(0.2, 0.5), (0.4, 0.1), (0.4, 0.1), (0.4, 0.2), (0.3, 0.9)])
    training = Training(pictures, tmp_path, evaluate=lambda: dict(zip(("first", "next"), next(scores), strict=True)))
    training.go(4, test=1)
    arrays, metadata = read_tensors(training.run.best)
    assert metadata["about"] == {"step": 3, "val": {"first": 0.4, "next": 0.2}}
    assert training.state.best == [0.4, 0.2]
    third = read_tensors(Training(pictures, tmp_path / "b").go(3, save=3).run.latest)[0]
    equal_arrays(
        arrays, {name.removeprefix("embedder."): v for name, v in third.items() if name.startswith("embedder.")}
    )
    said = [line for line in training.log.lines if "first" in line]
    assert [line.startswith(f"step {step}: ") for step, line in enumerate(said)] == [True] * 5
    assert ["best so far" in line for line in said] == [True, True, False, True, False]
    assert said[1] == "step 1: first 40.00 %, next 10.00 % (best so far)"


def test_without_a_judge_the_newest_weights_are_kept(pictures, tmp_path):
    training = Training(pictures, tmp_path).go(3, test=2)
    arrays, metadata = read_tensors(training.run.best)
    assert metadata["about"] == {"step": 3}
    equal_arrays(arrays, training.state.embedder.arrays())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_names_its_pictures_and_keeps_what_was(pictures, tmp_path, bad):
    training = Training(pictures, tmp_path)
    plain, seen = training.learn, []

    def spoilt(batch: Batch):
        seen.append(batch)
        return plain(batch) * (bad if training.state.step == 5 else 1.0)

    training.learn = spoilt
    with pytest.raises(UserError) as caught:
        training.go(8, save=4, test=4)
    said = str(caught.value)
    assert "\n" not in said and "at step 5" in said and str(bad) in said and "--lr" in said
    assert all(path in said for path in seen[-1].paths[:4]) and said.endswith(", ....")
    arrays, metadata = read_tensors(training.run.latest)
    assert metadata["state"]["step"] == 4 and all(np.isfinite(value).all() for value in arrays.values())
    assert read_tensors(training.run.best)[1]["about"]["step"] == 4


@pytest.mark.parametrize("judge", [True, False])
def test_weights_that_are_not_finite_are_never_kept(pictures, tmp_path, judge):
    """A gradient may be infinite while the loss is not; nothing would show it until the next step."""
    training = Training(pictures, tmp_path, evaluate=(lambda: {"score": 1.0 + training.state.step}) if judge else None)
    plain = training.learn

    def spoilt(batch: Batch):
        value = plain(batch)
        if training.state.step == 3:
            weight = training.state.embedder.neck[0].weight
            (weight * 0.0).sum().sqrt().backward()  # value 0, gradient infinite times 0
        return value

    training.learn = spoilt
    with pytest.raises(UserError, match="no longer finite"):
        training.go(8, save=2, test=2)
    for path in (training.run.best, training.run.latest):
        arrays, _ = read_tensors(path)
        assert all(np.isfinite(value).all() for value in arrays.values())
    assert read_tensors(training.run.latest)[1]["state"]["step"] == 2


# ---- stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_step_saves_and_says_how_to_go_on(pictures, tmp_path, number, capfd):
    training = Training(pictures, tmp_path)
    plain = training.learn

    def kill(batch: Batch):
        if training.state.step == 2:
            os.kill(os.getpid(), number)
        return plain(batch)

    training.learn = kill
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as caught:
        training.go(8, save=100, test=100)
    assert caught.type is {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}[number]
    assert signal.getsignal(number) is before
    assert str(caught.value) == f"Step 3 is saved; go on with --checkpoint={training.run.folder}"
    assert "Stopping after this step; once more to stop at once." in capfd.readouterr().err
    assert read_tensors(training.run.latest)[1]["state"]["step"] == 3
    # What the message says is so.
    rest = Training(pictures, tmp_path / "rest")
    rest.state.restore(training.run.latest)
    rest.go(8)
    whole = Training(pictures, tmp_path / "whole").go(8)
    equal_arrays(read_tensors(rest.run.latest)[0], read_tensors(whole.run.latest)[0])


def test_the_second_signal_stops_at_once(pictures, tmp_path):
    training = Training(pictures, tmp_path)

    def kill(batch: Batch):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    training.learn = kill
    with pytest.raises(KeyboardInterrupt) as caught:
        training.go(8)
    assert str(caught.value) == "" and training.state.step == 0 and caught.type is Terminated


def test_a_signal_between_the_questions_is_not_lost(pictures, tmp_path, monkeypatch):
    """What is said to be saved is saved, whenever the signal comes."""
    for moment in range(1, 5):
        training = Training(pictures, tmp_path / str(moment))
        asked = []

        class Late:
            def __call__(self, asked=asked, moment=moment) -> bool:
                asked.append(1)
                return len(asked) >= moment

        class Marks:
            def __enter__(self):
                return Late()

            def __exit__(self, *_):
                return None

        monkeypatch.setattr(train, "interrupts", Marks)
        with pytest.raises(KeyboardInterrupt) as caught:
            training.go(8, save=100, test=100)
        step = int(re.findall(r"Step (\d+) is saved", str(caught.value))[0])
        assert read_tensors(training.run.latest)[1]["state"]["step"] == step


def test_signals_are_left_alone_outside_the_main_thread():
    before = signal.getsignal(signal.SIGINT)
    found = []

    def inside() -> None:
        with interrupts() as interrupted:
            found.append((interrupted(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [(False, before)]


def test_the_loop_imports_no_loss_and_no_backbone():
    """It knows neither by name."""
    source = Path(train.__file__).read_text()
    assert "metric_learning.losses" not in source and "backbones" not in source


def test_importing_the_package_does_not_import_paddle():
    code = "import sys, metric_learning, metric_learning.config; sys.exit('paddle' in sys.modules)"
    root = Path(train.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
