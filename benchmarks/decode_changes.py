"""Claim: the quick way from JPEG files to training pictures changes a pixel by at most 2 levels of 255 in the mean, and
pictures that --cache_mb has kept come at least twice as fast.

python benchmarks/decode_changes.py [--pictures 64] [--data FOLDER ...] [--output changes.json]
  [--update docs/input_speed.md]

Changes: random crops, as `decode.py`'s path train, of the same windows. quick: as training takes them. full: every JPEG
decoded in full and resized as in a test; the others are compared with that. pillow: decoded in full, the window resized
by Pillow (bilinear, antialiased). again: the file saved once more at quality 90, then as full.

Kept: batches of `decode.py`'s side ours without and with a cache that holds every picture; one core, in turns.

--data takes JPEGs of folders besides those that are drawn. --update writes the tables between the marks
`<!-- changes -->` or `<!-- kept -->` and `<!-- end -->` of a page.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import alternate
import cv2
import decode
import numpy as np
import scale
from PIL import Image
from plan import put_between

INPUTS = (64, 112, 224)
CROPS = 4  # of each picture
PASSES = 40  # over the files until each is kept at every size that its crops ask for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64, help="files of each kind")
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 250, 500], help="sides of the drawn files")
    parser.add_argument("--data", nargs="*", default=[], help="folders with JPEGs")
    parser.add_argument("--output", help="JSON file to write")
    parser.add_argument("--update", help="page to put the tables into")
    options = parser.parse_args()
    changed, kept = [], []
    with tempfile.TemporaryDirectory() as folder:
        files = {f"drawn, {side} px": decode.drawn(Path(folder), side, options.pictures) for side in options.sizes}
        for name in options.data:
            files |= decode.kinds(argparse.Namespace(data=name, pictures=options.pictures), Path(folder))
        for name, paths in files.items():
            shortest = min(min(Image.open(path).size) for path in paths)
            for out in [size for size in INPUTS if size <= shortest]:
                changed.append({"files": name, "input": out} | changes(paths, out))
                print(changed[-1], flush=True)
            case = {"files": paths, "out": 112, "path": "train", "warm_up": PASSES}
            found = alternate.compare(__file__, tuple(WORKERS), case, rounds=21, rest=0.02)
            failed = [told["error"] for told in found.values() if "error" in told]
            if failed:
                raise SystemExit(failed[0])
            rates = {side: round(len(paths) / told["cpu_seconds"]) for side, told in found.items()}
            kept.append({"files": name, "input": 112} | rates)
            print(kept[-1], flush=True)
    if options.output:
        alternate.write(options.output, "decode_changes", 1, changed + kept)
    if options.update:
        head = ["files", "input", "this", "Pillow's resize", "saved again"]
        ways = ("quick", "pillow", "again")
        rows = [[row["files"], row["input"], *(f"{row[way]:.1f}" for way in ways)] for row in changed]
        put_between(Path(options.update), "changes", scale.grid(head, rows))
        rows = [[row["files"], row["plain"], row["kept"], f"{row['kept'] / row['plain']:.2f}"] for row in kept]
        head = ["files", "without/s", "kept/s", "kept / without"]
        put_between(Path(options.update), "kept", f"{scale.grid(head, rows)}\n\n{scale.said(scale.machine(1))}")


def changes(files: list[str], out: int) -> dict[str, float]:
    """Mean absolute differences from decoding in full, in levels of 0..255."""
    from metric_learning.data.pictures import Encoded, open_picture, read_picture
    from metric_learning.data.transforms import PictureSpec, TrainTransform
    from metric_learning.data.windows import random_cut

    transform, found = TrainTransform(PictureSpec((3, out, out)), flip=False), []
    for number, path in enumerate(files):
        whole = read_picture(path)
        bgr = cv2.cvtColor(whole, cv2.COLOR_RGB2BGR)
        saved = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        again = read_picture(Encoded("again", saved))
        for crop in range(CROPS):
            window = random_cut(whole.shape[:2], (out, out), 0.08, 4 / 3, drawing(number, crop)).window
            box = (window.left, window.top, window.left + window.width, window.top + window.height)
            full = transform(whole, drawing(number, crop))[0].astype(int)
            others = (
                transform(open_picture(path), drawing(number, crop))[0],
                np.asarray(Image.fromarray(whole).resize((out, out), Image.Resampling.BILINEAR, box=box)),
                transform(again, drawing(number, crop))[0],
            )
            found.append([np.abs(other - full).mean() for other in others])
    means = np.mean(found, axis=0).tolist()
    return {name: round(mean, 2) for name, mean in zip(("quick", "pillow", "again"), means, strict=True)}


def drawing(number: int, crop: int) -> np.random.Generator:
    """The same numbers for every way of taking a crop."""
    return np.random.default_rng([number, crop])


def cached(case: dict[str, Any]) -> alternate.Run:
    return decode.ours(case, cache_mb=10_000)


WORKERS = {"plain": decode.ours, "kept": cached}

if __name__ == "__main__" and not alternate.serve(WORKERS, sys.argv[1:]):
    main()
