"""Nothing is lost: faults are injected into real runs of the scripts, and what is left is gone on with and compared.

python benchmarks/faults.py --output=faults.json --page

Writes the JSON, a kind at a time (what it holds already is not done again, so several may work on one file), and with
--page the table of docs/reliability.md. --only=a,b takes some kinds, --count=N so many of each instead of its own
number, --seed other moments. Mounting needs root; without it those kinds are left out, and said.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faults_data as data
import faults_disks as disks
import faults_stops as stops
from faults_runs import Bench, Row
from plan import ROOT, put_between, write
from scale import grid, machine

from metric_learning.stopping import on_sigterm

SIGTERM, SIGINT = stops.signal.SIGTERM, stops.signal.SIGINT
# name -> what injects it, how many times by default
KINDS: dict[str, tuple[Callable[[Bench, int], Row], int]] = {
    "kill": (stops.kill_at_random, 110),
    "kill_saving": (stops.kill_at_a_call, 100),
    "sigterm": (stops.stopped_training(SIGTERM), 6),
    "ctrl_c": (stops.stopped_training(SIGINT), 6),
    "commands": (stops.stopped_commands, 15),
    "two": (stops.two_in_one_folder, 2),
    "damaged": (data.damaged_files, 5000),
    "damaged_run": (data.damaged_runs, 3),
    "vanish": (data.pictures_vanish, 3),
    "reader": (data.reader_fails, 4),
    "nan": (data.planted_nan, 4),
    "nan_file": (data.nan_in_files, 4),
    "clock_between": (data.clock_between, 2),
    "clock_within": (data.clock_within, 3),
    "enospc": (disks.refused_call, 8),
    "disk_full": (disks.full_disk, 6),
    "read_only": (disks.read_only, 5),
    "power": (disks.power_cut, 8),
    "tmp": (disks.full_tmp, 3),
    "visualdl": (disks.no_visualdl, 1),
}
MOUNTED = ("disk_full", "read_only", "power", "tmp", "visualdl")


def table(rows: list[dict[str, object]]) -> str:
    head = ["fault", "how it is injected", "what must hold", "injected", "survived", "lost"]
    names = ("fault", "how", "holds", "injected", "survived", "lost")
    return grid(head, [[f"**{row[name]}**" if name == "lost" else row[name] for name in names] for row in rows])


def injected(bench: Bench, name: str, count: int | None) -> dict[str, object]:
    """The row of a kind, told."""
    begun, (inject, usual) = time.monotonic(), KINDS[name]
    row = inject(bench, count or usual)
    seconds = round(time.monotonic() - begun)
    print(f"{name}: {row.injected} injected, {row.survived} survived, {dict(row.statuses)}, {seconds} s", flush=True)
    print(*row.lost, sep="\n", end="\n" if row.lost else "", flush=True)
    return {"kind": name, "seconds": seconds, **row.as_dict()}


def rows_in(output: Path) -> dict[str, dict[str, object]]:
    """kind -> its row, of those that the file holds."""
    return {row["kind"]: row for row in json.loads(output.read_text())["rows"]} if output.exists() else {}


def run(output: Path, kinds: list[str], count: int | None, seed: int) -> list[dict[str, object]]:
    """The rows of these kinds, in the file as soon as each is known; those that it holds already are not made again."""
    work = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        with on_sigterm():
            bench, mounts = Bench(work, seed), disks.can_mount(work)
            for name in (name for name in kinds if name not in rows_in(output)):
                if name in MOUNTED and not mounts:
                    print(f"{name}: left out, nothing can be mounted here", flush=True)
                    continue
                found = {name: injected(bench, name, count)} | rows_in(output)  # others may have written meanwhile
                rows = [found[name] for name in KINDS if name in found]
                write(output, {"claim": "faults", "machine": machine(1), "seed": seed, "rows": rows})
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return list(rows_in(output).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="JSON file to write, or to go on with")
    parser.add_argument("--page", action="store_true", help="put the table into docs/reliability.md")
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, by comma")
    parser.add_argument("--count", type=int, help="so many of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = run(Path(options.output), options.only.split(","), options.count, options.seed)
    if options.page:
        about, minutes = machine(1), sum(int(str(row["seconds"])) for row in rows) / 60
        made = f"{about['cpu']}, {about['cores']} cores, which had other work too; {minutes:.0f} minutes."
        put_between(ROOT / "docs" / "reliability.md", "faults", f"{table(rows)}\n\n{made}")
    print(json.dumps({row["kind"]: row["lost"] for row in rows}))
    sys.exit(any(row["lost"] for row in rows))


if __name__ == "__main__":
    main()
