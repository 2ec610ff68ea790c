"""A trained network as files that other programs load: a Paddle inference model or ONNX, and how pictures reach it."""

import contextlib
import io
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, nn
from paddle.static import InputSpec

from metric_learning.checks import UserError
from metric_learning.data.synthetic import GROUPS, draw_face
from metric_learning.data.transforms import PictureSpec, TestTransform, to_batch
from metric_learning.embedder import ClassesOf, Embedder
from metric_learning.engine import Outputs, eager, load_program
from metric_learning.files import one_line, write_json
from metric_learning.metrics.cosine import unit_rows
from metric_learning.runtime import silenced
from metric_learning.to_onnx import check_tools, convert, session, with_plain_pooling

Floats = NDArray[np.float32]
DESCRIPTION = "preprocessing.json"
NAME = "model"
SAME = 1e-4  # an export whose normalised embeddings or probabilities are further from the source's is refused
BATCHES = (8, 3, 1)  # pictures at a time in the check: the first axis is free
LONGEST = 4  # how many times as long as the network's input a picture may be before its ends are cut off
_ROOM = 2**30  # bytes: with more free than this, an error of Paddle's is not one of space


class Export(NamedTuple):
    """What was written where, and the largest difference to the source over the pictures of the check."""

    place: Path
    files: list[str]
    difference: float


class WithClasses(nn.Layer):
    """images (B, C, H, W) -> embeddings (B, D), probabilities (B, classes): an embedder and its classifier in one."""

    def __init__(self, embedder: Embedder, classes: ClassesOf) -> None:
        super().__init__()
        known = classes.classifier
        self.embedder, self.cosine, self.scale = embedder, known.cosine, known.scale
        weight = unit_rows(known.weight) if known.cosine else known.weight
        bias = np.zeros(len(weight), np.float32) if known.bias is None else known.bias
        self.register_buffer("weight", paddle.to_tensor(np.ascontiguousarray(weight.T, np.float32)))
        self.register_buffer("bias", paddle.to_tensor(bias))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.embedder(images)
        x = embeddings
        if self.cosine:
            square = (x * x).sum(axis=-1, keepdim=True)
            x = self.scale * x / paddle.sqrt(paddle.clip(square, min=1e-24))
        return embeddings, nn.functional.softmax(paddle.matmul(x, self.weight) + self.bias, axis=-1)


def export(embedder: Embedder, classes: ClassesOf | None, kind: str, place: Path, about: dict[str, Any]) -> Export:
    """Write the folder `place`: the network as `kind` (paddle, onnx), and preprocessing.json with `about` in it.

    With classes the network has their probabilities as a second output. It is run by the engine that it is for, in
    batches of several sizes, and held against the source: where it differs by SAME or more, or its tools are missing,
    a UserError, and nothing is written. The folder appears whole or not at all.
    """
    check_tools(kind)
    spec = embedder.spec.picture
    net = embedder if classes is None else WithClasses(embedder, classes)
    outputs = ["embeddings"] if classes is None else ["embeddings", "probabilities"]
    net.eval()
    images = drawn_pictures(spec)
    with atomic_folder(place) as folder:
        run = _write_paddle(net, spec, folder) if kind == "paddle" else _write_onnx(net, spec, folder, outputs)
        found = difference(run, images, _expected(embedder, classes, images))
        if not found < SAME:
            raise UserError(
                f"The exported network differs from its source by {found:.2g}, and {SAME:g} is allowed, so nothing is "
                f"written. Take --export={'onnx' if kind == 'paddle' else 'paddle'}, and report the --model."
            )
        files = sorted(path.name for path in folder.iterdir())
        made = {"format": kind, "files": files, "input": "images", "outputs": outputs}
        checked = {"pictures": len(images), "batch_sizes": list(BATCHES), "largest_difference": float(found)}
        picture, embedding = described(spec), {"size": embedder.size, "normalised": False}
        write_json(
            folder / DESCRIPTION, made | {"picture": picture, "embedding": embedding} | about | {"check": checked}
        )
    return Export(place, [*files, DESCRIPTION], found)


def described(spec: PictureSpec) -> dict[str, Any]:
    """How a picture becomes the network's input, for JSON: docs/deployment.md says what each name means.

    mean and std are in the order of the channels that the network takes, whatever order they were typed in.
    """
    channels, height, width = spec.shape
    backwards = channels == 3 and spec.color_order == "BGR"
    step = -1 if backwards else 1
    return {
        "channels": channels,
        "height": height,
        "width": width,
        "channel_order": "gray" if channels == 1 else spec.color_order,
        "layout": "NCHW",
        "type": "float32",
        "crop": spec.test_crop,
        "resize": "scale = max(height / crop / h, width / crop / w); to max(height, round(h scale)) x "
        "max(width, round(w scale)) pixels, round() to the nearest, halves to the even number; the middle is kept",
        "interpolation": {"fewer pixels": "area (cv2.INTER_AREA)", "more pixels": "linear (cv2.INTER_LINEAR)"},
        "longest_aspect": LONGEST,
        "mean": list(spec.mean)[::step],
        "std": list(spec.std)[::step],
        "values": "(pixel / 255 - mean) / std",
    }


def drawn_pictures(spec: PictureSpec) -> Floats:
    """(8, C, H, W): drawn faces as the network takes them."""
    transform = TestTransform(spec)
    faces = [transform(draw_face(0, group, person, 0)) for person in range(2) for group in GROUPS]
    return to_batch(faces, spec)


def _expected(embedder: Embedder, classes: ClassesOf | None, images: Floats) -> list[Floats]:
    """What the source gives for the pictures: embeddings, and probabilities where there are classes."""
    embeddings = eager(embedder, images)
    return [embeddings] if classes is None else [embeddings, classes.classifier.probabilities(embeddings)]


def difference(run: Outputs, images: Floats, expected: Sequence[Floats]) -> float:
    """The largest difference of what `run` gives for batches of BATCHES pictures; infinite for other shapes or NaN.

    expected: embeddings, of which the normalised ones are compared, and probabilities, which are as they are.
    """
    largest = 0.0
    for count in BATCHES:
        with silenced():  # Paddle tells what it thinks of an operator
            found = run(images[:count])
        wanted = [rows[:count] for rows in expected]
        fits = [rows.shape for rows in found] == [rows.shape for rows in wanted]
        if not fits or not all(np.isfinite(rows).all() for rows in found):
            return float("inf")
        apart = [unit_rows(found[0]) - unit_rows(wanted[0])]
        apart += [a - b for a, b in zip(found[1:], wanted[1:], strict=True)]
        largest = max(largest, *(float(np.abs(values).max()) for values in apart))
    return largest


# ---- files


@contextlib.contextmanager
def atomic_folder(place: Path) -> Iterator[Path]:
    """A temporary neighbour of `place` to fill; it becomes `place` when the block ends, and goes if the block fails.

    UserError where `place` holds something already, and for what the disk refuses.
    """
    check_free(place)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        os.rename(temporary, place)
    except OSError as error:
        raise UserError(f"Can't write {place}: {one_line(error)}. Free some space or name another --output.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_free(place: Path) -> None:
    """A UserError where something stands at `place` that an export would replace."""
    if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
        raise UserError(f"{place} is there already. Remove it, or name another folder by --output.")


def _write_paddle(net: nn.Layer, spec: PictureSpec, folder: Path) -> Outputs:
    return load_program(_traced(net, spec, folder))


def _write_onnx(net: nn.Layer, spec: PictureSpec, folder: Path, outputs: list[str]) -> Outputs:
    with tempfile.TemporaryDirectory(dir=folder) as inner, with_plain_pooling(net, spec.shape):
        data = convert(_traced(net, spec, Path(inner)), outputs)
    (folder / f"{NAME}.onnx").write_bytes(data)
    return session(folder / f"{NAME}.onnx")


def _traced(net: nn.Layer, spec: PictureSpec, folder: Path) -> Path:
    """Write model.json (Paddle 3) or model.pdmodel, and model.pdiparams, into the folder; the first of them."""
    try:
        with _newer_programs(), warnings.catch_warnings(), silenced(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            paddle.jit.save(net, str(folder / NAME), [InputSpec([None, *spec.shape], "float32", "images")])
    except RuntimeError as error:
        if shutil.disk_usage(folder).free > _ROOM:
            raise
        raise UserError(f"Can't write to {folder.parent}: {one_line(error)[:160]}. Free some space there.") from error
    for path in folder.glob("*.info"):
        path.unlink()
    return next(path for path in folder.iterdir() if path.suffix in (".json", ".pdmodel"))


@contextlib.contextmanager
def _newer_programs() -> Iterator[None]:
    """Programs of Paddle 3's own kind inside, though oneDNN training needs the older one; Paddle 2 has one kind."""
    guard: Callable[[], Any] | None = getattr(getattr(paddle, "pir_utils", None), "DygraphPirGuard", None)
    with guard() if guard is not None else contextlib.nullcontext():
        yield
