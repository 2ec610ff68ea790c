"""The only training loop. It is given learn(batch) and evaluate(), and knows no loss and no model by name."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from tqdm import tqdm

from metric_learning import dist
from metric_learning.checkpoint import State
from metric_learning.checks import Terminated, UserError
from metric_learning.data.loader import Batch
from metric_learning.engine import release_programs
from metric_learning.log import RunLog
from metric_learning.runs import Run
from metric_learning.schedule import Schedule, stale
from metric_learning.watch import weights_of

Scores = dict[str, float]
_KINDS = {False: KeyboardInterrupt, True: Terminated}  # of a stop: whether it was asked for by SIGTERM


@dataclass(frozen=True)
class Plan:
    """How long a run is, and what happens how often; all in steps.

    early_stop: it ends after so many evaluations in a row that were no better than the best before; 0: never.
    """

    total: int
    display: int
    test: int
    save: int
    keep: int
    early_stop: int = 0

    def ended(self, state: State) -> bool:
        return state.step >= self.total or 0 < self.early_stop <= stale(state.scores)


def fit(
    state: State,
    run: Run,
    log: RunLog,
    plan: Plan,
    batches: Iterator[Batch],
    learn: Callable[[Batch], float],
    figures: Callable[[], dict[str, float]],
    rate: Schedule,
    evaluate: Callable[[], Scores] | None,
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """Go on from state.step to plan.total. Best weights are kept by the first score, then the next, of `evaluate`.

    learn(batch) gives the loss, and leaves the gradients where the optimizer finds them. keep(about) writes the weights
    as they are; every process calls it. The first score is also what the rate and plan.early_stop go by.
    Checkpoints are written every plan.save steps, at the end, and when the run is interrupted (KeyboardInterrupt, or
    Terminated by SIGTERM).
    A loss or weight that is not finite is a UserError that names the batch; the checkpoints before it stay.
    """
    meter = Meter(plan, log)
    if state.step == 0:
        _judge(state, log, evaluate, keep)
    if plan.ended(state):
        return
    with interrupts() as interrupted, meter.bar(state.step) as bar:
        for batch in _timed(batches, meter):
            lr = rate(state.step, state.scores)
            value = _step(state, batch, learn, lr)
            meter.add(state.step, len(batch.labels) * dist.size(), value, lr, figures, bar)
            bar.update()
            if state.step % plan.test == 0 or state.step == plan.total:
                _judge(state, log, evaluate, keep)
            last = plan.ended(state)
            # Asked once: what is said to be saved is saved, whenever the signal comes, and to whichever process.
            stop = dist.any_of(bool(interrupted()))
            if state.step % plan.save == 0 or last or stop:
                state.save(run, plan.keep)
            if stop:
                kind = _KINDS[dist.any_of(interrupted() == signal.SIGTERM)]
                raise kind(f"Step {state.step} is saved; go on with --checkpoint={run.folder}")
            if last:
                break
    if state.step < plan.total:
        log.say(f"Stopped at step {state.step}: {stale(state.scores)} evaluations without a better score.")


def _step(state: State, batch: Batch, learn: Callable[[Batch], float], lr: float) -> float:
    """One update; the loss before it."""
    state.optimizer.set_lr(lr)
    dist.meet()
    value = learn(batch)
    if not math.isfinite(value):
        raise UserError(
            f"The loss is {value} at step {state.step}; earlier checkpoints are kept. Lower --lr or set --clip_norm. "
            f"Pictures of the batch: {', '.join(batch.paths[:4])}{', ...' if len(batch.paths) > 4 else ''}."
        )
    state.update()
    return value


def _judge(
    state: State, log: RunLog, evaluate: Callable[[], Scores] | None, keep: Callable[[dict[str, Any]], None]
) -> None:
    """Score the weights as they are now, and keep them if they are the best so far (without a judge: the newest)."""
    about: dict[str, Any] = {"step": state.step}
    release_programs()
    with state.judged():
        log.histograms("weights", weights_of(state.embedder), state.step)
        if evaluate is not None:
            scores = evaluate()
            log.scalars("val", {name.removeprefix("val "): score for name, score in scores.items()}, state.step)
            state.scores.append(next(iter(scores.values())))
            better = not state.best or list(scores.values()) > state.best
            said = ", ".join(f"{name} {100 * score:.2f} %" for name, score in scores.items())
            log.say(f"step {state.step}: {said}{' (best so far)' if better else ''}")
            if not better:
                return
            state.best = list(scores.values())
            about["val"] = scores
        keep(about)


class Meter:
    """What a line of the log says: mean loss, speed and share of waiting since the one before; figures and rate now."""

    def __init__(self, plan: Plan, log: RunLog) -> None:
        self.plan, self.log = plan, log
        self.waited = 0.0
        self.active: float | None = None  # the newest known share of pairs that still teach
        self._reset()

    def _reset(self) -> None:
        self.losses: list[float] = []
        self.pictures, self.waited, self.since = 0, 0.0, time.perf_counter()

    def bar(self, start: int) -> "tqdm[None]":
        """A progress bar with rate and time left; none where nobody watches."""
        hidden = not (sys.stderr.isatty() and dist.is_first())
        return tqdm(total=self.plan.total, initial=start, unit="step", desc="Training", disable=hidden, leave=False)

    def add(
        self,
        step: int,
        pictures: int,
        loss: float,
        lr: float,
        figures: Callable[[], dict[str, float]],
        bar: "tqdm[None]",
    ) -> None:
        self.losses.append(loss)
        self.pictures += pictures
        seconds = max(time.perf_counter() - self.since, 1e-9)
        mean, waiting = sum(self.losses) / len(self.losses), self.waited / seconds
        if step % self.plan.display == 0 or step == self.plan.total:
            shown = {"loss": mean, **figures()}
            self.active = shown.get("active_share")
            self._line(step, lr, shown, seconds)
            self._reset()
        active = "" if self.active is None else f", active {100 * self.active:.0f} %"
        bar.set_postfix_str(f"loss {mean:.4g}, lr {lr:.3g}, waiting {100 * waiting:.0f} %{active}", refresh=False)

    def _line(self, step: int, lr: float, shown: dict[str, float], seconds: float) -> None:
        steps, waiting = len(self.losses), self.waited / seconds
        speed = {"steps_per_s": steps / seconds, "pictures_per_s": self.pictures / seconds, "waiting_for_data": waiting}
        self.log.scalars("train", {"lr": lr, **shown}, step)
        self.log.scalars("train_speed", speed, step)
        said = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
        left = clock((self.plan.total - step) * seconds / steps)
        self.log.say(
            f"step {step}/{self.plan.total}, lr {lr:.3g}, {said}, {steps / seconds:.3g} steps/s, "
            f"{self.pictures / seconds:.0f} pictures/s, {100 * waiting:.0f} % waiting for data, {left} left"
        )


def clock(seconds: float) -> str:
    """3725 -> '1:02:05'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _timed(batches: Iterator[Batch], meter: Meter) -> Iterator[Batch]:
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        meter.waited += time.perf_counter() - start
        if batch is None:
            return
        yield batch


@contextmanager
def interrupts() -> Iterator[Callable[[], int]]:
    """Inside, the first Ctrl-C or SIGTERM is only noted, so that the step can end and be saved; the second stops.

    What is given tells the number of the first, 0 before it.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield lambda: 0
        return
    marked = 0

    def mark(number: int, frame: FrameType | None) -> None:
        nonlocal marked
        if marked:
            raise _KINDS[number == signal.SIGTERM]
        marked = number
        # Not print: the signal may come in the middle of one, and streams can't be entered twice.
        os.write(2, b"\nStopping after this step; once more to stop at once.\n")

    before = {number: signal.signal(number, mark) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.siginterrupt(number, False)  # else a message between processes would be cut off
    try:
        yield lambda: marked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
