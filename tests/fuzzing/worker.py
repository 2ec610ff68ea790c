"""A process that reads damaged files, one after the other, and says what came of each; `supervisor.py` starts it.

python worker.py JOB, with JOB as `supervisor._worker` makes it. A line of JSON for each file, before it and behind it.
What Python's audit hooks tell of started programs, of connections and of unpickled names ends as "ran"; a file outside
of the folder for inputs as "wrote".
"""

import json
import os
import resource
import shutil
import stat
import sys
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
WATCHED = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "socket.connect")
WATCHED += ("pickle.find_class", "ctypes.dlopen", "webbrowser.open")
LONGEST = 2000  # letters of a refusal
ODD_NAME = "n\nl"  # of a folder; the commands say it on one line


def main() -> None:
    job = json.loads(sys.argv[1])
    said = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from fuzzing.hostile import hostile
    from fuzzing.readers import READERS, TRIALS

    seen: list[str] = []
    known = hostile()
    os.chdir(job["folder"])
    inputs = Path(job["folder"]) / "input"
    for name, first, stop in job["readers"]:
        reader = (READERS | TRIALS)[name]
        if reader.paddle:
            from metric_learning import runtime

            runtime.prepare(threads=1)
        if name in READERS:
            warm(reader, inputs)
        if not seen:
            sys.addaudithook(lambda event, arguments: seen.append(event) if event in WATCHED else None)
            seen.append("watching")
            os.dup2(1, 2)  # what libraries say of broken files
        limit(reader.memory + job["slack"])
        cases = list(known.get(name, {}).items())
        for number in range(first, stop):
            case, make = cases[number] if number < len(cases) else ("", None)
            print(json.dumps([name, number, case]), file=said, flush=True)
            empty(inputs)
            if make is None:
                path = reader.make(Random(f"{name}/{job['seed']}/{number}"), inputs)
            else:
                path = inputs / reader.name
                path.write_bytes(make())
            del seen[1:]
            found = outcome(reader, path, case, seen, job["seconds"])
            if found["what"] not in ("read", "refused") and job["keep"]:
                save(inputs, name, number, Path(job["keep"]))
            for entry in set(os.listdir(".")) - {"input"}:
                shutil.rmtree(entry) if os.path.isdir(entry) else os.unlink(entry)
            print(json.dumps(found), file=said, flush=True)


def warm(reader: Any, inputs: Path) -> None:
    """Import all that the reader needs, by whole files, so that later figures are of the damaged ones."""
    for data in reader.files():
        empty(inputs)
        (inputs / reader.name).write_bytes(data)
        try:
            reader.read(inputs / reader.name)
        except Exception as error:
            if not refusal(error):
                raise


def outcome(reader: Any, path: Path, case: str, seen: list[str], bound: float) -> dict[str, Any]:
    """what: read, refused or else what is wrong; seconds and megabytes that it took; why."""
    before, start = memory(True), time.perf_counter()
    what, why = "read", ""
    try:
        reader.read(path)
    except Exception as error:
        why = f"{type(error).__name__}: {str(error)[:LONGEST]}"
        what = "refused" if refusal(error) else "crashed"
        if what == "crashed":
            why += " at " + " < ".join(
                f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[:-6:-1]
            )
        elif "\n" in str(error).replace(ODD_NAME, "") or len(str(error)) > LONGEST:
            what = "said too much"
        del error
    except BaseException as error:  # a panic of Rust is one
        what, why = "crashed", f"{type(error).__name__}: {str(error)[:LONGEST]}"
    seconds, grown = time.perf_counter() - start, memory(False) - before
    if seen[1:]:
        what, why = "ran", ", ".join(seen[1:])
    elif {entry.name for entry in os.scandir(".")} - {"input"}:
        what, why = "wrote", ", ".join(sorted(os.listdir(".")))
    elif grown > reader.memory:
        what, why = "grew", f"{grown >> 20} MB; {why}"
    elif seconds > bound:
        what, why = "took long", why or "it was read"
    elif case and what == "read" and not case.startswith("read"):
        what = "was read"
    return {"what": what, "seconds": round(seconds, 4), "mb": round(grown / 2**20, 1), "why": why}


def refusal(error: Exception) -> bool:
    from metric_learning.checks import UserError
    from metric_learning.data.pictures import PictureError

    return isinstance(error, UserError | PictureError)


def save(inputs: Path, name: str, number: int, keep: Path) -> None:
    """Copy what was read last to where it can be looked at."""
    target = keep / f"{name.replace(' ', '_').replace('/', '_')}-{number}"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        inputs, target, symlinks=True, ignore=lambda folder, names: [n for n in names if is_pipe(folder, n)]
    )


def is_pipe(folder: str, name: str) -> bool:
    return stat.S_ISFIFO(os.lstat(os.path.join(folder, name)).st_mode)


def empty(folder: Path) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def memory(fresh: bool) -> int:
    """Bytes of memory that the process has (fresh: and forget its peak), or the peak since then; Linux only."""
    if fresh:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    with open("/proc/self/status") as file:
        wanted = "VmRSS:" if fresh else "VmHWM:"
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(wanted))


def limit(more: int) -> None:
    """No more address space than there is now and so much; what asks for more gets a MemoryError."""
    with open("/proc/self/status") as file:
        now = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmSize:"))
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (now + more, hard))


if __name__ == "__main__":
    main()
