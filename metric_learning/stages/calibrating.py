"""What a similarity was fitted on: told, kept with the weights, and held against how it is used."""

import json
import time
from pathlib import Path
from typing import Any

from metric_learning import __version__, dist
from metric_learning.checks import UserError
from metric_learning.data.loader import BadPictures
from metric_learning.data.sources import PictureSet
from metric_learning.data.transforms import PictureSpec
from metric_learning.embedder import Embedder, save_beside, save_embedder, saved_calibration, saved_spec
from metric_learning.engine import Predictor
from metric_learning.evaluate import embed_set
from metric_learning.extract import Reader
from metric_learning.files import read_metadata
from metric_learning.metrics.calibration import FAR, calibrate_all_pairs
from metric_learning.metrics.group_means import GroupMeans
from metric_learning.metrics.similarity import Calibration, StoredPoint, is_tame
from metric_learning.plot import rate
from metric_learning.runs import Run

ALL_PAIRS = "all unordered pairs within each group"


def notes(pairs: str, data: str, reader: Reader, weights: Path, far: float, means: bool = False) -> dict[str, Any]:
    """How a calibration was made, for the file of the weights."""
    return {
        "pairs": _tame(pairs),
        "data": _tame(data),
        "wanted_far": far,
        "flip_test": reader.flip_test,
        "group_means": means,
        "picture": _picture(reader.spec),
        "step": _about(weights).get("step"),
        "date": time.strftime("%Y-%m-%d"),
        "version": __version__,
    }


def _tame(text: str) -> str:
    """What may stand in a file and on a terminal: names of files may be no text at all."""
    return "".join(letter if is_tame(letter) else "?" for letter in text.encode(errors="replace").decode())


def _picture(spec: PictureSpec) -> dict[str, Any]:
    """As it comes back from a file."""
    found: dict[str, Any] = json.loads(json.dumps(spec.to_dict()))
    return found


def _about(weights: Path) -> dict[str, Any]:
    about = read_metadata(weights).get("about") if saved_spec(weights) is not None else None
    return about if isinstance(about, dict) else {}


def calibrate_run(
    run: Run,
    predictor: Predictor,
    pictures: PictureSet,
    reader: Reader,
    bad: BadPictures,
    data: str,
    means: GroupMeans | None = None,
) -> str:
    """Fit on the validation pictures and put it into the run's best weights; the line that says what came of it.

    What is stored already and the same but for its date stays as it is, so a resumed run changes no file.
    """
    if not len(pictures):
        return "No validation classes: the similarity of these weights stays uncalibrated."
    found = embed_set(predictor, pictures, reader, bad).less(means)
    try:
        fitted = calibrate_all_pairs(found.embeddings, found.labels, found.groups)
    except UserError as error:
        return f"The similarity of these weights stays uncalibrated. {error}"
    said = f"{ALL_PAIRS} of the validation classes"
    fitted = fitted.with_notes(**notes(said, data, reader, run.best, FAR, means is not None))
    before = saved_calibration(run.best)
    if dist.is_first() and (before is None or before.with_notes(date=fitted.fitted["date"]) != fitted):
        save_beside(run.best, calibration=fitted)
    dist.barrier()
    return told(fitted)


def write_calibrated(
    place: Path, weights: Path, embedder: Embedder, calibration: Calibration, means: GroupMeans | None
) -> None:
    """The network of some weights, wherever they are from, as a file of this toolkit that knows its operating point."""
    save_embedder(place, embedder, {"source": _tame(str(weights)), **_about(weights)}, calibration, means)


def told(calibration: Calibration) -> str:
    """Where 0.5 lies and on what it was fitted, in a line."""
    own = ", ".join(f"{name} {point.threshold:.4f}" for name, point in calibration.groups.items())
    said = f"Similarity: 0.5 lies at cosine {calibration.point.threshold:.4f}, {measured_on(calibration.point)}"
    return f"{said}; fitted on {on_what(calibration)}{f'; thresholds of groups: {own}' if own else ''}."


def on_what(calibration: Calibration) -> str:
    return str(calibration.fitted.get("pairs", "pairs that are not said"))


def measured_on(point: StoredPoint) -> str:
    return f"FAR {rate(float(f'{point.far:.3g}'))}, measured on {point.negatives:,} negative pairs"


def mismatches(calibration: Calibration, reader: Reader, means: bool = False) -> list[str]:
    """Warnings where embeddings are made in another way now than when the similarity was fitted."""
    lines, fitted = [], calibration.fitted
    if isinstance(fitted.get("flip_test"), bool) and fitted["flip_test"] != reader.flip_test:
        lines.append(
            f"WARNING: the similarity was fitted with --flip_test={fitted['flip_test']}, not {reader.flip_test}: "
            "thresholds and similarities are off. Type that, or calibrate again by eval.py --calibrate."
        )
    if bool(fitted.get("group_means")) != means:
        lines.append(
            f"WARNING: the similarity was fitted {'less' if fitted.get('group_means') else 'without'} the means of the "
            "groups: thresholds and similarities are off. See --group_means, or calibrate again by eval.py --calibrate."
        )
    if isinstance(fitted.get("picture"), dict) and fitted["picture"] != _picture(reader.spec):
        lines.append(
            "WARNING: the similarity was fitted with pictures of another shape, crop, colour order or normalisation: "
            "thresholds and similarities are off. Leave those options out, or calibrate again by eval.py --calibrate."
        )
    return lines
