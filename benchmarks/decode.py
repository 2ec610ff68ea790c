"""Claim: JPEG files become training batches at least 1.5 times as fast as by Pillow and NumPy, on one core.

python benchmarks/decode.py [--output decode.json] [--pictures 64] [--rounds 21] [--data FOLDER]

A row for each side of the files, side of the network's input and path; a side is a process of its own, and they take
turns. A turn makes one batch of `pictures` files, which lie in the memory of the system: read, decoded, cropped,
resized, mirrored, normalised, float32 (B, 3, H, W).

paths: train is a random crop of 8..100 % of the area and 3/4..4/3 in aspect, mirrored at random; test resizes the short
side to size / 0.875 and takes the centre.
ours: train_batches and test_batches with no workers. pil: as torchvision does it (Image.open, crop, antialiased
bilinear resize, ToTensor, Normalize), with NumPy for torch. opencv: imdecode, crop, bilinear resize without
antialiasing, the same NumPy. ours_exact: ours, but every JPEG decoded in full and resized as in a test.

Pictures are drawn: smooth noise, discs with sharp edges and grain, at quality 90. --data takes the JPEGs of a folder as
they are.
"""

import argparse
import math
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import alternate
import cv2
import numpy as np
from PIL import Image

SIDES = ("ours", "pil", "opencv", "ours_exact")
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
Array = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="JSON file to write")
    parser.add_argument("--pictures", type=int, default=64, help="files of a turn")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 250, 500], help="sides of the drawn files")
    parser.add_argument("--inputs", type=int, nargs="+", default=[64, 112, 224], help="sides of the network's input")
    parser.add_argument("--paths", nargs="+", choices=("train", "test"), default=["train", "test"])
    parser.add_argument("--data", help="folder with JPEGs to take instead")
    options = parser.parse_args()
    rows = []
    print("file     input path    ours/s  pil/s  opencv/s  exact/s  ours/pil  ours/opencv  ours/exact", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, files in kinds(options, Path(folder)).items():
            for out in options.inputs:
                for path in options.paths:
                    case = {"files": files, "out": out, "path": path}
                    found = alternate.compare(__file__, SIDES, case, rounds=options.rounds, rest=0.02)
                    rows.append(row({"file": name, "input": out, "path": path}, found, len(files)))
    if options.output:
        alternate.write(options.output, "decode", 1, rows)


def kinds(options: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """What a row is called -> its files."""
    if options.data:
        files = sorted(str(path) for path in Path(options.data).rglob("*.jp*g"))
        return {Path(options.data).name: random.Random(0).sample(files, min(options.pictures, len(files)))}
    return {f"{side} px": drawn(folder, side, options.pictures) for side in options.sizes}


def row(case: dict[str, Any], found: dict[str, dict[str, Any]], pictures: int) -> dict[str, Any]:
    """One line, printed: pictures a second of a core's time, and ratios to the others; medians of the rounds."""
    failed = [side["error"] for side in found.values() if "error" in side]
    if failed:
        raise SystemExit(failed[0])
    rates = {name: pictures / side["cpu_seconds"] for name, side in found.items()}
    ratios = {f"ours/{name}": rates["ours"] / rates[name] for name in SIDES[1:]}
    print(
        f"{case['file']:<9}{case['input']:<6}{case['path']:<6}"
        + "".join(f"{rates[name]:8.0f}" for name in SIDES)
        + "".join(f"{ratio:10.2f}" for ratio in ratios.values()),
        flush=True,
    )
    return case | {"pictures_per_s": rates, "ratios": ratios, "sides": found}


def drawn(folder: Path, side: int, count: int) -> list[str]:
    """Files of side x side pixels that are about as hard to decode as photographs: 1.8 bits a pixel at 500."""
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        picture = np.full((side, side, 3), 128, np.float32)
        for cells in (4, 8, 16, 32, 64):
            noise = rng.standard_normal((cells, cells, 3)).astype(np.float32)
            picture += 60 / math.sqrt(cells) * cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
        for _ in range(20):
            colour, place = rng.integers(0, 256, 3).tolist(), rng.integers(0, side, 2).tolist()
            cv2.circle(picture, place, int(rng.integers(2, side // 6)), colour, -1, cv2.LINE_AA)
        picture = np.clip(picture + 4 * rng.standard_normal(picture.shape), 0, 255).astype(np.uint8)
        path = folder / f"{side}_{number}.jpg"
        path.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
        paths.append(str(path))
    return paths


# ---- ours


def ours(case: dict[str, Any], exact: bool = False, cache_mb: int = 0) -> alternate.Run:
    """The loader as training and evaluation use it."""
    from metric_learning.data.loader import BadPictures, test_batches, train_batches
    from metric_learning.data.pictures import Jpeg
    from metric_learning.data.sources import PictureSet, Sample
    from metric_learning.data.transforms import PictureSpec, TrainTransform

    files, spec = case["files"], PictureSpec((3, case["out"], case["out"]))
    pictures, bad = PictureSet.of(Sample(path, "all") for path in files), BadPictures(len(files))
    transform = TrainTransform(spec)

    def in_full(opened: Any, rng: np.random.Generator) -> Any:
        return transform(opened.pixels() if isinstance(opened, Jpeg) else opened, rng)

    class All:
        def batch(self, step: int) -> Array:
            return np.arange(len(files))

    made = train_batches(
        pictures,
        All(),
        in_full if exact else transform,
        spec,
        seed=0,
        start_step=0,
        stop_step=10**9,
        workers=0,
        bad=bad,
        cache_mb=cache_mb,
    )
    if case["path"] == "train":
        return lambda: checked(next(made).images, case)
    return lambda: checked(next(iter(test_batches(files, spec, len(files), 0, bad)))[1], case)


# ---- the others


def pil(case: dict[str, Any]) -> alternate.Run:
    """torchvision's RandomResizedCrop, RandomHorizontalFlip, ToTensor, Normalize; Resize and CenterCrop for a test."""
    out, train, draw = case["out"], case["path"] == "train", random.Random(0)

    def one(path: str) -> Array:
        with open(path, "rb") as file:
            picture = Image.open(file).convert("RGB")
        if train:
            left, top, wide, high = crop(*picture.size, draw)
            picture = picture.crop((left, top, left + wide, top + high)).resize((out, out), Image.Resampling.BILINEAR)
            if draw.random() < 0.5:
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        else:
            wide, high, left, top = centre(*picture.size, out)
            picture = picture.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + out, top + out))
        return normalised(np.array(picture))

    return lambda: checked(np.stack([one(path) for path in case["files"]]), case)


def opencv(case: dict[str, Any]) -> alternate.Run:
    """The same with OpenCV; like most code that uses it, without antialiasing."""
    out, train, draw = case["out"], case["path"] == "train", random.Random(0)
    cv2.setNumThreads(0)

    def one(path: str) -> Array:
        with open(path, "rb") as file:
            picture = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        h, w = picture.shape[:2]
        if train:
            left, top, wide, high = crop(w, h, draw)
            picture = cv2.resize(picture[top : top + high, left : left + wide], (out, out))
            if draw.random() < 0.5:
                picture = cv2.flip(picture, 1)
        else:
            wide, high, left, top = centre(w, h, out)
            picture = cv2.resize(picture, (wide, high))[top : top + out, left : left + out]
        return normalised(picture)

    return lambda: checked(np.stack([one(path) for path in case["files"]]), case)


def crop(w: int, h: int, draw: random.Random) -> tuple[int, int, int, int]:
    """left, top, width, height of a random crop, as torchvision draws them."""
    for _ in range(10):
        area, aspect = w * h * draw.uniform(0.08, 1), math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= w and 0 < high <= h:
            return draw.randint(0, w - wide), draw.randint(0, h - high), wide, high
    side = min(w, h)
    return (w - side) // 2, (h - side) // 2, side, side


def centre(w: int, h: int, out: int) -> tuple[int, int, int, int]:
    """Width and height once the short side is out / 0.875, and left and top of the middle out x out of that."""
    short = round(out / 0.875)
    wide, high = (short, round(short * h / w)) if w < h else (round(short * w / h), short)
    return wide, high, (wide - out) // 2, (high - out) // 2


def normalised(picture: Array) -> Array:
    """ToTensor and Normalize in NumPy: contiguous float32 (3, H, W), / 255, - mean, / std, in place."""
    values = np.ascontiguousarray(picture.transpose(2, 0, 1)).astype(np.float32)
    values /= 255
    values -= MEAN[:, None, None]
    values /= STD[:, None, None]
    return values


def checked(images: Array, case: dict[str, Any]) -> None:
    if images.shape != (len(case["files"]), 3, case["out"], case["out"]) or images.dtype != np.float32:
        raise SystemExit(f"a batch of {images.shape} {images.dtype}")


WORKERS = {"ours": ours, "pil": pil, "opencv": opencv, "ours_exact": lambda case: ours(case, exact=True)}

if __name__ == "__main__" and not alternate.serve(WORKERS, sys.argv[1:]):
    main()
