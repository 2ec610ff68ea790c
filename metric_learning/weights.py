"""Weights from files into an Embedder: the toolkit's own, PyTorch's, Paddle's `.pdparams`, ImageNet's."""

import hashlib
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import numpy as np
import paddle
from paddle import nn
from safetensors import deserialize

from metric_learning.checks import UserError
from metric_learning.embedder import Embedder, EmbedderSpec, saved_spec
from metric_learning.files import Arrays, atomic_write, one_line, read_tensors
from metric_learning.formats import recognise, split_heads, strip_prefixes, torch_names
from metric_learning.losses.classifier import BIAS, WEIGHT
from metric_learning.pickled_arrays import read_pdparams
from metric_learning.torch_file import SUFFIXES, read_torch

# A typed model stands for those of its kind as well: the file says which one it is.
FAMILIES = {"MobileFaceNet": ("MobileFaceNetReLU6", "MobileFaceNetX2"), "VGG16": ("VGG16BN",)}


def load_weights(embedder: Embedder, path: str | Path, partial: bool = False) -> str:
    """Fill the embedder from a file, and say in one line what was taken.

    Weights that do not fit by name and shape are a UserError; with `partial` those that fit are taken.
    """
    arrays = {name: a for name, a in read_arrays(path).items() if not _of_own_classifier(name, path)}
    match = _match(embedder, arrays, path, partial)
    if match.wrong and not (partial and match.fits):
        raise UserError(f"{path} does not fit {embedder.spec.model}: {match.report()}. {_remedy(partial)}")
    unfit = next((name for name, value in match.fits.items() if not np.isfinite(value).all()), None)
    if unfit:
        raise UserError(f"{path} is of no use: {unfit} holds numbers that are not finite. Take other weights.")
    state = embedder.state_dict()
    for name, value in match.fits.items():
        state[name].set_value(paddle.to_tensor(value.astype(state[name].numpy().dtype)))
    return f"Weights from {path}{''.join(f'; {note}' for note in match.notes)}."


def _of_own_classifier(name: str, path: str | Path) -> bool:
    return name in (WEIGHT, BIAS) and saved_spec(path) is not None


def foreign_spec(path: str | Path) -> tuple[EmbedderSpec, str] | None:
    """What network and pictures a file of a known foreign format is for, and the format's name; None if unknown."""
    try:
        found = recognise(torch_names(read_arrays(path)))
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    return (EmbedderSpec(found.model, 0, found.format.picture), found.format.name) if found else None


def same_family(typed: str, model: str) -> bool:
    """Whether a typed --model allows for this model."""
    return model == typed or model in FAMILIES.get(typed, ())


# ---- by name and shape


@dataclass
class _Match:
    """What of a file goes where, by the embedder's names; what does not; what is to be said of it."""

    fits: Arrays = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.shapes)

    def report(self) -> str:
        parts = {"missing in the file": self.missing, "unexpected in the file": self.unexpected}
        parts["of another shape"] = self.shapes
        return "; ".join(f"{len(names)} {what} ({_some(names)})" for what, names in parts.items() if names)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _remedy(partial: bool) -> str:
    if partial:
        return "Nothing of it fits, so it is of another model: name its --model."
    return (
        "So they are weights of another model or size: name their --model, --image_shape and --embedding_size, "
        "or take what fits by --partial_weights=True."
    )


def _match(embedder: Embedder, arrays: Arrays, path: str | Path, partial: bool) -> _Match:
    below = {name.removeprefix("embedder."): a for name, a in arrays.items() if name.startswith("embedder.")}
    arrays = below or arrays  # of a checkpoint of this toolkit only the embedder
    own = {_only(torch_names({name: np.empty(0)})): name for name in embedder.state_dict()}
    named = torch_names(arrays)
    match = _Match()
    neck = {name: a for name, a in named.items() if name.startswith("neck.")}
    rest = {name: a for name, a in named.items() if name not in neck}
    given = _of_backbone(embedder.spec.model, rest, set(own), path, partial, match)
    if _by_torch(arrays, embedder, given):
        given = {name: a.T if name in _linear_weights(embedder) else a for name, a in given.items()}
    has_neck = any(name.startswith("neck.") for name in own)
    if has_neck and not neck:
        own = {name: ours for name, ours in own.items() if not name.startswith("neck.")}
        match.notes.append(f"the layers behind the backbone ({embedder.size}-d) start anew")
    elif neck and not has_neck:
        match.notes.append("its layers behind the backbone are left out")
    _compare(embedder, given | (neck if has_neck else {}), own, match)
    if match.wrong and partial:
        match.notes.append(f"WARNING: only {len(match.fits)} of {len(own)} fit: {match.report()}")
    return match


def _only(arrays: Arrays) -> str:
    return next(iter(arrays))


def _of_backbone(model: str, arrays: Arrays, own: set[str], path: str | Path, partial: bool, match: _Match) -> Arrays:
    """The arrays of a backbone by the embedder's names, which `own` holds, without a classifier."""
    found = recognise(arrays)
    if found is None:
        bare = strip_prefixes(arrays)
        _, heads = split_heads({name: a for name, a in bare.items() if f"backbone.{name}" not in own})
        kept = {name: a for name, a in bare.items() if name not in heads}
    else:
        kept, heads = found.arrays, found.heads
        if found.model != model and not partial:
            raise UserError(
                f"{path} are weights of another model: it holds a {found.model} ({found.format.name}), not a {model}. "
                "Name it by --model, or leave --model out."
            )
    if heads:
        match.notes.append(f"its classifier is left out ({_some(list(heads))})")
    return {f"backbone.{name}": a for name, a in kept.items()}


def _linear_weights(embedder: Embedder) -> set[str]:
    layers = embedder.named_sublayers()
    return {f"{name}.weight" for name, layer in layers if isinstance(layer, nn.Linear) and name.startswith("backbone.")}


def _by_torch(arrays: Arrays, embedder: Embedder, given: Arrays) -> bool:
    """Whether linear layers lie as PyTorch keeps them, (outputs, inputs): as the names say, else as the shapes do.

    A square weight fits both ways, so it is decided for the whole file.
    """
    if any(name.endswith((".running_var", ".num_batches_tracked")) for name in arrays):
        return True
    if any(name.endswith("._variance") for name in arrays):
        return False
    state = embedder.state_dict()
    shapes = [(given[name].shape, tuple(state[name].shape)) for name in _linear_weights(embedder) if name in given]
    return any(theirs == ours[::-1] and theirs != ours for theirs, ours in shapes)


def _compare(embedder: Embedder, given: Arrays, own: dict[str, str], match: _Match) -> None:
    """Sort what is given into `match`; `own`: the name in PyTorch's way -> the embedder's."""
    state = embedder.state_dict()
    match.unexpected = sorted(set(given) - set(own))
    for name, ours in own.items():
        wanted = list(state[ours].shape)
        if name not in given:
            match.missing.append(ours)
        elif list(given[name].shape) != wanted:
            match.shapes.append(f"{ours} is {list(given[name].shape)}, not {wanted}")
        else:
            match.fits[ours] = given[name]


# ---- files


def read_arrays(path: str | Path) -> Arrays:
    """Tensors by name from `.safetensors`, `.pdparams` or a file of PyTorch; nothing in the file is run."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There are no weights at {path}: no such file.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".pdparams":
        return read_pdparams(path)
    if path.suffix in SUFFIXES:
        return read_torch(path)
    endings = ", ".join((".safetensors", ".pdparams", *SUFFIXES))
    raise UserError(f"Can't read the weights {path}: the name must end in one of {endings}.")


def _read_safetensors(path: Path) -> Arrays:
    """As `read_tensors`, and bfloat16, which NumPy does not have, as float32."""
    try:
        return read_tensors(path)[0]
    except UserError as error:
        if "bfloat16" not in str(error).lower() and "bf16" not in str(error).lower():
            raise
    try:
        return {name: _numbers(part) for name, part in deserialize(path.read_bytes())}  # type: ignore[no-untyped-call]
    except Exception as error:
        raise UserError(f"Can't read the weights {path}: {one_line(error)}.") from error


def _numbers(part: dict[str, Any]) -> np.ndarray:
    if part["dtype"] == "BF16":
        found = (np.frombuffer(part["data"], "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        found = np.frombuffer(part["data"], _SAFE_TYPES[part["dtype"]])
    return found.reshape(part["shape"])


_SAFE_TYPES = {
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    **{f"I{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    "BOOL": "?",
}


# ---- ImageNet's


def imagenet_file(model: str, timeout: float = 20.0) -> Path:
    """The file of Paddle's ImageNet weights for this model, downloaded once where there is a network.

    It lies where Paddle keeps its own. timeout: seconds without a byte (Paddle's downloader waits for ever).
    """
    from paddle.utils.download import WEIGHTS_HOME
    from paddle.vision.models.resnet import model_urls

    if model.lower() not in model_urls:
        raise UserError(f"There are no ImageNet weights for {model}; there are for {', '.join(sorted(model_urls))}.")
    url, checksum = model_urls[model.lower()]
    place: Path = Path(str(WEIGHTS_HOME)) / str(url).rsplit("/", 1)[1]
    if place.is_file() and _md5(place.read_bytes()) == checksum:
        return place
    print(f"Downloading {url} to {place}", flush=True)
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            content = answer.read()
        if _md5(content) != checksum:
            raise ValueError("what came is not that file")
    except (OSError, ValueError, HTTPException) as error:
        said = error.reason if isinstance(error, URLError) else error
        reason = one_line(said) if isinstance(said, Exception) else said
        if isinstance(error, HTTPError):
            error.close()
        raise UserError(
            f"The ImageNet weights of {model} could not be downloaded from {url}: {reason}. "
            "Fetch that file elsewhere and give its path as --pretrained_model."
        ) from error
    atomic_write(place, content)
    return place


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
