"""Show what each augmentation of training does to pictures of one's own: a sheet with the original and some draws.

python -m metric_learning.data.augment PICTURE... --output=sheet.png [--rotation=15 --noise=0.05 ...]
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from metric_learning.checks import UserError, check_range
from metric_learning.data.augmentation import Augmentation
from metric_learning.data.command import Parser, boolean, run
from metric_learning.data.pictures import PictureError, read_picture
from metric_learning.data.samplers import AUGMENT, keyed_rng
from metric_learning.data.synthetic import GROUPS, draw_face
from metric_learning.data.transforms import PictureSpec, TestTransform, TrainTransform
from metric_learning.data.windows import Picture
from metric_learning.files import atomic_write

Told = dict[str, Any]
# What a sheet of all shows, a row each: strong enough to be seen, stronger than most trainings want it.
SHOWN: Told = {
    "min_crop_area": 0.4,
    "flip": True,
    "rotation": 20.0,
    "vertical_flip": True,
    "color_jitter": 0.4,
    "brightness": 0.4,
    "contrast": 0.6,
    "saturation": 0.9,
    "gray_rate": 0.5,
    "blur": 2.5,
    "noise": 0.15,
    "salt_pepper": 0.1,
    "cutout": 0.4,
}
OFF: Told = {"min_crop_area": 1.0, "flip": False, "color_jitter": 0.0, "max_crop_aspect": 1.0}
GAP, LINE = 4, 18  # pixels between pictures, and of a line of text
FONT, SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4


def transform_of(told: Told, side: int) -> TrainTransform:
    """Training's transform to side x side with these options, as train_elem.py takes them; all others are off."""
    own = OFF | {name: value for name, value in told.items() if name in OFF}
    spec = PictureSpec((3, side, side), test_crop=1.0)
    return TrainTransform(spec, **own, augmentation=Augmentation(**{k: v for k, v in told.items() if k not in OFF}))


def sheet(pictures: Sequence[Picture], told: Told, side: int = 112, draws: int = 6, seed: int = 0) -> Picture:
    """RGB (H, W, 3): a row for each picture with `told`; where nothing is told, one for each of SHOWN, taking turns.

    A row has its options above, but for those of the row before; the picture as evaluation takes it at the left, and
    `draws` of training beside it.
    """
    every = [(pictures[k % len(pictures)], {name: value}) for k, (name, value) in enumerate(SHOWN.items())]
    rows = [(picture, told) for picture in pictures] if told else every
    strips, said = [], ""
    for number, (picture, options) in enumerate(rows):
        transform = transform_of(options, side)
        made = [transform(picture, keyed_rng(AUGMENT, seed, number, draw))[0] for draw in range(draws)]
        strip = _strip([TestTransform(transform.spec)(picture), *made])
        above, said = said, " ".join(_flag(name, value) for name, value in options.items())
        strips += [*(_lines(said, strip.shape[1]) if said != above else []), strip]
    return np.concatenate(strips)


def _flag(name: str, value: float | bool) -> str:
    return f"--{name}={value if isinstance(value, bool) else f'{value:g}'}"


def _strip(pictures: Sequence[Picture]) -> Picture:
    """Side by side on white, the first a little apart."""
    side = len(pictures[0])
    made = np.full((side + 2 * GAP, (len(pictures) + 1) * GAP + 2 * GAP + len(pictures) * side, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        left = GAP + number * (side + GAP) + (2 * GAP if number else 0)
        made[GAP : GAP + side, left : left + side] = picture
    return made


def _lines(text: str, width: int) -> list[Picture]:
    """The words of a text in lines of `width` pixels, each a picture; a word that is wider is made smaller."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if not lines[-1] or _width(longer) <= width - 2 * GAP else [*lines, word]
    return [_line(line, width) for line in lines]


def _width(text: str, scale: float = SCALE) -> int:
    return int(cv2.getTextSize(text, FONT, scale, 1)[0][0])


def _line(text: str, width: int) -> Picture:
    made = np.full((LINE, width, 3), 255, np.uint8)
    scale = min(SCALE, SCALE * (width - 2 * GAP) / max(_width(text), 1))
    cv2.putText(made, text, (GAP, LINE - 6), FONT, scale, (40, 40, 40), 1, cv2.LINE_AA)
    return made


# ---- the command line


def augment(options: argparse.Namespace) -> None:
    output = Path(options.output)
    if output.suffix.lower() != ".png":
        raise UserError(f"--output={output} must be the name of a PNG file, such as sheet.png.")
    if any(os.path.realpath(path) == os.path.realpath(output) for path in options.pictures):
        raise UserError(f"--output={output} is one of the pictures; give another name.")
    check_range("--size", options.size, 16, 1024)
    check_range("--draws", options.draws, 1, 100)
    check_range("--seed", options.seed, 0, 2**31 - 1)
    told = {name: getattr(options, name) for name in _flags() if getattr(options, name) is not None}
    transform_of(told, options.size)  # refuses what can't be before a picture is read
    pictures = [_read(path) for path in options.pictures] or [draw_face(0, group, 1, 0) for group in GROUPS]
    drawn = sheet(pictures, told, options.size, options.draws, options.seed)
    atomic_write(output, cv2.imencode(".png", drawn[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())
    print(f"{output}: {drawn.shape[1]} x {drawn.shape[0]} pixels; each row has the original at its left.")


def _read(path: str) -> Picture:
    try:
        return read_picture(path)
    except PictureError as error:
        raise UserError(f"{error}; give pictures that can be read.") from error


def _flags() -> dict[str, Any]:
    """name -> what reads its value, of all options of training that change a picture."""
    return {name: boolean if isinstance(value, bool) else float for name, value in (OFF | SHOWN).items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser("augment", "Draw pictures as training would see them; without its options, a row for each of them.")
    parser.usage = f"{parser.prog} [PICTURE ...] --output=sheet.png [--option=value ...]"
    add = parser.add_argument
    add("pictures", nargs="*", metavar="PICTURE", help="picture files [four of the demo faces]")
    add("--output", required=True, help="the PNG file to write")
    add("--size", type=int, default=112, help="side of the network's input, and of a picture here, in pixels [112]")
    add("--draws", type=int, default=6, help="how many draws stand beside each original [6]")
    add("--seed", type=int, default=0, help="of the draws [0]")
    for name, read in _flags().items():
        add(f"--{name}", type=read, help="as train_elem.py and train_pair.py take it [off]")
    return run(parser, augment, arguments)


if __name__ == "__main__":
    sys.exit(main())
