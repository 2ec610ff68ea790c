"""Faults of what is read and computed: pictures that go, readers that fail, NaN, damaged files, clocks that jump."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from faults_runs import OPTIONS, Bench, Row, latest_step, run_in, torn, unlike
from faults_stops import SLOW

from metric_learning.checks import UserError
from metric_learning.files import read_tensors, write_tensors


def gone_on_with(bench: Bench, row: Row, output: Path, process: Any, word: str) -> None:
    """Count a training that must end with status 2 in one line that holds `word`, and then goes on to the end."""
    status = process.wait()
    told = bench.refused(output) and word in bench.said(output, "err.txt")
    why = "" if status == 2 and told else f"{status}: {bench.said(output, 'err.txt')[-300:]}"
    row.count(not (why or torn(output)) and not (why := bench.finish(output)), status, why)


def pictures_vanish(bench: Bench, count: int) -> Row:
    row = Row(
        "pictures vanish",
        "all pictures are moved away at a random step, and back for the run to go on",
        "status 2 in one line that names pictures; the end is that of a run that had them all the time",
    )
    while row.injected < count:
        output = bench.place("vanish")
        process = bench.train(output, {"slow": SLOW})
        classes = sorted(bench.data.iterdir())
        away = [(folder, bench.work / folder.name) for folder in classes]

        def move(away: list[tuple[Path, Path]] = away) -> None:
            for here, there in away:
                here.rename(there)

        moved = bench.when(process, bench.at_step(output, bench.chance.randint(1, 15)), move)
        process.wait()
        if moved:
            for here, there in away:
                there.rename(here)
            gone_on_with(bench, row, output, process, "cannot be read")
    return row


def reader_fails(bench: Bench, count: int) -> Row:
    row = Row(
        "a reader fails for the machine's reasons",
        "out of memory or of file handles at a picture by chance, in a loader's thread; the run goes on",
        "status 2 in one line, and no other picture taken instead; the end is that of a run with enough of both",
    )
    for number in range(count):
        output, kind = bench.place("reader"), ("no_memory", "no_files")[number % 2]
        process = bench.train(output, {kind: bench.chance.randint(1, 180)})
        gone_on_with(bench, row, output, process, ("out of memory", "Too many open files")[number % 2])
    return row


def planted_nan(bench: Bench, count: int) -> Row:
    row = Row(
        "NaN in weights or in a batch while training",
        "planted at a random step; the run goes on without it",
        "status 2 in one line, no checkpoint that holds one; the end is that of a run without it",
    )
    for number in range(count):
        output, kind = bench.place("nan"), ("nan_weights", "nan_batch")[number % 2]
        process = bench.train(output, {kind: bench.chance.randint(1, 22)})
        gone_on_with(bench, row, output, process, "")
    return row


def nan_in_files(bench: Bench, count: int) -> Row:
    row = Row(
        "NaN in a file of weights",
        "written into a checkpoint that a run goes on from, or into the weights that eval measures, in turn",
        "status 2 in one line",
    )
    for number in range(count):
        output, resumed = bench.place("nan"), number % 2 == 0
        run = copied(bench, output)
        file = run / ("checkpoints/latest.safetensors" if resumed else "best.safetensors")
        arrays, about = read_tensors(file)
        floats = [name for name, value in arrays.items() if value.dtype == np.float32 and value.size]
        name = bench.chance.choice([name for name in floats if resumed or not name.startswith("classifier")])
        arrays[name] = arrays[name].copy()
        arrays[name].reshape(-1)[0] = bench.chance.choice([np.nan, np.inf])
        write_tensors(file, arrays, about)
        typed = bench.flags(output, total_iter_num=30) if resumed else [f"--pretrained_model={run}"]
        status = bench.start(output, "train_elem.py" if resumed else "eval.py", *typed).wait()
        told = bench.refused(output) and "finite" in bench.said(output, "err.txt")
        row.count(status == 2 and told, status, f"{name}: {bench.said(output, 'err.txt')[-300:]}")
    return row


def copied(bench: Bench, output: Path) -> Path:
    run = output / bench.run.name
    shutil.copytree(bench.run, run)
    latest = (
        run / "checkpoints" / "latest.safetensors"
    )  # a second name for the newest, which copying made a second file
    latest.unlink()
    latest.hardlink_to(max((run / "checkpoints").glob("step-*")))
    return run


def damage(bench: Bench, data: bytes) -> bytes:
    """Cut off somewhere, or with a bit turned."""
    place = bench.chance.randrange(len(data))
    if bench.chance.random() < 0.5:
        return data[:place]
    return data[:place] + bytes([data[place] ^ 1 << bench.chance.randrange(8)]) + data[place + 1 :]


def damaged_files(bench: Bench, count: int) -> Row:
    row = Row(
        "a checkpoint cut off, or with one bit turned",
        "at a random place, and read",
        "refused, or read as the same arrays and metadata",
    )
    file = bench.run / "checkpoints" / "latest.safetensors"
    data, (arrays, about), other = file.read_bytes(), read_tensors(file), bench.place("damaged") / "a.safetensors"
    for _ in range(count):
        other.write_bytes(damage(bench, data))
        try:
            found, told = read_tensors(other)
        except UserError:
            row.count(True, "refused")
            continue
        same = found.keys() == arrays.keys() and all(found[name].tobytes() == arrays[name].tobytes() for name in arrays)
        row.count(same and all(told.get(name) == value for name, value in about.items()), "the same")
    return row


def damaged_runs(bench: Bench, count: int) -> Row:
    row = Row(
        "the newest checkpoint of a run damaged",
        "as above, and the run is gone on with; then from the checkpoint that it names",
        "refused in one line that names the checkpoint before it, from which the end is the same",
    )
    while row.injected < count:
        output = bench.place("damaged")
        run = copied(bench, output)
        newest = max((run / "checkpoints").glob("step-*"))
        newest.write_bytes(damage(bench, newest.read_bytes()))
        if not torn(output):
            continue
        status = bench.train(output).wait()
        said = bench.said(output, "err.txt")
        before = sorted((run / "checkpoints").glob("step-*"))[-2]
        why = "" if status == 2 and bench.refused(output) and f"--checkpoint={before}" in said else f"{status}: {said}"
        why = why or ("" if bench.train(output, checkpoint=before).wait() == 0 else "could not go on")
        row.count(not why and not (why := unlike(bench.run, run)), status, why)
    return row


def clock_between(bench: Bench, count: int) -> Row:
    row = Row(
        "clock set between two runs",
        "back by a day, or forth by a year and back again, in turn; then eval is to take the newest run",
        "it takes the run that was started last",
    )
    short = {**OPTIONS, "total_iter_num": 2, "data_dir": bench.data}
    for number in range(count):
        output = bench.place("clock")
        first, second = ((0, -86400), (31536000, 0))[number % 2]
        for seconds in (first, second):
            before = set(output.glob("elem-*"))
            typed = [f"--{name}={value}" for name, value in (short | {"model_save_dir": output}).items()]
            assert bench.start(output, "train_elem.py", *typed, shim={"clock": seconds}).wait() == 0
        (last,) = set(output.glob("elem-*")) - before
        status = bench.start(output, "eval.py", f"--model_save_dir={output}", f"--output={output}/a.json").wait()
        row.count(status == 0 and f"Weights: {last}/" in bench.said(output), status)
    return row


def clock_within(bench: Bench, count: int) -> Row:
    row = Row(
        "clock set while training",
        "by a random number of days, back or forth, at a random step; SIGKILL some steps later, and the run goes on",
        "the end is that of a run with a good clock",
    )
    while row.injected < count:
        output = bench.place("clock")
        days, step = bench.chance.choice([-400, -1, 1, 400]), bench.chance.randint(1, 12)
        process = bench.train(output, {"clock": 86400 * days, "from": step, "slow": SLOW})
        bench.when(process, bench.at_step(output, step + 6), process.kill)
        status = process.wait()
        why = "" if latest_step(run_in(output)) >= step else "nothing was saved"
        row.count(not (why := why or torn(output) or bench.finish(output)), status, why)
    return row
