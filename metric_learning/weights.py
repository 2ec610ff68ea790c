"""Weights from files into an Embedder: the toolkit's own, Paddle's `.pdparams`, PaddleCV's names, ImageNet's."""

import hashlib
import re
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

from metric_learning.checks import UserError
from metric_learning.embedder import Embedder, put_arrays
from metric_learning.files import Arrays, atomic_write, one_line, read_pdparams, read_tensors


def load_weights(embedder: Embedder, path: str | Path) -> str:
    """Fill the embedder from a file, and say in one line what was taken. Weights of another model are a UserError."""
    arrays = read_arrays(path)
    arrays = {name.removeprefix("embedder."): value for name, value in arrays.items()}
    if any(re.fullmatch(r"res\d.+_weights", name) for name in arrays):
        arrays = _from_paddlecv(arrays)
    own = embedder.state_dict()
    if not any(name in own for name in arrays):  # a bare backbone: paddle.vision's names have no prefix
        arrays = {f"backbone.{name}": value for name, value in arrays.items()}
    said = f"Weights from {path}"
    neck = {name: value.numpy() for name, value in own.items() if name.startswith("neck.")}
    given = any(name.startswith("neck.") for name in arrays)
    if neck and not given:
        arrays |= neck
        said += f"; the layers behind the backbone ({embedder.size}-d) start anew"
    if given and not neck:
        said += "; its layers behind the backbone are left out"
    _refuse_deeper(set(own), arrays, path)
    put_arrays(embedder, arrays, str(path))
    return said + "."


def _refuse_deeper(own: set[str], arrays: Arrays, path: str | Path) -> None:
    """A ResNet34 holds all that a ResNet18 asks for, of the same shapes, and would pass for one."""
    extra = sorted(name for name in arrays if name.startswith("backbone.") and name not in own)
    extra = [name for name in extra if not name.startswith("backbone.fc.")]  # the classifier of paddle.vision
    if extra:
        raise UserError(f"{path} are weights of another model: it also has {extra[0]}. Name their model by --model.")


def read_arrays(path: str | Path) -> Arrays:
    """Tensors by name from `.safetensors` or `.pdparams`; nothing in the file is run."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There are no weights at {path}: no such file.")
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    if path.suffix == ".pdparams":
        return read_pdparams(path)
    raise UserError(f"Can't read the weights {path}: the name must end in .safetensors or .pdparams.")


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


_PARTS = {"scale": "weight", "offset": "bias", "mean": "_mean", "variance": "_variance"}
_BRANCHES = {"branch2a": "1", "branch2b": "2", "branch2c": "3"}


def _from_paddlecv(arrays: Arrays) -> Arrays:
    """PaddleCV's names (res2a_branch2a_weights, bn2a_branch2a_scale, ...) -> this package's, without the classifier."""
    renamed: Arrays = {}
    for name, value in arrays.items():
        new = _paddlecv_name(name)
        if new:
            renamed[f"backbone.{new}"] = value
    return renamed


def _paddlecv_name(name: str) -> str | None:
    if name == "conv1_weights":
        return "conv1.weight"
    stem = re.fullmatch(r"bn_conv1_(scale|offset|mean|variance)", name)
    if stem:
        return f"bn1.{_PARTS[stem[1]]}"
    found = re.fullmatch(r"(res|bn)(\d)([a-z])(\d*)_(branch\w+?)_(weights|scale|offset|mean|variance)", name)
    if not found:
        return None
    kind, stage, letter, number, branch, part = found.groups()
    index = int(number) if number else ord(letter) - ord("a")  # 101 and 152 layers: res4a, res4b1, res4b2, ...
    part = "weight" if kind == "res" else _PARTS[part]
    if branch == "branch1":
        layer = "downsample.0" if kind == "res" else "downsample.1"
    else:
        layer = ("conv" if kind == "res" else "bn") + _BRANCHES[branch]
    return f"layer{int(stage) - 1}.{index}.{layer}.{part}"
