"""infer --export: the network of some weights, with all that is known of them, for programs without this toolkit."""

import os
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle

from metric_learning import __version__, dist
from metric_learning.checks import UserError
from metric_learning.config import InferOptions
from metric_learning.embedder import Embedder, saved_calibration, saved_classes, saved_group_means
from metric_learning.export import check_free, export
from metric_learning.extract import Reader
from metric_learning.inference import fingerprint
from metric_learning.runs import Run, run_of
from metric_learning.runtime import paddle_version
from metric_learning.stages import calibrating, setup
from metric_learning.stages.voting import weights_files
from metric_learning.to_onnx import TOOLS, check_tools

FORMULA = "1 / (1 + exp(-slope (cosine - threshold))), with the threshold of point, or of the group"


def export_weights(config: InferOptions) -> None:
    """Write the folder --output (else <format> in the run's folder) and say what came."""
    if not dist.is_first():
        return
    kind = str(config.export)
    check_tools(kind)
    files = weights_files(config)
    if len(files) > 1:
        raise UserError(f"--export takes one network, and --pretrained_model={config.named_weights} names several.")
    file, run = files[0], run_of(files[0])
    classes = None if config.task == "embed" else saved_classes(file)
    if config.task == "classify" and classes is None:
        raise UserError(f"{file} holds no classifier. Leave --task out, or train one by train_elem.py --task=classify.")
    place = _place(config, run)
    paddle.set_device("cpu")  # where it is checked
    embedder = setup.load_embedder(file, config, print)
    about = {"classes": classes.names if classes else None, **_similarity(config, file, embedder)}
    about |= {"weights": {"name": file.name, "fingerprint": fingerprint(embedder), "model": embedder.spec.model}}
    made = export(embedder, classes, kind, place, about | {"versions": _versions(kind)})
    print(f"Largest difference to the source over drawn pictures: {made.difference:.1e}")
    print(f"Written: {made.place} ({', '.join(made.files)})")
    print("docs/deployment.md has programs that load it.")


def _place(config: InferOptions, run: Run | None) -> Path:
    """The folder to write, which must not be there yet."""
    place = Path(config.output) if config.output else (run.folder if run else Path()) / str(config.export)
    place = Path(os.path.abspath(place))
    if place.suffix in (".onnx", ".json", ".pdmodel", ".pdiparams"):
        raise UserError(
            f"--output={config.output}: an export is a folder of files that belong together. Name a folder."
        )
    check_free(place)
    setup.check_writable(place.parent, "--output")
    return place


def _similarity(config: InferOptions, file: Path, embedder: Embedder) -> dict[str, Any]:
    """What cosines of the embeddings mean, as far as the weights know it."""
    found = saved_calibration(file)
    means = saved_group_means(file) if config.group_means else None
    if found is not None:
        flip = bool(found.fitted.get("flip_test"))  # not warned of: the description says it, who embeds decides
        for line in calibrating.mismatches(found, Reader(embedder.spec.picture, flip_test=flip), means is not None):
            print(line)
    similarity = {"formula": FORMULA, **found.to_dict()} if found else None
    return {"similarity": similarity, "group_means": means.to_dict() if means else None}


def _versions(kind: str) -> dict[str, str]:
    own = {"metric_learning": __version__, "paddle": paddle_version()[0]}
    own |= {"numpy": np.__version__, "opencv": cv2.__version__}
    return own | ({name: metadata.version(name) for name in TOOLS} if kind == "onnx" else {})
