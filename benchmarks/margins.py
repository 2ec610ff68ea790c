"""Claim: every margin, plain and with focal loss on top, trains on real faces with one small recipe.

python benchmarks/margins.py --data <data> --out bench_out [--only arcmargin,adaface] [--seeds 0,1,2]
python benchmarks/margins.py --data <data> --out bench_out --side pml
python benchmarks/margins.py --out bench_out --update docs/losses.md

Runs train_elem.py on celeba_faces once a margin, focal loss and seed; --side pml trains the torch twin with ArcFace,
CosFace and SphereFace of pytorch-metric-learning on the same network, first weights, batches, steps and rates. One JSON
a run; a run that has its JSON is skipped. --update writes the table between the marks `<!-- margins -->` and
`<!-- end -->` of a page.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import plan
from recipes import run_in, script

NAME = "celeba_faces"
ROWS = [row for row in plan.MARGINS[NAME]["elem"] if row != "all"]
FOCAL = {"": [], "+focal": ["--focal_gamma=2"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder that holds celeba_faces")
    parser.add_argument("--out", required=True, help="folder for runs and results")
    parser.add_argument("--only", help="margins, by comma")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--side", choices=("ours", "pml"), default="ours")
    parser.add_argument("--update", help="page to put the table into")
    options = parser.parse_args()
    if options.update:
        plan.put_between(Path(options.update), "margins", table(Path(options.out)))
        return
    known = tuple(ROWS) if options.side == "ours" else plan.TWINS
    for seed in map(int, options.seeds.split(",")):
        for loss in plan.chosen(options.only, known):
            if options.side == "pml":
                twin(options.data, Path(options.out).resolve(), loss, seed)
                continue
            for title, focal in FOCAL.items():
                train(options.data, options.out, loss, title, focal, seed)


def train(data: str, out: str, loss: str, title: str, focal: list[str], seed: int) -> None:
    """One run of train_elem.py, unless it is done."""
    path = plan.result_file(out, "ours", NAME, f"{loss}{title}", seed)
    if path.exists():
        return
    folder = Path(out).resolve() / "runs" / NAME / f"{loss}{title}-{seed}"
    flags = [*plan.data_flags(NAME, data), *plan.loss_flags(NAME, loss, seed), *focal, *plan.QUIET]
    spent = script("train_elem.py", [*flags, f"--model_save_dir={folder}"], folder)
    results = json.loads((run_in(folder) / "results.json").read_text())
    plan.write(path, {"flags": flags, "retrieval": results["retrieval"], "about": results["about"], **spent})
    print(f"{loss}{title} seed {seed}: {spent['seconds']:.0f} s", flush=True)


def twin(data: str, out: Path, loss: str, seed: int) -> None:
    """The same in torch with the loss of pytorch-metric-learning."""
    path = plan.result_file(out, "pml", NAME, loss, seed)
    if path.exists():
        return
    import pml_twin  # torch and PML are for this side alone

    pml_twin.run(data, out, NAME, loss, seed, path)


def table(out: Path) -> str:
    """Recall@1 and MAP@R in %, mean and standard deviation (n - 1) over the seeds."""
    lines = ["| margin | seeds | Recall@1 | MAP@R | Recall@1 with focal | MAP@R with focal | PML: Recall@1 | MAP@R |"]
    lines.append("|---" * 8 + "|")
    for loss in ROWS:
        sides = [found(out / "ours" / NAME, f"{loss}{title}") for title in FOCAL] + [found(out / "pml" / NAME, loss)]
        cells = [plan.cell([run[figure] for run in runs]) for runs in sides for figure in ("recall@1", "map@r")]
        lines.append(f"| {loss} {flags(loss)} | {len(sides[0])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def flags(loss: str) -> str:
    told = plan.MARGINS[NAME]["elem"][loss]
    return f"`{' '.join(told)}`" if told else ""


def found(folder: Path, stem: str) -> list[dict[str, Any]]:
    paths = [path for path in sorted(folder.glob(f"{stem}-*.json")) if path.stem.rpartition("-")[0] == stem]
    return [json.loads(path.read_text())["retrieval"] for path in paths]


if __name__ == "__main__":
    main()
