"""Starts workers that read damaged files, starts another where one died or hung, and counts what came of each file."""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fuzzing.worker import save

WORKER = Path(__file__).with_name("worker.py")
GOOD = ("read", "refused")


class Outcome(NamedTuple):
    """What came of a file: `read`, `refused`, or what is wrong.

    That is: crashed, died, hung, took long, ran, wrote, grew, was read, said too much.
    """

    reader: str
    number: int
    case: str
    what: str
    seconds: float
    mb: float
    why: str


def outcomes(
    jobs: Sequence[tuple[str, int, int]], seed: int, seconds: float, keep: Path | None = None, slack: int = 1 << 30
) -> Iterator[Outcome]:
    """For each (reader, first, stop) its files of these numbers.

    seconds: how long one may take; it is stopped after thrice that. keep: where files go that something is
    wrong with, as <reader>-<number>. slack: bytes of address space beyond what a reader may take.
    """
    waiting = list(jobs)
    shared = {"seed": seed, "seconds": seconds, "keep": str(keep.absolute()) if keep else "", "slack": slack}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "work"
        while waiting:
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "input").mkdir(parents=True)
            for outcome in _worker({"readers": waiting, "folder": str(folder), **shared}):
                if outcome.what in ("died", "hung") and keep is not None:
                    save(folder / "input", outcome.reader, outcome.number, keep)
                yield outcome
                while waiting[0][0] != outcome.reader:
                    del waiting[0]
                waiting[0] = outcome.reader, outcome.number + 1, waiting[0][2]
            waiting = [job for job in waiting if job[1] < job[2]]


def _worker(job: dict[str, Any]) -> Iterator[Outcome]:
    """What one worker says, until its end or its death."""
    environment = {**os.environ, "PYTHONFAULTHANDLER": "", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    process = subprocess.Popen(
        [sys.executable, str(WORKER), json.dumps(job)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None and process.stderr is not None
    begun: list[Any] = []
    try:
        for line in _lines(process, job["seconds"]):
            found = json.loads(line)
            if isinstance(found, list):
                begun = found
                continue
            yield Outcome(*begun, **found)
            begun = []
        ended = process.wait(5)
        if begun:
            yield Outcome(*begun, "died", 0.0, 0.0, f"exit status {ended}")
        elif ended:
            raise RuntimeError(f"the worker ended with {ended} before a file: {process.stderr.read().decode()[-2000:]}")
    except TimeoutError:
        if not begun:
            raise
        yield Outcome(*begun, "hung", job["seconds"], 0.0, "no answer")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def _lines(process: subprocess.Popen[bytes], seconds: float) -> Iterator[bytes]:
    """The lines of a process; TimeoutError where none comes for so long."""
    assert process.stdout is not None
    number, rest, allowed = process.stdout.fileno(), b"", 3 * seconds + 60
    while True:
        if not select.select([number], [], [], allowed)[0]:
            raise TimeoutError(f"nothing in {allowed:.0f} s")
        block = os.read(number, 1 << 16)
        if not block:
            return
        allowed = 3 * seconds + 10
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
