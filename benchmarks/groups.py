"""Claim: group-aware training raises the TAR of the group that is worst off, and the mean does not fall.

python benchmarks/groups.py --out groups_out [--large Asian] [--methods baseline,balanced] [--seeds 0,1,2]
                            [--update docs/groups.md]

Draws a set of faces with the skew of a multi-race training set (metric_learning/data/skewed.py), trains train_elem.py
by every method below with the same recipe, and measures by eval.py the TAR at FAR 1e-3 of each group on as many test
people of each: each network as it is and less the groups' means, at each group's own threshold and at one for all. One
JSON a run in <out>/large_<group>_<faces>; a run that has its JSON is skipped, so a stopped sweep goes on. --faces takes
another drawing (people) and --seeds other seeds: recipe and settings were chosen with --faces 1 --seeds 7, and never on
what is reported. --update puts the tables into a page, between the marks `<!-- large <group> -->` and `<!-- end -->`.
One thread a run; several processes may share one --out, each its --seeds.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from plan import ROOT, cell, chosen, put_between, write

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from metric_learning.data.skewed import TRAIN, write_skewed_faces

FAR = 0.001
LARGE = "Caucasian"
RECIPE = [
    *("--loss_name=arcmargin", "--scale=16", "--margin=0.1", "--group_means=True"),
    *("--model=ResNet18", "--image_shape=3,32,32", "--test_crop=1", "--min_crop_area=0.75", "--max_crop_aspect=1"),
    *("--train_batch_size=64", "--total_iter_num=600", "--lr=0.05", "--lr_strategy=cosine_decay", "--warmup_steps=20"),
    *("--weight_decay=5e-4", "--test_iter_step=100", "--display_iter_step=100"),
    *("--save_iter_step=1000000", "--keep=1"),
]
MACHINE = ["--threads=1", "--num_workers=1", "--use_gpu=False", "--precision=float32"]
METHODS: dict[str, list[str]] = {
    "baseline": [],
    "balanced": ["--balance=groups"],
    "balanced by root": ["--balance=groups", "--balance_power=0.5"],
    "fixed margins": ["--group_margins={small}"],  # {small}: 0.1 for every group but the large one
    "auto margins": ["--group_margins=auto"],
}
MEANS = {"": False, ", less means": True}  # what a row's name has behind it: --group_means of eval.py
Runs = dict[str, list[dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder for data, runs and results")
    parser.add_argument("--methods", help=f"by comma; of {', '.join(METHODS)}")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--large", default=LARGE, choices=TRAIN, help="which group has most of the people")
    parser.add_argument("--faces", type=int, default=0, help="seed of the drawn people")
    parser.add_argument("--set", action="append", default=[], help="one more flag for every run, to try a setting")
    parser.add_argument("--update", help="page to put the table into")
    options = parser.parse_args()
    out = Path(options.out).resolve() / f"large_{options.large}_{options.faces}"
    out.mkdir(parents=True, exist_ok=True)
    data = write_skewed_faces(str(out / "faces"), people(options.large), seed=options.faces)
    small = ",".join(f"{group}:0.1" for group in TRAIN if group != options.large)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    methods = chosen(options.methods, tuple(METHODS))
    for seed in seeds:
        for method in methods:
            flags = [flag.format(small=small) for flag in METHODS[method]] + options.set
            train(out, data, method, seed, flags)
    found = {method: [json.loads(result_file(out, method, seed).read_text()) for seed in seeds] for method in methods}
    if options.update:
        put_between(Path(options.update), f"large {options.large}", table(found))
    else:
        print(table(found))


def people(large: str) -> dict[str, int]:
    """People to train on, `large` and Caucasian having changed places."""
    return TRAIN | {LARGE: TRAIN[large], large: TRAIN[LARGE]}


def result_file(out: Path, method: str, seed: int) -> Path:
    return out / f"{method.replace(' + ', '-').replace(' ', '-')}-{seed}.json"


def train(out: Path, data: str, method: str, seed: int, own: list[str]) -> None:
    """One run of train_elem.py and what eval.py finds, unless it is done."""
    path = result_file(out, method, seed)
    if path.exists():
        return
    runs = out / "runs" / path.stem
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir(parents=True)
    start = time.perf_counter()
    flags = [*RECIPE, *own, f"--seed={seed}"]
    script("train_elem.py", [f"--data_dir={data}", f"--model_save_dir={runs}", "--test_batch_size=100", *flags], runs)
    seconds = time.perf_counter() - start
    run = next(runs.glob("*/results.json")).parent
    found = {}
    for said, means in MEANS.items():
        place = runs / f"eval{int(means)}.json"
        typed = [f"--pretrained_model={run}", f"--group_means={means}", "--batch_size=100", f"--fars={FAR}"]
        script("eval.py", [*typed, f"--output={place}"], runs)
        found[said] = json.loads(place.read_text())
    margins = [line for line in (run / "log.txt").read_text().splitlines() if "group margins" in line]
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    tar = {said: tars(results) for said, results in found.items()}
    about = found[""]["about"]
    write(path, {"flags": flags, "seconds": seconds, "tar": tar, "margins": margins, "about": about, "eval": found})
    print(f"{method}, seed {seed}, {seconds:.0f} s: {tar}", flush=True)


def script(name: str, flags: list[str], folder: Path) -> None:
    """Run one of the four scripts on one thread; what it says goes to a file."""
    log = folder / f"{name}.txt"
    with open(log, "a") as said:
        done = subprocess.run(
            [sys.executable, str(ROOT / name), *flags, *MACHINE],
            stdout=said,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}: see {log}")


def tars(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """TAR at FAR of each group: at its 'own' threshold, and at one for all ('global')."""
    found = results["verification"]
    own = {name: at(group["points"]) for name, group in found["groups"].items()}
    return {"own": own, "global": {name: at(points) for name, points in found["at_global"].items()}}


def at(points: list[dict[str, Any]]) -> float:
    return next(point["tar"] for point in points if point["target_far"] == FAR)


def table(found: Runs) -> str:
    """Two tables: at own thresholds and at the global one; mean and standard deviation (n - 1) over the seeds, in %."""
    parts = []
    for kind, head in (("own", "Each group at its own threshold"), ("global", "All groups at one threshold")):
        groups = sorted(next(iter(found.values()))[0]["tar"][""][kind])
        lines = [f"| {head} | worst group | mean | {' | '.join(groups)} |", "|---" * (3 + len(groups)) + "|"]
        for method, runs in found.items():
            for said in MEANS:
                tar = [run["tar"][said][kind] for run in runs]
                columns = [[min(t.values()) for t in tar], [statistics.mean(t.values()) for t in tar]]
                columns += [[t[group] for t in tar] for group in groups]
                lines.append(f"| {method}{said} | {' | '.join(cell(column, 1) for column in columns)} |")
        parts.append("\n".join(lines))
    seconds = statistics.mean(run["seconds"] for runs in found.values() for run in runs)
    seeds = max(len(runs) for runs in found.values())
    return "\n\n".join([*parts, f"{seeds} seeds; {seconds:.0f} s a training with one thread, evaluations included."])


if __name__ == "__main__":
    main()
