"""What the recipe benchmarks share: the recipes as flag lists, the rows of the table, where a result lies."""

import argparse
import json
import re
import statistics
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ELEM = ("softmax", "arcmargin")
TWINS = ("arcmargin", "amsoftmax", "sphereface")  # the margins that PML has as well
PAIR = ("triplet", "quadruplet", "npairs", "eml")
LOSSES = ELEM + PAIR
RECIPES: dict[str, Any] = json.loads((HERE / "recipes.json").read_text())
MARGINS: dict[str, Any] = json.loads((HERE / "margins.json").read_text())
# Alike for every run; they change the time and the disk that a run takes, not what it learns.
MACHINE = ["--threads=1", "--num_workers=1", "--use_gpu=False", "--test_batch_size=100"]
QUIET = ["--save_iter_step=1000000", "--keep=1"]


def data_flags(name: str, data: str) -> list[str]:
    """The data and the network of a recipe; `data` is the folder that holds the data sets."""
    recipe = (RECIPES | MARGINS)[name]
    return [f"--data_dir={Path(data) / recipe['folder']}", *recipe["network"]]


def loss_flags(name: str, loss: str, seed: int) -> list[str]:
    """How a row of the table is trained."""
    recipe = (RECIPES | MARGINS)[name]
    stage = recipe["elem" if loss in recipe["elem"] else "pair"]
    return [f"--loss_name={loss}", f"--seed={seed}", *stage["all"], *stage[loss]]


def result_file(out: str | Path, side: str, name: str, loss: str, seed: int) -> Path:
    """The JSON of one run; `side` is 'ours' or 'pml'."""
    return Path(out) / side / name / f"{loss}-{seed}.json"


def write(path: Path, value: dict[str, Any]) -> None:
    """Whole or not at all: a file that is there is a run that is done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(path)


def chosen(text: str | None, known: tuple[str, ...]) -> list[str]:
    """'a,b' -> ['a', 'b']; None -> all that are known."""
    names = text.split(",") if text else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"{unknown[0]} is not one of {', '.join(known)}.")
    return names


def sweep_options(about: str | None) -> argparse.Namespace:
    """The command line of a sweep: which part of data sets x rows x seeds."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds grocery_sop, orl, omniglot28, lfw_races")
    parser.add_argument("--out", required=True, help="folder for runs and results")
    parser.add_argument("--only", help="data sets, by comma")
    parser.add_argument("--losses", help="rows, by comma")
    parser.add_argument("--seeds", default="0,1,2")
    return parser.parse_args()


def put_between(page: Path, name: str, text: str) -> None:
    """Replace what stands between the marks `<!-- name -->` and `<!-- end -->` of a page."""
    block = f"<!-- {name} -->\n\n{text}\n\n<!-- end -->"
    new, found = re.subn(f"<!-- {name} -->.*?<!-- end -->", lambda _: block, page.read_text(), flags=re.DOTALL)
    if not found:
        raise SystemExit(f"{page} has no place for {name}: <!-- {name} --> ... <!-- end -->.")
    page.write_text(new)


def cell(shares: list[float], digits: int = 2) -> str:
    """'73.12 ± 0.40', in %: mean and standard deviation (n - 1); '' for none."""
    if not shares:
        return ""
    mean = f"{100 * statistics.mean(shares):.{digits}f}"
    return mean if len(shares) == 1 else f"{mean} ± {100 * statistics.stdev(shares):.{digits}f}"
