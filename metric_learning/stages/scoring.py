"""infer --pair and --pairs: cosines of pictures as similarities, same or not."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from metric_learning import dist
from metric_learning.checks import UserError, check_choice
from metric_learning.compare import compare, score_pairs, similarity
from metric_learning.config import InferOptions
from metric_learning.data.loader import BadPictures
from metric_learning.data.pictures import PictureError, read_picture
from metric_learning.data.questions import Questions, read_questions
from metric_learning.engine import Predictor
from metric_learning.evaluate import check_missing
from metric_learning.extract import Reader
from metric_learning.files import write_csv
from metric_learning.metrics.group_means import GroupMeans
from metric_learning.metrics.similarity import Calibration
from metric_learning.runs import Run
from metric_learning.stages import calibrating, setup

UNCALIBRATED = "uncalibrated: (1 + cosine) / 2, and 0.5 is no threshold"


@dataclass(frozen=True)
class Judge:
    """What cosines mean: by the calibration that travels with the weights, if any, and a threshold that was typed."""

    calibration: Calibration | None
    typed: float | None = None
    means: GroupMeans | None = None

    def similarity(self, cosines: NDArray[np.float32], group: str | None) -> NDArray[np.float64]:
        if self.calibration is None:
            return np.array([similarity(float(cosine)) for cosine in cosines])
        return self.calibration.similarity(cosines, group)

    def threshold(self, group: str | None) -> float | None:
        if self.typed is not None or self.calibration is None:
            return self.typed
        return self.calibration.at(group).threshold

    def own(self, group: str | None) -> str | None:
        """The group, where it has an operating point of its own; None, for the common one, where it has not."""
        return group if self.calibration and group in self.calibration.groups else None

    def said(self, group: str | None) -> str:
        """Which threshold it is, and what is known of it."""
        if self.typed is not None:
            return f"--threshold={self.typed:g} (typed; its false-accept rate is not known)"
        if self.calibration is None:
            return (
                "no threshold: the weights have none stored. Type one by --threshold, or fit one by eval.py --calibrate"
            )
        point = self.calibration.at(group)
        whose = f"the stored threshold of {group}" if group is not None else "the stored threshold"
        fitted = f"{calibrating.measured_on(point)}; fitted on {calibrating.on_what(self.calibration)}"
        return f"{whose}, {point.threshold:.4f} ({fitted})"


def judge(
    config: InferOptions, calibration: Calibration | None, reader: Reader, means: GroupMeans | None = None
) -> Judge:
    """The judge of a command, warnings being printed; UserError for a group that the weights know nothing of."""
    if config.group is not None and means is not None:  # which may know groups without an operating point
        check_choice("--group", config.group, [*means.names, *(calibration.groups if calibration else [])])
    elif config.group is not None:
        if calibration is None:
            raise UserError(
                f"--group={config.group}: these weights have no operating points. Fit some by eval.py --calibrate."
            )
        calibration.at(config.group)
    for line in calibrating.mismatches(calibration, reader, means is not None) if calibration else []:
        print(line)
    return Judge(calibration, config.threshold, means)


# ---- two pictures


def check_picture(path: str) -> None:
    try:
        read_picture(path)
    except PictureError as error:
        raise UserError(f"Can't read the picture {error}.") from error


def score_pair(config: InferOptions, pair: list[str], judged: Judge, predictor: Predictor, reader: Reader) -> None:
    for path in pair:
        check_picture(path)
    cosine = compare(predictor, pair[0], pair[1], reader, judged.means, config.group)
    own = judged.own(config.group)
    value = float(judged.similarity(np.array([cosine], np.float32), own)[0])
    threshold = judged.threshold(own)
    middle = f"0.5 lies at cosine {judged.calibration.at(own).threshold:.4f}" if judged.calibration else ""
    print(f"cosine {cosine:.4f}")
    print(f"similarity {value:.4f} (0..1, {middle or UNCALIBRATED})")
    verdict = "" if threshold is None else f"{'same' if cosine >= threshold else 'different'}, at "
    print(f"{verdict}{judged.said(own)}")


# ---- a list of pairs


def score_list(
    config: InferOptions, path: str, judged: Judge, predictor: Predictor, reader: Reader, run: Run | None
) -> None:
    """Write a csv a,b,similarity,cosine,same,threshold[,group]: every row of the list, in its order."""
    output = setup.output_file(config.output, run, "scores.csv")
    setup.check_writable(output.parent, "--output")
    questions = read_questions(path, config.data_dir)
    if os.path.realpath(output) == os.path.realpath(path):
        raise UserError(f"--output={output} is the list of pairs itself. Name another place.")
    if config.group is not None and questions.groups is not None:
        raise UserError("--group is for lists without groups; this one names the group of each pair. Leave it out.")
    bad = BadPictures(len(questions.items), config.max_bad_pictures)
    check_missing(questions, bad)
    a, b = questions.item_of[questions.a], questions.item_of[questions.b]
    codes = np.zeros(len(a), np.int64) if questions.groups is None else questions.groups
    names = np.array([config.group] if config.group else questions.group_names)[codes]
    cosines = score_pairs(predictor, questions.items, a, b, reader, bad, judged.means, names)
    if not dist.is_first():
        return
    rows = _rows(questions, cosines, judged, config.group)
    write_csv(output, _header(questions, judged), tqdm(rows, total=len(a), unit="pair", disable=None))
    _tell(questions, cosines, judged, config.group, bad)
    print(f"Written: {output} ({len(a):,} pairs of {len(questions.items):,} pictures, {predictor.way})")


def _header(questions: Questions, judged: Judge) -> list[str]:
    """A similarity that means nothing fixed is called so in the file as well."""
    name = "similarity" if judged.calibration else "similarity_uncalibrated"
    return ["a", "b", name, "cosine", "same", "threshold", *(["group"] if questions.groups is not None else [])]


def _rows(questions: Questions, cosines: NDArray[np.float32], judged: Judge, group: str | None) -> Iterator[list[str]]:
    codes = np.zeros(len(cosines), np.int64) if questions.groups is None else questions.groups
    similarities = np.empty(len(cosines))
    thresholds = []
    for code, name in enumerate(questions.group_names):
        own, here = judged.own(group or name), np.flatnonzero(codes == code)
        similarities[here] = judged.similarity(cosines[here], own)
        thresholds.append(judged.threshold(own))
    for i, (a, b) in enumerate(zip(questions.a.tolist(), questions.b.tolist(), strict=True)):
        row = [questions.names[a], questions.names[b]]
        row += _cells(float(cosines[i]), float(similarities[i]), thresholds[codes[i]])
        yield row if questions.groups is None else [*row, questions.group_names[codes[i]]]


def _cells(cosine: float, value: float, threshold: float | None) -> list[str]:
    """similarity, cosine, same, threshold; the first three are empty where a picture can't be read."""
    at = "" if threshold is None else f"{threshold:.9g}"
    if np.isnan(cosine):
        return ["", "", "", at]
    # Digits enough to keep the order of any two, and to keep a cosine on its side of the threshold.
    return [f"{value:.15g}", f"{cosine:.9g}", "" if threshold is None else str(int(cosine >= threshold)), at]


def _tell(
    questions: Questions, cosines: NDArray[np.float32], judged: Judge, group: str | None, bad: BadPictures
) -> None:
    if judged.calibration is None:
        print(f"The similarity is {UNCALIBRATED}.")
    if judged.typed is not None and judged.calibration is not None:
        print("The similarity is as it was fitted; only same or not is by --threshold.")
    names = [judged.own(name) for name in ([group] if questions.groups is None else questions.group_names)]
    for own in dict.fromkeys(names if judged.typed is None else names[:1]):
        print(f"Same or not is at {judged.said(own)}" if judged.threshold(own) is not None else judged.said(own))
    for line in bad.lines():
        print(f"Can't be read: {line}")
    if np.isnan(cosines).any():
        count = int(np.isnan(cosines).sum())
        print(f"WARNING: {count:,} of {len(cosines):,} pairs have a picture that can't be read; their score is empty.")
