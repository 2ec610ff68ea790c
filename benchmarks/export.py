"""Claim: an exported network gives, without this toolkit, the embeddings that infer.py gives.

python benchmarks/export.py --pretrained_model=weights --input=folder [--count 100] [--image_shape 3,96,96]
    [--output export.json]

Embeds `--count` pictures by infer.py, exports the network both ways, and embeds the same pictures by the programs of
docs/deployment.md, each in a process that can't import the toolkit; then by the ONNX model once more, with Pillow in
the place of OpenCV. Prints a row a way: the largest difference of a number in a normalised embedding, and the smallest
cosine, to what infer.py gives.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image, ImageOps

from metric_learning.data.walk import pictures_below

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {"onnx": "import onnxruntime", "paddle": "import paddle"}
WITHOUT = "import sys\nsys.modules['metric_learning'] = None\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained_model", required=True, help="a run or a file of weights")
    parser.add_argument("--input", required=True, help="a folder of pictures")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--image_shape", help="other sides than the weights' own, so that pictures must be resized")
    parser.add_argument("--output", help="JSON file to write")
    options = parser.parse_args()
    paths = chosen(Path(options.input), options.count)
    typed = [f"--pretrained_model={Path(options.pretrained_model).resolve()}", "--use_gpu=False"]
    typed += [f"--image_shape={options.image_shape}"] if options.image_shape else []
    with tempfile.TemporaryDirectory() as folder:
        rows = compared(Path(folder), typed, paths)
    print(
        f"{len(paths)} pictures of {options.input}, {options.pretrained_model} {options.image_shape or ''}:".replace(
            " :", ":"
        )
    )
    for name, found in rows.items():
        print(f"| {name} | {found['difference']:.1e} | {found['cosine']:.7f} |")
    if options.output:
        about = {"pictures": len(paths), "input": options.input, "weights": options.pretrained_model, "rows": rows}
        Path(options.output).write_text(json.dumps(about, indent=1) + "\n")


def chosen(folder: Path, count: int) -> list[str]:
    """So many pictures from all over the folder, by name."""
    found = [str(folder.resolve().joinpath(*names)) for names in pictures_below(folder)]
    return [found[i * len(found) // count] for i in range(min(count, len(found)))] if found else []


def compared(folder: Path, typed: list[str], paths: list[str]) -> dict[str, dict[str, float]]:
    listed = folder / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in paths))
    toolkit(*typed, f"--input={listed}", f"--output={folder / 'infer.npz'}", "--precision=float32", "--batch_size=10")
    expected = unit(np.load(folder / "infer.npz")["embeddings"])
    rows = {}
    for kind in EXAMPLES:
        toolkit(*typed, f"--export={kind}", f"--output={folder / kind}")
        program = folder / f"{kind}.py"
        program.write_text(WITHOUT + example(kind))
        run([sys.executable, "-I", str(program), str(folder / kind), *paths], folder)
        rows[f"{kind}, the page's program"] = agreement(np.load(folder / "embeddings.npy"), expected)
    rows["onnx, Pillow decodes"] = agreement(by_pillow(folder / "onnx", paths, resize=False), expected)
    rows["onnx, Pillow decodes and resizes"] = agreement(by_pillow(folder / "onnx", paths, resize=True), expected)
    return rows


def toolkit(*typed: str) -> None:
    run([sys.executable, str(ROOT / "infer.py"), *typed], ROOT)


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)


def example(kind: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "deployment.md").read_text(), flags=re.DOTALL)
    return next(block for block in blocks if EXAMPLES[kind] in block)


def by_pillow(folder: Path, paths: list[str], resize: bool) -> Any:
    """The embeddings where Pillow takes the place of OpenCV, by the same rule; its own resizing, or OpenCV's."""
    import cv2
    import onnxruntime

    how = json.loads((folder / "preprocessing.json").read_text())["picture"]
    height, width, order = how["height"], how["width"], how["channel_order"]
    images = []
    for path in paths:
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        scale = max(height / how["crop"] / picture.height, width / how["crop"] / picture.width)
        size = max(width, round(picture.width * scale)), max(height, round(picture.height * scale))
        fewer = size[0] * size[1] < picture.width * picture.height
        if resize:
            pixels = np.asarray(picture.resize(size, Image.Resampling.BOX if fewer else Image.Resampling.BILINEAR))
        else:
            pixels = cv2.resize(np.asarray(picture), size, interpolation=cv2.INTER_AREA if fewer else cv2.INTER_LINEAR)
        top, left = (size[1] - height) // 2, (size[0] - width) // 2
        pixels = pixels[top : top + height, left : left + width]
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None] if order == "gray" else pixels
        pixels = pixels[:, :, ::-1] if order == "BGR" else pixels
        images.append(((pixels / 255 - how["mean"]) / how["std"]).transpose(2, 0, 1))
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    return unit(session.run(["embeddings"], {"images": np.stack(images).astype(np.float32)})[0])


def unit(rows: Any) -> Any:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def agreement(made: Any, expected: Any) -> dict[str, float]:
    cosines = (unit(made) * unit(expected)).sum(axis=1)
    return {"difference": float(np.abs(made - expected).max()), "cosine": float(cosines.min())}


if __name__ == "__main__":
    main()
