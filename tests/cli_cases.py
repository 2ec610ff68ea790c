"""Small data sets in every layout, and a way to run a command in this process and see all that it says."""

import contextlib
import csv
import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from metric_learning.cli import main
from metric_learning.config import ElemOptions, EvalOptions, InferOptions, PairOptions

KINDS = {kind.command: kind for kind in (ElemOptions, PairOptions, EvalOptions, InferOptions)}
SMALL = [
    "--model=SmallCNN",
    "--image_shape=3,32,32",
    "--embedding_size=8",
    "--train_batch_size=8",
    "--test_crop=1",
    "--min_crop_area=1",
    "--total_iter_num=2",
    "--test_iter_step=2",
    "--display_iter_step=1",
    "--num_workers=1",
    "--use_gpu=False",
]
CLASSES, PICTURES, SIDE = 12, 5, 24


@dataclass(frozen=True)
class Said:
    """What a command left: its exit status, standard output, standard error."""

    status: int
    out: str
    err: str


def run(command: str, *arguments: str, small: bool = True) -> Said:
    """The command as typed, in this process; for the two trainings the small recipe comes first."""
    recipe = SMALL if small and command.startswith("train") else []
    out, err = io.StringIO(), io.StringIO()
    hook = sys.unraisablehook  # a command that is stopped takes it away
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(KINDS[command], [*recipe, *map(str, arguments)])
    sys.unraisablehook = hook
    return Said(status, out.getvalue(), err.getvalue())


def refused(said: Said, *words: str) -> str:
    """Assert that it ended as a refusal: status 2, one line on standard error that holds these words. The line."""
    assert said.status == 2, said
    assert said.err.endswith("\n") and said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.out + said.err
    for word in words:
        assert word in said.err, (word, said.err)
    return said.err


def leftovers(folder: Path) -> list[str]:
    """Half-written files anywhere below the folder."""
    return [str(path) for path in folder.rglob("*.part")]


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[Path]:
    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


def pixels(label: int, number: int, side: int = SIDE) -> np.ndarray:
    """A picture (side, side, 3) uint8 that shows its class by colour and stripes."""
    noise = np.random.default_rng(1000 * label + number).integers(0, 60, (side, side, 3))
    stripes = (np.arange(side)[:, None, None] * (label % 5 + 1) // 4 % 2) * 90
    colour = np.array([40 * (label % 3), 30 * (label % 4), 20 * (label % 5)])
    return np.clip(noise + stripes + colour, 0, 255).astype(np.uint8)


def write_picture(path: Path, label: int, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels(label, number))
    (image.convert("L") if path.suffix == ".pgm" else image).save(path)
    return path


def folders(root: Path, suffix: str = ".png", classes: int = CLASSES, pictures: int = PICTURES) -> Path:
    """<class>/<picture>."""
    for label in range(classes):
        for number in range(pictures):
            write_picture(root / f"class{label:02d}" / f"{number}{suffix}", label, number)
    return root


def nested(root: Path) -> Path:
    """<alphabet>/<character>/<picture>: the class is the whole path of its folder."""
    for label in range(CLASSES):
        for number in range(PICTURES):
            write_picture(root / f"alphabet{label % 3}" / f"character{label // 3}" / f"{number}.png", label, number)
    return root


def races(root: Path) -> Path:
    """<Race>/<identity>/<picture>."""
    for label in range(CLASSES):
        for number in range(PICTURES):
            race = ("African", "Asian", "Caucasian")[label % 3]
            write_picture(root / race / f"person{label}" / f"{number}.jpg", label, number)
    return root


def sop(root: Path) -> Path:
    """Lists as in Stanford Online Products: 8 classes to train, 4 others to test."""
    header = "image_id class_id super_class_id path"
    for name, labels in (("Ebay_train.txt", range(8)), ("Ebay_test.txt", range(8, CLASSES))):
        lines = [header]
        for label in labels:
            for number in range(PICTURES):
                place = f"bicycle_final/{label}_{number}.JPG"
                write_picture(root / place, label, number)
                lines.append(f"{len(lines)} {label + 1} {label % 3 + 1} {place}")
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def table(root: Path) -> Path:
    """A csv of path, label, group, split: 7 classes to train, 2 to choose the weights by, 3 to test."""
    rows: list[Sequence[object]] = [("path", "label", "group", "split")]
    for label in range(CLASSES):
        split = "train" if label < 7 else "val" if label < 9 else "test"
        for number in range(PICTURES):
            write_picture(root / "pictures" / f"{label}_{number}.png", label, number)
            rows.append((f"pictures/{label}_{number}.png", f"thing{label}", "ab"[number % 2], split))
    with open(root / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root
