"""Claim: the four scripts learn on real pictures: Recall@1 of classes not trained on, per data set and loss.

python benchmarks/recipes.py --data <data> --out bench_out [--only orl] [--losses arcmargin,eml] [--seeds 0,1,2]

Runs train_elem.py (softmax, arcmargin), then train_pair.py (triplet, quadruplet, npairs, eml) from arcmargin's best
weights, each as a user would, with the flags of recipes.json. One JSON a run in <out>/ours/<data set>/; a run that has
its JSON is skipped, so a stopped sweep goes on. For seed 0 eval.py and infer.py run on arcmargin's weights as well.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from plan import (
    ELEM,
    LOSSES,
    MACHINE,
    QUIET,
    RECIPES,
    ROOT,
    chosen,
    data_flags,
    loss_flags,
    result_file,
    sweep_options,
    write,
)


def main() -> None:
    options = sweep_options(__doc__)
    for seed in map(int, options.seeds.split(",")):
        for name in chosen(options.only, tuple(RECIPES)):
            for loss in chosen(options.losses, LOSSES):
                train(options.data, options.out, name, loss, seed)
            if seed == 0:
                use(options.out, name)


def train(data: str, out: str, name: str, loss: str, seed: int) -> None:
    """One run, unless it is done."""
    path = result_file(out, "ours", name, loss, seed)
    if path.exists():
        return
    runs = folder_of(out, name, loss, seed)
    shutil.rmtree(runs, ignore_errors=True)
    flags = [*loss_flags(name, loss, seed), f"--model_save_dir={runs}", *QUIET]
    if loss in ELEM:
        spent = script("train_elem.py", [*data_flags(name, data), *flags], runs)
    else:  # data, network and augmentation travel with the weights
        weights = run_in(folder_of(out, name, "arcmargin", seed))
        spent = script("train_pair.py", [f"--pretrained_model={weights}", *flags], runs)
    run = run_in(runs)
    results = json.loads((run / "results.json").read_text())
    log = [line for line in (run / "log.txt").read_text().splitlines() if ": val recall@1" in line]
    write(
        path,
        {"flags": flags, "retrieval": results["retrieval"], "verification": results["verification"], "val": log}
        | {"about": results["about"], **spent},
    )
    shutil.rmtree(run / "checkpoints", ignore_errors=True)  # best.safetensors stays
    best = [line for line in log if "best so far" in line][-1]  # recipes are chosen by this, never by the test
    print(f"{name} {loss} seed {seed}: {best.split('(')[0]} {spent['seconds']:.0f} s", flush=True)


def use(out: str, name: str) -> None:
    """eval.py and infer.py on arcmargin's weights of seed 0; eval must find what training reported."""
    path = result_file(out, "ours", name, "use", 0)
    trained = result_file(out, "ours", name, "arcmargin", 0)
    if path.exists() or not trained.exists():
        return
    folder = folder_of(out, name, "arcmargin", 0)
    weights = f"--pretrained_model={run_in(folder)}"
    machine = [flag for flag in MACHINE if "test_batch" not in flag]
    measured = script("eval.py", [weights, "--batch_size=100", f"--output={folder / 'eval.json'}"], folder, machine)
    used = script("infer.py", [weights, "--batch_size=100", f"--output={folder / 'embeddings.npz'}"], folder, machine)
    found = json.loads((folder / "eval.json").read_text())["retrieval"]
    same = found["recall@1"] == json.loads(trained.read_text())["retrieval"]["recall@1"]
    write(path, {"eval": measured, "infer": used, "retrieval": found, "same_as_in_training": same})


def folder_of(out: str, name: str, loss: str, seed: int) -> Path:
    return Path(out).resolve() / "runs" / name / f"{loss}-{seed}"


def run_in(folder: Path) -> Path:
    """The run in a --model_save_dir of one run."""
    return max(folder.glob("*/config.json"), key=lambda path: path.stat().st_mtime).parent


def script(name: str, flags: list[str], folder: Path, machine: list[str] | None = None) -> dict[str, Any]:
    """Run one of the four scripts; its words go to a log. Seconds on the wall and of the processor."""
    folder.mkdir(parents=True, exist_ok=True)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with open(folder / f"{name}.txt", "w") as log:
        command = [sys.executable, str(ROOT / name), *flags, *(MACHINE if machine is None else machine)]
        done = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
        )
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}: see {folder / f'{name}.txt'}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - start, "cpu_seconds": cpu}


if __name__ == "__main__":
    main()
