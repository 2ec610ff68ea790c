"""Claim: no file of a stranger gets more from a reader than a refusal: none runs code, hangs or fills the memory.

python benchmarks/fuzz.py [--inputs 3600] [--seed 0] [--only NAME ...] [--update docs/reliability.md]

Each reader gets so many files: first those made to do harm (tests/fuzzing/hostile.py), then whole ones that are
damaged, in bytes, lines, cells and parts of the format (mutations.py), the same for the same seed. A process of its
own reads them, with a limit to its memory; where it dies another goes on. Files that something is wrong with go to
--keep. --first 123 --inputs 1 --only JPEG reads one of them again. Linux only.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from plan import put_between

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fuzzing.readers import READERS  # noqa: E402
from fuzzing.supervisor import GOOD, Outcome, outcomes  # noqa: E402

SECONDS = 60.0  # on a busy machine; the largest pictures are decoded in eight ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=3600, help="files for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--only", nargs="+", choices=list(READERS), default=list(READERS))
    parser.add_argument("--keep", type=Path, default=Path("fuzz_found"), help="folder for files that were not refused")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--update", type=Path, help="page to put the table into")
    options = parser.parse_args()
    rows, wrong = [], []
    for name in options.only:
        start, found = time.monotonic(), []
        for outcome in outcomes(
            [(name, options.first, options.first + options.inputs)], options.seed, SECONDS, options.keep
        ):
            found.append(outcome)
            if outcome.what not in GOOD:
                wrong.append(outcome)
                print(f"  {name} {outcome.number} {outcome.case!r}: {outcome.what}: {outcome.why[:600]}", flush=True)
        rows.append(row(name, found))
        print(f"{line(list(rows[-1].values()))} {time.monotonic() - start:.0f} s", flush=True)
    print("\n".join(table(rows)))
    if options.output:
        said = {"seed": options.seed, "rows": rows, "wrong": [outcome._asdict() for outcome in wrong]}
        options.output.write_text(json.dumps(said, indent=1) + "\n")
    if options.update:
        put_between(options.update, "fuzz", "\n".join(table(rows)))
    sys.exit(1 if wrong else 0)


def row(name: str, found: list[Outcome]) -> dict[str, Any]:
    """One line of the table; seconds and megabytes are the most that one file took."""
    counts = Counter(outcome.what for outcome in found)
    return {
        "reader": name,
        "files": len(found),
        "made to do harm": sum(bool(outcome.case) for outcome in found),
        "refused": counts["refused"],
        "read": counts["read"],
        "wrong": len(found) - counts["refused"] - counts["read"],
        "slowest, s": round(max((outcome.seconds for outcome in found), default=0.0), 2),
        "most memory, MB": round(max((outcome.mb for outcome in found), default=0.0)),
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    heads = list(rows[0])
    total = {name: sum(row[name] for row in rows) for name in heads[1:6]}
    ends = [max(row[name] for row in rows) for name in heads[6:]]
    body = [
        line(list(row.values()))
        for row in [*rows, {"reader": "all", **total, **dict(zip(heads[6:], ends, strict=True))}]
    ]
    return [line(heads), "|---" + "|---:" * (len(heads) - 1) + "|", *body]


def line(cells: list[Any]) -> str:
    return f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else str(cell) for cell in cells)} |"


if __name__ == "__main__":
    main()
