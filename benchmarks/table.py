"""Claim: the tables of docs/recipes.md are what the JSON files of recipes.py, pml_twin.py and baselines.py say.

python benchmarks/table.py --out bench_out [--update docs/recipes.md]

For each data set the commands of its recipe and a table: mean and standard deviation (n - 1) over the seeds that both
sides have done (all of a side's where they share none), ours and PML's.
--update puts them between the marks `<!-- orl -->` and `<!-- end -->` of a page.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from plan import ELEM, LOSSES, RECIPES, cell, put_between

FIGURES = ("recall@1", "map@r")
NEAREST = {"quadruplet": "batch-hard triplet", "eml": "multi-similarity"}
Runs = dict[int, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder with the results")
    parser.add_argument("--update", help="page to put the tables into")
    options = parser.parse_args()
    out = Path(options.out)
    parts = {name: "\n".join([*commands(name), "", *rows(out, name), "", *words(out, name)]) for name in RECIPES}
    if not options.update:
        print("\n\n".join(f"### {name}\n\n{part}" for name, part in parts.items()))
        return
    for name, part in parts.items():
        put_between(Path(options.update), name, part)


def commands(name: str) -> list[str]:
    """The four scripts for arcmargin and eml of seed 0, then what the other rows change."""
    recipe = RECIPES[name]
    elem, pair = (" ".join(["--seed=0", *recipe[stage]["all"]]) for stage in ("elem", "pair"))
    other = [f"{loss} `{' '.join(recipe['elem' if loss in ELEM else 'pair'][loss])}`" for loss in LOSSES]
    return [
        "```bash",
        f"python train_elem.py --data_dir=<data>/{recipe['folder']} {' '.join(recipe['network'])} \\",
        f"  --loss_name=arcmargin {elem} {' '.join(recipe['elem']['arcmargin'])}",
        f"python train_pair.py --loss_name=eml {pair} {' '.join(recipe['pair']['eml'])}",
        "python eval.py",
        "python infer.py",
        "```",
        "",
        f"By row: {'; '.join(other)}.",
    ]


def rows(out: Path, name: str) -> list[str]:
    """The table of one data set."""
    head = [
        "row",
        "seeds, ours / PML",
        *(f"{figure} {side}" for figure in ("Recall@1", "MAP@R") for side in ("ours", "PML")),
    ]
    lines = [line([*head, "CPU s a run, ours / PML"]), "|---" * 7 + "|"]
    path = out / "baselines" / f"{name}.json"
    if path.exists():
        found = json.loads(path.read_text())
        for title, known in (("raw pixels", [found["pixels"]]), ("untrained network", found["untrained"])):
            cells = [cell([figures[figure] for figures in known]) for figure in FIGURES]
            lines.append(line([title, len(known) if len(known) > 1 else "", cells[0], "", cells[1], "", ""]))
    for loss in LOSSES:
        sides = both(out, name, loss)
        cells = [cell([run["retrieval"][f] for run in side.values()]) for f in FIGURES for side in sides]
        spent = " / ".join(seconds(side) for side in sides)
        title = f"{loss} (PML: {NEAREST[loss]})" if loss in NEAREST else loss
        lines.append(line([title, " / ".join(str(len(side)) for side in sides), *cells, spent]))
    return lines


def words(out: Path, name: str) -> list[str]:
    """Where ours is below, seed by seed, and what all of it took."""
    below, compared = [], 0
    for loss in LOSSES:
        ours, pml = both(out, name, loss)
        gaps = [100 * (ours[s]["retrieval"]["recall@1"] - pml[s]["retrieval"]["recall@1"]) for s in ours if s in pml]
        compared += bool(gaps)
        if gaps and statistics.mean(gaps) < -0.005:  # what two decimals show
            below.append(f"{loss} {statistics.mean(gaps):+.2f} (by seed {', '.join(f'{gap:+.2f}' for gap in gaps)})")
    sides = [both(out, name, loss) for loss in LOSSES]
    spent = [sum(run["cpu_seconds"] for pair in sides for run in pair[i].values()) / 60 for i in (0, 1)]
    said = (
        f"Recall@1 is below PML's in: {'; '.join(below)}." if below else "No row measured on both sides is below PML's."
    )
    if compared < len(LOSSES):
        said += f" Measured on both sides: {compared} of {len(LOSSES)} rows."
    return [said, f"All of these runs: {spent[0]:.0f} minutes of one core for ours, {spent[1]:.0f} for PML's."]


def both(out: Path, name: str, loss: str) -> tuple[Runs, Runs]:
    """Ours and PML's results by seed, for the seeds that both have; all there are where they have none in common."""
    found = []
    for side in ("ours", "pml"):
        paths = sorted((out / side / name).glob(f"{loss}-*.json"))
        found.append({int(path.stem.split("-")[1]): json.loads(path.read_text()) for path in paths})
    seeds = sorted(found[0].keys() & found[1].keys())
    if not seeds:
        return found[0], found[1]
    return {s: found[0][s] for s in seeds}, {s: found[1][s] for s in seeds}


def line(cells: list[Any]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def seconds(runs: Runs) -> str:
    return f"{statistics.mean(run['cpu_seconds'] for run in runs.values()):.0f}" if runs else "-"


if __name__ == "__main__":
    main()
