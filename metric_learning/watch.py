"""What a run shows beside its figures, in bounded size: weights, pictures as the network gets them, embeddings."""

import cv2
import numpy as np
from numpy.typing import NDArray
from paddle import Tensor, nn

from metric_learning.data.transforms import Picture, PictureSpec
from metric_learning.ops import as_array

SAMPLED = 2**16  # values that a histogram is made of, at most
GROUPS = 16  # of weights that have a histogram each, at most
EMBEDDED = 1000  # pictures that are compared with each other and shown in a projector, at most
DIRECTIONS = 50  # of an embedding in a projector
SHOWN, COLUMNS, SIDE = 16, 4, 128  # pictures of a batch, a row, and their longest side in pixels

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


def sampled(values: NDArray[np.floating], most: int = SAMPLED) -> Floats:
    """values of any shape -> at most so many of them, evenly spaced."""
    flat = np.asarray(values).reshape(-1)
    return flat[:: -(-flat.size // most) or 1].astype(np.float32)


def weights_of(network: nn.Layer) -> dict[str, Floats]:
    """Samples of the weights (not of biases and the like) of each part of a network, GROUPS parts at most."""
    tables = {name: value for name, value in network.named_parameters() if len(value.shape) > 1}
    found = {}
    for part, names in grouped(list(tables)).items():
        share = max(1, SAMPLED // len(names))
        found[part] = np.concatenate([sampled(_array(tables[name]), share) for name in names])
    return found


def _array(value: Tensor) -> NDArray[np.floating]:
    return as_array(value) if value.place.is_cpu_place() else value.numpy()


def grouped(names: list[str]) -> dict[str, list[str]]:
    """Names of weights, as a.b.c -> at most GROUPS of them by their first words, as many words as that allows."""
    longest = max((name.count(".") + 1 for name in names), default=1)
    for words in range(longest, 0, -1):
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(".".join(name.split(".")[:words]), []).append(name)
        if len(groups) <= GROUPS:
            return groups
    return {"all": names}


def grid(images: Floats, spec: PictureSpec) -> Picture:
    """images (B, C, H, W) as the network takes them -> the first SHOWN of them as one picture, RGB (h, w, 3)."""
    pixels = images[:SHOWN].transpose(0, 2, 3, 1)
    pixels = pixels[..., ::-1] if spec.color_order == "BGR" else pixels
    pixels = pixels * np.array(spec.std, np.float32) + np.array(spec.mean, np.float32)
    made = [_small(np.clip(np.rint(255.0 * picture), 0, 255).astype(np.uint8)) for picture in pixels]
    made += [np.full_like(made[0], 255)] * (-len(made) % min(COLUMNS, len(made)))
    rows = [made[start : start + COLUMNS] for start in range(0, len(made), COLUMNS)]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    return sheet if sheet.shape[2] == 3 else np.repeat(sheet, 3, axis=2)


def _small(picture: Picture) -> Picture:
    """(h, w, C) -> at most SIDE pixels long."""
    height, width, channels = picture.shape
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    made: Picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)
    return made


def shown_rows(labels: Rows) -> Rows:
    """labels (N,) -> which pictures to look at, class by class: all, or EMBEDDED at most of evenly spaced classes."""
    order = np.argsort(labels, kind="stable")
    if len(order) <= EMBEDDED:
        return order
    classes, counts = np.unique(labels, return_counts=True)
    wanted = max(1, min(len(classes), int(EMBEDDED / counts.mean())))
    chosen = classes[np.linspace(0, len(classes) - 1, wanted).round().astype(int)]
    return order[np.isin(labels[order], chosen)][:EMBEDDED]


def unit(embeddings: Floats) -> Floats:
    """(N, D) -> rows of length 1; a row of 0 stays."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    made: Floats = np.asarray(embeddings / np.where(lengths > 0, lengths, 1.0), np.float32)
    return made


def projected(embeddings: Floats) -> Floats:
    """embeddings (N, D) -> (N, K), K = min(N, D, DIRECTIONS): at length 1, less their mean, along the directions in
    which they differ most.

    VisualDL's page draws nonsense above 200 numbers (it cuts rows at the wrong places), and its PCA leaves the mean in.
    """
    rows = unit(embeddings)
    rows = (rows - rows.mean(axis=0)).astype(np.float64)
    wide = rows.shape[0] < rows.shape[1]  # the smaller of both matrices has the same directions
    values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    found = vectors * np.sqrt(np.maximum(values, 0.0)) if wide else rows @ vectors
    made: Floats = np.asarray(found[:, ::-1][:, :DIRECTIONS], np.float32)
    return made


def lying(embeddings: Floats, labels: Rows) -> dict[str, Floats]:
    """embeddings (N, D), labels (N,) -> samples of their lengths, of the cosines within classes and between classes."""
    units = unit(embeddings)
    upper = np.triu(np.ones((len(units), len(units)), bool), 1)
    same = labels[:, None] == labels
    cosines = np.clip(units @ units.T, -1.0, 1.0)
    found = {
        "embedding_norm": np.linalg.norm(embeddings, axis=1),
        "positive_similarity": cosines[upper & same],
        "negative_similarity": cosines[upper & ~same],
    }
    return {name: sampled(values) for name, values in found.items()}
