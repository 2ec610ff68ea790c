"""Faults of disks: full, read-only, gone with the power; most need root, to mount small file systems."""

import fcntl
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from faults_runs import SAVE, Bench, Row, figures, latest_step, run_in, torn
from faults_stops import SLOW, races

SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2  # ext4: stop at once, and leave the journal as the disk has it


def mount(*typed: Any) -> None:
    subprocess.run(["mount", *map(str, typed)], check=True, capture_output=True)


@contextmanager
def mounted(folder: Path, *typed: Any) -> Iterator[None]:
    mount(*typed, folder)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def can_mount(work: Path) -> bool:
    """Whether small file systems can be mounted here."""
    folder = work / "trial"
    folder.mkdir()
    try:
        with mounted(folder, "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def full_disk(bench: Bench, count: int) -> Row:
    row = Row(
        "disk full",
        "a tmpfs that is too small by a random amount; it is made larger, and the run goes on",
        "one line, status 2, what was saved is whole; the end is that of a run on a large disk",
    )
    needed = sum(path.stat().st_size for path in bench.run.rglob("*") if path.is_file()) // 1024
    for _ in range(count):
        output, log = bench.place("full"), bench.place("log")
        size = bench.chance.randint(8, int(0.9 * needed))
        with mounted(output, "-t", "tmpfs", "-o", f"size={size}k", "tmpfs"):
            status = bench.train(output, log=log).wait()
            why = "" if status == 2 and bench.refused(log) else f"{status}: {bench.said(log, 'err.txt')[-300:]}"
            why = why or torn(output)
            mount("-o", f"remount,size={4 * needed}k", output)
            why = why or bench.finish(output, log)
        row.count(not why, status, why)
    return row


def refused_call(bench: Bench, count: int) -> Row:
    row = Row(
        "no space left (ENOSPC) at one call",
        "planted in a call to fsync, rename, link, unlink or mkdir in the run's folder, any by chance; the run goes on",
        "status 2 in one line, or no harm (a folder that can't be synced); the end is that of a run without the fault",
    )
    for _ in range(count):
        output = bench.place("refused")
        spec = {"place": str(output), "refuse_at": bench.chance.randint(1, bench.calls)}
        status = bench.train(output, spec).wait()
        held = status == 0 or (status == 2 and bench.refused(output))
        why = "" if held else f"{spec['refuse_at']}, {status}: {bench.said(output, 'err.txt')[-300:]}"
        why = why or torn(output) or bench.finish(output)
        row.count(not why, status, why)
    return row


def read_only(bench: Bench, count: int) -> Row:
    row = Row(
        "read-only output",
        "a folder mounted read-only: a new run, a resumed one, eval, infer and a data tool in turn",
        "status 2 in one line; nothing has changed",
    )
    for number in range(count):
        output, log = bench.place("read-only"), bench.place("log")
        shutil.copytree(bench.run, output / bench.run.name)
        before = tree(output)
        mount("--bind", output, output)
        with mounted(output, "-o", "remount,ro,bind"):
            weights, new = f"--pretrained_model={bench.run}", bench.flags(bench.place("none"), model_save_dir=output)
            commands: list[list[Any]] = [
                ["train_elem.py", *new],
                ["train_elem.py", *bench.flags(output, total_iter_num=30)],
                ["eval.py", weights, f"--output={output}/a.json"],
                ["infer.py", weights, f"--output={output}/a.npz"],
                ["-m", "metric_learning.data.prepare", f"--data_dir={races(bench)}", f"--output={output}/list"],
            ]
            status = bench.start(log, *commands[number % 5]).wait()
        told = bench.refused(log) and "Read-only" in bench.said(log, "err.txt")
        why = "" if status == 2 and told else f"{number % 5}, {status}: {bench.said(log, 'err.txt')}"
        row.count(not why and tree(output) == before, status, why or "something was written")
    return row


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def power_cut(bench: Bench, count: int) -> Row:
    row = Row(
        "power cut",
        "an ext4 file system stops at a random moment with all that it has not synced (EXT4_IOC_SHUTDOWN), and is "
        "mounted again; the run goes on",
        "no checkpoint torn, none gone whose step was done; the end is that of a run with power",
    )
    for _ in range(count):
        output, log, image = bench.place("power"), bench.place("log"), bench.work / "image"
        image.write_bytes(b"")
        os.truncate(image, 64 << 20)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        with mounted(output, "-o", "loop", image):
            process = bench.train(output, {"slow": SLOW}, log)
            number = os.open(output, os.O_RDONLY)
            reached = bench.at_step(log, bench.chance.randint(3, 23))
            cut = bench.when(process, reached, lambda n=number: off(n))
            os.close(number)
            told = last_step(bench.said(log))
            process.kill()
            process.wait()
        with mounted(output, "-o", "loop", image):
            saved = (told - 1) // SAVE * SAVE  # the line of a step is printed before its checkpoint is written
            found = latest_step(run_in(output))
            why = torn(output) or (f"step {saved} was saved, and {found} is" if 0 < saved > found else "")
            why = why or bench.finish(output, bench.place("log"))
        if cut:
            row.count(not why, "", why)
    return row


def off(number: int) -> None:
    fcntl.ioctl(number, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))


def last_step(said: str) -> int:
    return max(map(int, re.findall(r"^step (\d+)/", said, re.MULTILINE)), default=0)


def full_tmp(bench: Bench, count: int) -> Row:
    row = Row(
        "TMPDIR full",
        "on a tmpfs of 64 KB with 8 KB left: a training, eval, and eval through the inference engine in turn",
        "the same weights and figures, or status 2 in one line that names TMPDIR",
    )
    for number in range(count):
        output, small = bench.place("tmp"), bench.place("small")
        with mounted(small, "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
            (small / "full").write_bytes(np.zeros(56 << 10, np.uint8).tobytes())
            if number % 3 == 0:
                process = bench.start(output, "train_elem.py", *bench.flags(output), TMPDIR=str(small))
            else:
                precision = "--precision=" + ("bfloat16" if number % 3 == 2 else "float32")
                typed = ["eval.py", f"--pretrained_model={bench.run}", precision, f"--output={output}/a.json"]
                process = bench.start(output, *typed, TMPDIR=str(small))
            status = process.wait()
        named = bench.refused(output) and "TMPDIR" in bench.said(output, "err.txt")
        why = "" if status == 0 or (status == 2 and named) else f"{status}: {bench.said(output, 'err.txt')[-300:]}"
        if not why and status == 0 and number % 3 == 0:
            why = bench.finish(output)
        if not why and status == 0 and number % 3 == 1:
            same = figures(output / "a.json")["retrieval"] == figures(bench.run / "results.json")["retrieval"]
            why = "" if same else "other figures"
        row.count(not why, status, why)
    return row


def no_visualdl(bench: Bench, count: int) -> Row:
    row = Row(
        "VisualDL's folder can't be written",
        "from its first step on a read-only file system is mounted there",
        "the training goes on without its records and ends with the same weights",
    )
    for _ in range(count):
        output = bench.place("visualdl")
        process = bench.train(output, {"slow": 0.1})

        def take_away(output: Path = output) -> None:
            mount("-t", "tmpfs", "-o", "ro,size=4k", "tmpfs", output_of(output))

        taken = bench.when(process, lambda output=output: list(output.glob("*/visualdl")), take_away)
        status = process.wait()
        if taken:
            subprocess.run(["umount", str(output_of(output))], check=True)
        why = "" if status == 0 and taken else f"{status}: {bench.said(output, 'err.txt')[-300:]}"
        row.count(not why and not (why := bench.finish(output)), status, why)
    return row


def output_of(output: Path) -> Path:
    return next(output.glob("*/visualdl"))
