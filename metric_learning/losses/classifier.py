"""What an element-wise loss has learnt of its classes, to say by it which class a picture is of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.losses.element import ElementLoss
from metric_learning.losses.pool import PoolCenters

Floats = NDArray[np.float32]
WEIGHT, BIAS = "classifier.weight", "classifier.bias"


@dataclass(frozen=True, eq=False)
class Classifier:
    """weight (C, D) and bias (C,) or None, float32. The logits of embeddings x (N, D), without any margin, are
    scale cos(x, W_j) where `cosine`, else x.W_j + b_j.

    Raises UserError where the arrays do not fit each other or are not finite.
    """

    weight: Floats
    bias: Floats | None
    cosine: bool
    scale: float = 1.0

    def __post_init__(self) -> None:
        weight, bias = self.weight, self.bias
        fits = weight.ndim == 2 and min(weight.shape) > 0 and (bias is None or bias.shape == weight.shape[:1])
        finite = fits and np.isfinite(weight).all() and (bias is None or np.isfinite(bias).all())
        if not finite or not 0 < self.scale < np.inf or (self.cosine and bias is not None):
            shapes = f"weight {weight.shape}, bias {None if bias is None else bias.shape}, scale {self.scale}"
            raise UserError(f"A classifier needs a finite weight (C, D), bias (C,), scale above 0; got {shapes}.")

    def first(self, count: int) -> "Classifier":
        """The first so many classes of it."""
        bias = None if self.bias is None else self.bias[:count]
        return Classifier(self.weight[:count], bias, self.cosine, self.scale)

    def logits(self, embeddings: NDArray[np.floating[Any]]) -> Floats:
        """embeddings (N, D) -> logits (N, C) float32."""
        x = np.asarray(embeddings, np.float32)
        if x.ndim != 2 or x.shape[1] != self.weight.shape[1]:
            raise UserError(f"This classifier takes embeddings (N, {self.weight.shape[1]}); got {x.shape}.")
        if self.cosine:
            return np.float32(self.scale) * (_unit(x) @ _unit(self.weight).T)
        product: Floats = x @ self.weight.T
        return product if self.bias is None else product + self.bias

    def probabilities(self, embeddings: NDArray[np.floating[Any]]) -> Floats:
        """embeddings (N, D) -> softmax of the logits (N, C), float32."""
        logits = self.logits(embeddings)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Floats = powers / powers.sum(axis=1, keepdims=True)
        return shares

    def to_arrays(self) -> tuple[dict[str, Floats], dict[str, Any]]:
        """(arrays, metadata) for a safetensors file."""
        arrays = {WEIGHT: self.weight} | ({} if self.bias is None else {BIAS: self.bias})
        return arrays, {"cosine": self.cosine, "scale": self.scale}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> Self:
        """The reverse of `to_arrays`; a UserError for what can't be one. Other arrays of the file are not looked at."""
        try:
            weight, bias = np.asarray(arrays[WEIGHT], np.float32), arrays.get(BIAS)
            cosine, scale = metadata["cosine"], float(metadata["scale"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"The saved classifier can't be used: {' '.join(str(error).split())}.") from error
        if not isinstance(cosine, bool):
            raise UserError(f"The saved classifier can't be used: cosine is {cosine!r}.")
        return cls(weight, None if bias is None else np.asarray(bias, np.float32), cosine, scale)


def classifier_of(loss: ElementLoss) -> Classifier:
    """The classes of a loss as a Classifier, whole on every process; all of them must call it.

    The scale is the margin's own; SphereFace's is that number too, where its paper has the embedding's length.
    Raises UserError for a pool, which learns no centres.
    """
    if isinstance(loss.centers, PoolCenters):
        raise UserError("--centers=pool learns no class centres, so there is no classifier. Take --centers=all.")
    training = loss.centers.training
    loss.centers.eval()  # else partial centres would show a sample of the classes
    columns = loss.centers(paddle.zeros([1], "int64"))
    loss.centers.training = training
    bias = None if columns.bias is None else _whole(columns.bias)
    return Classifier(_whole(columns.weight), bias, loss.margin.normalized, float(getattr(loss.margin, "scale", 1.0)))


def _whole(rows: Tensor) -> Floats:
    """The rows of all processes, in the order of the classes."""
    found: Floats = np.concatenate(dist.all_gather_object(rows.detach().numpy())).astype(np.float32)
    return found


def _unit(x: Floats) -> Floats:
    """x (..., D) -> rows of length 1; a row of 0 stays."""
    length = np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True)
    unit: Floats = (x / np.where(length > 0, length, 1.0)).astype(np.float32)
    return unit
