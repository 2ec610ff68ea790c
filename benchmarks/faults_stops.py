"""Faults that stop a process: SIGKILL, SIGTERM, Ctrl-C; and a second process in the folder of a run."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from faults_forks import Forked
from faults_runs import SAVE, Bench, Row, figures, latest_step, run_in, torn

SLOW = 0.03  # seconds more a step, so that moments fall into the training and not only into Paddle's import
KILLED = -signal.SIGKILL


def kill_at_random(bench: Bench, count: int) -> Row:
    """SIGKILL while it starts, some steps later, or as soon as a half-written file is there; then on with the run."""
    row = Row(
        "SIGKILL of a training",
        "at random moments: while it starts, behind steps, while a file is half-written; then again in the resumed run",
        "no checkpoint gone or torn; the end is that of a run which was never killed, bit for bit",
    )

    def strike(output: Path) -> int:
        begun = max(latest_step(run_in(output)), 0)
        size = len(bench.said(output))
        process = bench.train(output, {"slow": SLOW})
        kind = bench.chance.choice(["early", "steps", "steps", "saving"])
        wanted, pause = f"\nstep {begun + bench.chance.randint(1, 5)}/", bench.chance.uniform(0, 3 * SLOW)
        if kind == "early":
            bench.when(process, bench.after(0.0, 0.4), process.kill)
        elif bench.when(process, lambda: wanted in bench.said(output)[size:], lambda: None):
            if kind == "steps":
                time.sleep(pause)
            else:
                bench.when(process, lambda: list(output.glob("*/**/.*.part")), process.kill)
            process.kill()
        return process.wait()

    return chains(bench, count, row, strike)


def kill_at_a_call(bench: Bench, count: int) -> Row:
    """SIGKILL instead of one of the calls that change the disk."""
    row = Row(
        "SIGKILL while saving",
        "instead of a call to fsync, rename, link, unlink or mkdir in the run's folder, any of them by chance",
        "as above",
    )

    def strike(output: Path) -> int:
        spec = {"place": str(output), "kill_at": bench.chance.randint(1, bench.calls // 4)}
        return bench.train(output, spec).wait()

    return chains(bench, count, row, strike)


def chains(bench: Bench, count: int, row: Row, strike: Callable[[Path], int]) -> Row:
    """strike(output) starts the training and kills it, over and over; each run is brought to its end and compared."""
    while row.injected < count:
        output = bench.place("killed")
        kills: list[str] = []
        before = -1
        while len(kills) + row.injected < count:
            status = strike(output)
            if status != KILLED:
                break
            step = latest_step(run_in(output))
            lost = f"step {before} was saved, and {step} is" if step < before else ""
            kills.append(torn(output) or lost)
            before = step
        end = bench.finish(output)
        for why in kills:
            row.count(not (why or end), KILLED, why or end)
        if not kills:
            assert not end, end
    return row


def stopped_training(number: signal.Signals) -> Callable[[Bench, int], Row]:
    """SIGTERM or Ctrl-C at a random moment of a training."""
    status = {signal.SIGTERM: 143, signal.SIGINT: 130}[number]

    def kind(bench: Bench, count: int) -> Row:
        row = Row(
            f"{'SIGTERM' if number == signal.SIGTERM else 'Ctrl-C'} in a training",
            "at random moments; the run goes on afterwards",
            f"status {status}, the step it stopped at is saved; the end is that of a run which was never stopped",
        )
        while row.injected < count:
            output = bench.place("stopped")
            process = bench.train(output, {"slow": SLOW})
            reached = bench.at_step(output, bench.chance.randint(1, 20))
            early = bench.after(0.1, 0.5)
            moment = reached if bench.chance.random() < 0.7 else early
            if not bench.when(process, moment, lambda process=process: process.send_signal(number)):
                continue
            found = process.wait()
            why = "" if found in (status, 0) else f"status {found}"
            said = f"Step {latest_step(run_in(output))} is saved"
            if found == status and run_in(output) and said not in bench.said(output, "err.txt"):
                why = f"not said: {said}" if "Step" in bench.said(output, "err.txt") else why
            why = why or torn(output) or bench.finish(output)
            row.count(not why, found, why)
        return row

    return kind


def races(bench: Bench) -> Path:
    """The pictures as <Race>/<identity>/<picture>."""
    made = bench.work / "races"
    if not made.exists():
        for label, folder in enumerate(sorted(bench.data.iterdir())):
            shutil.copytree(folder, made / "AB"[label % 2] / folder.name)
    return made


def commands(bench: Bench, place: Path) -> list[tuple[str, list[Any], Path]]:
    """Commands that write something in `place`: name, what is typed, and what they write."""
    points = bench.work / "points.csv"
    five = "14,14,26,14,20,20,15,27,25,27"
    points.write_text("".join(f"{path.relative_to(bench.data)},{five}\n" for path in sorted(bench.data.glob("*/*"))))
    run = f"--pretrained_model={bench.run}"
    module = "metric_learning.data"
    return [
        ("eval", ["eval.py", run, f"--output={place}/report.json"], place / "report.json"),
        ("infer", ["infer.py", run, f"--output={place}/embeddings.npz"], place / "embeddings.npz"),
        (
            "prepare",
            ["-m", f"{module}.prepare", f"--data_dir={races(bench)}", f"--output={place}/list"],
            place / "list",
        ),
        (
            "align",
            ["-m", f"{module}.align", f"--data_dir={bench.data}", f"--output={place}/faces", f"--landmarks={points}"],
            place / "faces",
        ),
        (
            "skewed",
            ["-m", f"{module}.skewed", f"--root={place}/skewed", "--train=African:4,Asian:3", "--val=1", "--test=2"],
            place / "skewed",
        ),
    ]


def content(path: Path) -> Any:
    """What a command wrote, to compare: bytes by name; of a report its figures."""
    if path.suffix == ".json":
        return figures(path)
    if path.suffix == ".npz":
        with np.load(path) as found:
            return {name: found[name].tobytes() for name in found}
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def stopped_commands(bench: Bench, count: int) -> Row:
    """SIGTERM, Ctrl-C or SIGKILL in the other commands."""
    row = Row(
        "SIGTERM, Ctrl-C and SIGKILL in eval, infer, prepare, align and skewed",
        "one of the three at a random moment of each in turn, then the command again",
        "status 143, 130 or killed; what is there is whole, nothing half-written is left (SIGKILL: hidden files may "
        "be), and the second time ends as if there had been no first",
    )
    wanted = bench.place("commands")
    whole = {}
    for name, typed, output in commands(bench, wanted):
        assert bench.start(wanted, *typed).wait() == 0, bench.said(wanted, "err.txt")
        whole[name] = content(output)
    while row.injected < count:
        place = bench.place("command")
        name, typed, output = commands(bench, place)[row.injected % 5]
        number = bench.chance.choice([signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
        process = bench.start(place, *typed)
        length = {"eval": (0.1, 0.8), "infer": (0.1, 0.8)}.get(name, (0.02, 0.25))
        if not bench.when(process, bench.after(*length), lambda process=process, n=number: process.send_signal(n)):
            continue
        status = process.wait()
        why = "" if status in ({signal.SIGTERM: 143, signal.SIGINT: 130}.get(number), -number, 0) else f"{status}"
        if number != signal.SIGKILL and (left := [*place.rglob("*.part"), *place.rglob(".*partial*")]):
            why = why or f"left: {left[0].name}"
        if output.exists():
            found = content(output)
            part = isinstance(found, dict) and all(whole[name].get(key) == found[key] for key in found)
            why = why or ("" if part else "half-written")
        why = why or (
            "" if bench.start(place, *typed).wait() in (0, *finished(output, name)) else "not to be done again"
        )
        why = why or ("" if content(output) == whole[name] else "another result")
        row.count(not why, status, f"{name}: {why}")
    return row


def finished(output: Path, name: str) -> tuple[int, ...]:
    """prepare refuses to write its list a second time."""
    return (2,) if name == "prepare" and (output / "faces.csv").exists() else ()


def two_in_one_folder(bench: Bench, count: int) -> Row:
    """A second training of the run that one is training."""
    row = Row(
        "two trainings of one run",
        "the run is gone on with while its first process trains",
        "the second is refused in one line (status 2); the first ends as if it had been alone",
    )
    for _ in range(count):
        output = bench.place("two")
        first = bench.train(output, {"slow": 0.3})
        second: list[Forked] = []
        log = bench.place("second")

        def again(output: Path = output, log: Path = log, second: list[Any] = second) -> None:
            second.append(bench.train(output, log=log))

        bench.when(first, lambda output=output: latest_step(run_in(output)) >= SAVE, again)
        status = second[0].wait() if second else "none"
        alone = "" if first.wait() == 0 else "the first failed"
        why = "" if status == 2 and bench.refused(log) else f"status {status}: {bench.said(log, 'err.txt')[-200:]}"
        why = why or alone or bench.finish(output)
        row.count(not why, status, why)
    return row
