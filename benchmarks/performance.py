"""The tables of docs/performance.md, and that of docs/input_speed.md, from the JSON files that the benchmarks write.

python benchmarks/performance.py results/*.json

Takes what `training.py`, `losses.py`, `decode.py`, `inference.py` and `startup.py` wrote with --output; a table whose
file is not given stays as it is.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plan import ROOT, put_between
from scale import grid

PAGES = {"decode": "input_speed.md"}  # the others: performance.md
Rows = list[dict[str, Any]]


def training(rows: Rows) -> str:
    head = ["network", "batch", "ours", "torch", "ours / torch", "Paddle eager", "ours bf16", "torch bf16"]
    head += ["bf16 ours / torch", "peak MB: ours", "torch", "ours bf16", "torch bf16"]
    lines = []
    for row in rows:
        speed, memory = row["per_s"], row["peak_mb"]
        best = {
            kind: max((f"torch{kind}", f"torch{kind}_last"), key=lambda side: speed[side]) for kind in ("", "_bfloat16")
        }
        cells = [
            f"{row['model']} {row['size']}",
            row["batch"],
            speed["ours"],
            speed[best[""]],
            f"**{row['ratio']:.2f}**",
        ]
        cells += [
            speed.get("eager", ""),
            speed["ours_bfloat16"],
            speed[best["_bfloat16"]],
            f"{row['ratio_bfloat16']:.2f}",
        ]
        cells += [memory[name] for name in ("ours", best[""], "ours_bfloat16", best["_bfloat16"])]
        lines.append(cells)
    return grid(head, lines)


def losses(rows: Rows) -> str:
    head = ["loss", "B", "PML's", "ours, ms", "PML, ms", "PML / ours", "ours, MB", "PML, MB"]
    lines = []
    for row in rows:
        ours, pml = row["sides"]["ours"], row["sides"]["pml"]
        same = row["pml"] + ("" if row["same"] else " (nearest)")
        times = [f"{1000 * side['seconds']:.3g}" for side in (ours, pml)]
        lines.append([row["loss"], row["batch"], same, *times, f"**{row['ratio']:.2f}**", ours["mb"], pml["mb"]])
    return grid(head, lines)


def decode(rows: Rows) -> str:
    head = ["files", "input", "path", "ours/s", "Pillow/s", "OpenCV/s", "exact/s", "ours / Pillow", "ours / OpenCV"]
    lines = []
    for row in rows:
        speed = [f"{row['pictures_per_s'][side]:.0f}" for side in ("ours", "pil", "opencv", "ours_exact")]
        ratios = row["ratios"]
        cells = [row["file"], row["input"], row["path"], *speed]
        lines.append([*cells, f"**{ratios['ours/pil']:.2f}**", f"{ratios['ours/opencv']:.2f}"])
    return grid(head, lines)


def inference(rows: Rows) -> str:
    names = ("ours", "ours_float32", "onnxruntime", "onnxruntime_int8", "eager", "engine")
    head = ["network", "batch", "ours", "float32", "ONNX Runtime", "its int8", "Paddle eager", "Paddle's engine"]
    head += ["ours / ORT", "float32 / ORT", "cosine: ours", "centred", "float32, centred", "ORT int8, centred"]
    lines = []
    for row in rows:
        case, sides = row["case"], row["sides"]
        seconds = {name: sides.get(name, {}).get("seconds") for name in names}
        speed = [f"{case['batch'] / took:.3g}" if took else "none" for took in seconds.values()]
        peer, mine = seconds["onnxruntime"], (seconds["ours"], seconds["ours_float32"])
        ratios = [f"**{peer / took:.2f}**" if peer and took else "" for took in mine]
        wanted = (("ours", "cosine"), ("ours", "centred"), ("ours_float32", "centred"), ("onnxruntime_int8", "centred"))
        agreed = [f"{sides[side][kind]:.6f}" if kind in sides.get(side, {}) else "" for side, kind in wanted]
        lines.append([f"{case['model']} {case['size']}", case["batch"], *speed, *ratios, *agreed])
    return grid(head, lines)


def startup(rows: Rows) -> str:
    return grid(["command", "seconds"], [[row["what"], f"{row['seconds']:.2f}"] for row in rows])


TABLES: dict[str, Callable[[Rows], str]] = {
    "training": training,
    "losses": losses,
    "decode": decode,
    "inference": inference,
    "startup": startup,
}


def main() -> None:
    for path in sys.argv[1:]:
        found = json.loads(Path(path).read_text())
        if found["claim"] not in TABLES:
            raise SystemExit(f"{path} is of {found['claim']}, not of one of {', '.join(TABLES)}.")
        about, table = found["machine"], TABLES[found["claim"]](found["rows"])
        threads = f"{about['threads']} threads used" if about["threads"] else "all cores used"
        page = ROOT / "docs" / PAGES.get(found["claim"], "performance.md")
        about_it = f"{about['cpu']}, {about['cores']} cores, {threads}; {used(found)}."
        put_between(page, found["claim"], f"{table}\n\n{about_it}")


def used(found: dict[str, Any]) -> str:
    """The versions of the libraries of all sides, and how busy the machine was."""
    sides = [side for row in found["rows"] for side in row.get("sides", {}).values()]
    versions = {name: number for side in sides for name, number in side.get("about", {}).get("versions", {}).items()}
    listed = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
    load = found["machine"]["load_before"]
    return f"{listed or 'Python ' + found['machine']['python']}. Load when it was written: {load}"


if __name__ == "__main__":
    main()
