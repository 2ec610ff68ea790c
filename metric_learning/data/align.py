"""Align faces by five points: python -m metric_learning.data.align --data_dir=ROOT --output=FOLDER --detector=MODEL

MODEL is OpenCV's face detector YuNet, face_detection_yunet_2023mar.onnx; --landmarks=FILE.csv gives the points instead.
FOLDER gets the pictures of ROOT, in the same folders, as squares whose eyes, nose and mouth lie where ArcFace's do.
"""

import argparse
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from metric_learning.checks import UserError, check_choice, check_range
from metric_learning.data.command import Parser, run
from metric_learning.data.face_warp import SIDE, Picture, Points, warp_face
from metric_learning.data.landmarks import read_landmarks
from metric_learning.data.pictures import PictureError, read_picture
from metric_learning.data.walk import pictures_below
from metric_learning.files import atomic_write

Names = tuple[str, ...]
Find = Callable[[Names, Picture], Points]

FACES = ("largest", "central")
DETECT_SIDE = 640  # larger pictures are shrunk to this for the detector, which is made for faces of 10 to 300 pixels
KEPT = (".jpg", ".jpeg", ".png")
LEFT_OUT = "not_aligned.txt"
ZOO = "https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet"


# ---- where the points come from


def choose_face(boxes: NDArray[np.float64], width: int, height: int, face: str) -> int:
    """Which of boxes (N, 4), x y w h, N >= 1: the "largest" by area, or the one whose middle is most "central"."""
    check_choice("--face", face, FACES)
    if face == "largest":
        return int(np.argmax(boxes[:, 2] * boxes[:, 3]))
    away = boxes[:, :2] + boxes[:, 2:] / 2 - (width / 2, height / 2)
    return int(np.argmin((away**2).sum(axis=1)))


class Detector:
    """YuNet of OpenCV's model zoo (Wu, Peng and Yu, 2023) -> the five points of one face of a picture.

    `make` builds what detects; each thread has its own. A UserError where the file is not that model.
    """

    def __init__(
        self,
        model: str | Path,
        face: str = FACES[0],
        score: float = 0.6,
        make: Callable[[str, float], Any] | None = None,
    ) -> None:
        self._model, self._face, self._score, self._make = str(model), face, score, make or _yunet
        check_choice("--face", face, FACES)
        check_range("--score", score, 0, 1)
        self._own = threading.local()
        try:
            # A model of another kind is only found out when it runs.
            self._faces(np.zeros((64, 64, 3), np.uint8))
        except (cv2.error, ValueError) as error:
            raise UserError(f"--detector={model} is not OpenCV's YuNet; it is to be had at {ZOO}.") from error

    def __call__(self, names: Names, picture: Picture) -> Points:
        """picture (H, W, 3) RGB -> (5, 2) x, y in pixels, in the template's order; ValueError without a face."""
        height, width = picture.shape[:2]
        share = min(1.0, DETECT_SIDE / max(height, width))
        small = (max(1, round(width * share)), max(1, round(height * share)))
        resized = picture if share == 1 else cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        faces = self._faces(resized)
        if not len(faces):
            raise ValueError("no face found")
        chosen = faces[choose_face(faces[:, :4], *small, self._face)]
        # YuNet's right eye is the person's, so on the left of the picture: the template's order.
        points: Points = (chosen[4:14].reshape(5, 2) + 0.5) * (width / small[0], height / small[1]) - 0.5
        return points

    def _faces(self, picture: Picture) -> NDArray[np.float64]:
        if not hasattr(self._own, "detector"):
            self._own.detector = self._make(self._model, self._score)
        height, width = picture.shape[:2]
        self._own.detector.setInputSize((width, height))
        _, faces = self._own.detector.detect(np.ascontiguousarray(picture[:, :, ::-1]))  # it wants BGR
        found = np.zeros((0, 15)) if faces is None else np.asarray(faces, np.float64)
        if found.ndim != 2 or found.shape[1] != 15:
            raise ValueError("a face is 15 numbers")
        return found


def _hush() -> None:
    """OpenCV would print pages about a file that it cannot read. Where its log level is set has moved: 4.10, 5.0."""
    if hasattr(cv2.utils, "logging"):
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    else:
        cv2.setLogLevel(0)  # type: ignore[attr-defined]


def _yunet(model: str, score: float) -> Any:
    _hush()
    return cv2.FaceDetectorYN.create(model, "", (64, 64), score, 0.3, 5000)


class Landmarks:
    """The five points as a csv says them, see `read_landmarks`."""

    def __init__(self, path: Path) -> None:
        self.points = read_landmarks(path)

    def __call__(self, names: Names, picture: Picture) -> Points:
        try:
            return self.points["/".join(names)]
        except KeyError:
            raise ValueError("not in the list of landmarks") from None


# ---- all pictures


class Outcome(NamedTuple):
    """How many pictures were aligned now and before, and path and reason of those that were not."""

    aligned: int
    before: int
    left_out: list[tuple[str, str]]


def align_folder(root: Path, output: Path, find: Find, side: int = SIDE, workers: int = 2) -> Outcome:
    """Align all pictures below `root` into the same folders below `output`; those that are there are left as they are.

    .jpg, .jpeg (quality 95) and .png keep their names, others get .png behind it. Each file is whole or not there.
    """
    names = list(pictures_below(root))
    waiting = [item for item in names if not target_of(output, item).exists()]
    left_out = []
    with tqdm(
        total=len(names), initial=len(names) - len(waiting), unit="picture", desc="Aligning", disable=None
    ) as bar:
        for item, reason in _work(waiting, lambda item: _align_one(root, output, item, find, side), workers):
            bar.update()
            if reason:
                left_out.append(("/".join(item), reason))
    lines = "".join(f"{path}\t{reason}\n" for path, reason in left_out)
    if left_out or (output / LEFT_OUT).exists():
        atomic_write(output / LEFT_OUT, lines)
    return Outcome(len(waiting) - len(left_out), len(names) - len(waiting), left_out)


def target_of(output: Path, names: Names) -> Path:
    """Where the aligned picture goes."""
    path = output.joinpath(*names)
    return path if path.suffix.lower() in KEPT else path.with_name(path.name + ".png")


def _align_one(root: Path, output: Path, names: Names, find: Find, side: int) -> str:
    """'' or why not."""
    path, target = root.joinpath(*names), target_of(output, names)
    try:
        picture = read_picture(path)
        face = warp_face(picture, find(names, picture), side)
    except PictureError as error:
        return str(error).removeprefix(f"{path}: ")
    except (ValueError, cv2.error) as error:
        return " ".join(str(error).split())
    quality = [] if target.suffix.lower() == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 95]
    atomic_write(target, cv2.imencode(target.suffix.lower(), face[:, :, ::-1], quality)[1].tobytes())
    return ""


def _work(items: list[Names], job: Callable[[Names], str], workers: int) -> Iterator[tuple[Names, str]]:
    """(item, job(item)) in order; a few at a time, so that Ctrl-C has not long to wait."""
    if workers == 0:
        yield from ((item, job(item)) for item in items)
        return
    with ThreadPoolExecutor(workers) as pool:
        for begin in range(0, len(items), 16 * workers):
            some = items[begin : begin + 16 * workers]
            yield from zip(some, pool.map(job, some), strict=True)


# ---- the command line


def align(options: argparse.Namespace) -> None:
    root, output = Path(options.data_dir), Path(options.output)
    check_range("--size", options.size, 16, 1024)
    check_range("--num_workers", options.num_workers, 0, 256)
    _check_places(root, output)
    if (options.detector is None) == (options.landmarks is None):
        raise UserError(f"Give either --detector=face_detection_yunet_2023mar.onnx ({ZOO}) or --landmarks=FILE.csv.")
    find: Find
    if options.landmarks is not None:
        find = Landmarks(Path(options.landmarks))
    else:
        if not Path(options.detector).is_file():
            raise UserError(f"--detector={options.detector} is not a file; the model is to be had at {ZOO}.")
        find = Detector(options.detector, options.face, options.score)
    done = align_folder(root, output, find, options.size, options.num_workers)
    print(f"{output}: {done.aligned:,} pictures aligned, {done.before:,} were there, {len(done.left_out):,} left out.")
    if done.left_out:
        path, reason = done.left_out[0]
        print(f"Left out: {path} ({reason}){', ...' if done.left_out[1:] else ''}; all are in {output / LEFT_OUT}.")
    if not done.aligned + done.before:
        raise UserError(f"Not one picture of {root} could be aligned; {output / LEFT_OUT} says why.")


def _check_places(root: Path, output: Path) -> None:
    inner, outer = (Path(os.path.realpath(path)) for path in (output, root))
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UserError(f"--output={output} and --data_dir={root} must not lie in each other; name another --output.")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output={output} is a file; name a folder.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser("align", "Align faces by five points to ArcFace's template; goes on where it was stopped.")
    add = parser.add_argument
    add("--data_dir", required=True, help="a folder with pictures, nested as deep as you like")
    add("--output", required=True, help="the folder that gets the aligned ones, in the same folders")
    add("--detector", help=f"YuNet's file face_detection_yunet_2023mar.onnx, from {ZOO}")
    add("--landmarks", help="a csv of path,x1,y1,...,x5,y5 instead; paths count from --data_dir")
    add("--size", type=int, default=SIDE, help=f"side of the aligned pictures in pixels [{SIDE}]")
    add("--face", choices=FACES, default=FACES[0], help=f"which of several faces [{FACES[0]}]")
    add("--score", type=float, default=0.6, help="detections below are no faces, 0..1 [0.6]")
    add("--num_workers", type=int, default=2, help="threads; 0: the main one [2]")
    return run(parser, align, arguments)


if __name__ == "__main__":
    sys.exit(main())
