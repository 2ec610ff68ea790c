"""Fusion: one small head over the embeddings of several models."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import UserError
from metric_learning.metrics.classification import as_labels, log_loss
from metric_learning.metrics.cosine import matrix_of, unit_rows
from metric_learning.metrics.softmax_regression import fit, softmax

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]
Split = tuple[Floats, Labels, Floats, Labels]  # features and labels to fit on, and others to choose by

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
FOLDS = 5
COARSE = 1e-4  # the tolerance of a fit that only ranks penalties
HEAD = "fusion head"


@dataclass(frozen=True)
class FusionHead:
    """Classes from the embeddings of several models: softmax(sum over m of e_m / |e_m| W_m + bias).

    weight (sum of D_m, C): the W_m one below the other; bias (C,), both float32. sizes: the D_m. penalty: the strength
    of the L2 penalty, and log_loss: what it reached on the pictures that it was chosen by (None: nothing to choose by).
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    sizes: tuple[int, ...]
    penalty: float
    log_loss: float | None = None

    def probabilities(self, embeddings: Sequence[ArrayLike]) -> Floats:
        """embeddings: an array (N, D_m) a model, in the order of the fit -> (N, C); UserError for other shapes."""
        units = _units(embeddings)
        found = tuple(part.shape[1] for part in units)
        if found != self.sizes:
            raise UserError(
                f"The {HEAD} was fitted on embeddings of sizes {_said(self.sizes)}; got {_said(found)}. "
                "Name the same models in the same order."
            )
        return softmax(np.hstack(units).astype(np.float64) @ self.weight.astype(np.float64) + self.bias)

    def to_arrays(self) -> tuple[Arrays, dict[str, Any]]:
        """(float32 arrays by name, JSON-able metadata), for a safetensors file."""
        said = {"kind": HEAD, "sizes": list(self.sizes), "penalty": self.penalty, "log_loss": self.log_loss}
        return {"weight": self.weight, "bias": self.bias}, said

    @classmethod
    def from_arrays(cls, arrays: Arrays, metadata: dict[str, Any]) -> "FusionHead":
        """The reverse of `to_arrays`; UserError for what is no such head: a stranger may have made the file."""
        sizes, weight, bias = metadata.get("sizes"), arrays.get("weight"), arrays.get("bias")
        if (
            metadata.get("kind") != HEAD
            or not (isinstance(sizes, list) and sizes and all(type(size) is int and size > 0 for size in sizes))
            or not (weight is not None and weight.ndim == 2 and weight.shape[0] == sum(sizes) and weight.shape[1] > 1)
            or not (bias is not None and bias.shape == weight.shape[1:])
            or not all(a.dtype == np.float32 and np.isfinite(a).all() for a in (weight, bias))
        ):
            raise UserError(f"These arrays are no {HEAD}, or a broken one. Fit one anew.")
        return cls(
            weight, bias, tuple(sizes), _number(metadata.get("penalty")) or 0.0, _number(metadata.get("log_loss"))
        )


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and abs(value) < 1e300 else None


def _said(sizes: Sequence[int]) -> str:
    return " + ".join(map(str, sizes)) or "none"


def _units(embeddings: Sequence[ArrayLike]) -> list[NDArray[np.float32]]:
    """Rows of length 1: what embeddings are compared by is their direction, and lengths differ between models."""
    parts = [
        unit_rows(matrix_of(part, what := f"embeddings of model {i + 1}"), what) for i, part in enumerate(embeddings)
    ]
    if not parts or len({len(part) for part in parts}) > 1:
        counts = ", ".join(f"{len(part):,}" for part in parts) or "no models"
        raise UserError(f"A {HEAD} takes at least one model, and of each as many rows; got {counts}.")
    return parts


@dataclass(frozen=True)
class _Scaling:
    """Moves each model's directions to mean 0 and mean squared length 1, one factor a model.

    Then one penalty means the same to every model, however close together its embeddings lie, and a model's embeddings
    may be turned without a change in the result; scaling each number by itself would blow up those that hold nothing.
    """

    means: Floats  # (D,), D the sum of the sizes
    factors: Floats  # (D,)

    @classmethod
    def of(cls, units: Sequence[NDArray[np.float32]]) -> "_Scaling":
        means = [part.mean(axis=0, dtype=np.float64) for part in units]
        spreads = [np.sqrt(((part - mean) ** 2).sum(axis=1).mean()) for part, mean in zip(units, means, strict=True)]
        factors = [np.full(len(m), 1.0 / s if s > 1e-6 else 1.0) for m, s in zip(means, spreads, strict=True)]
        return cls(np.concatenate(means), np.concatenate(factors))

    def features(self, units: Sequence[NDArray[np.float32]]) -> Floats:
        features = np.hstack(units).astype(np.float64)
        features -= self.means
        features *= self.factors
        return features

    def head(self, weights: Floats, sizes: tuple[int, ...], penalty: float, reached: float | None) -> FusionHead:
        """weights (D + 1, C) for scaled features -> the head for plain ones."""
        weight = weights[:-1] * self.factors[:, None]
        bias = weights[-1] - self.means @ weight
        return FusionHead(weight.astype(np.float32), bias.astype(np.float32), sizes, penalty, reached)


def fit_fusion(
    embeddings: Sequence[ArrayLike],
    labels: ArrayLike,
    num_classes: int,
    val: tuple[Sequence[ArrayLike], ArrayLike] | None = None,
    seed: int = 0,
) -> FusionHead:
    """embeddings: an array (N, D_m) a model; labels (N,) in 0..num_classes-1 -> the head of the lowest log loss.

    The L2 penalty is chosen out of PENALTIES, from strong to weak, up to the first whose log loss is no lower on val,
    (embeddings, labels) of other pictures, which are not fitted on; without val, on FOLDS stratified folds of the
    training pictures, which the seed deals out. Raises UserError for shapes that do not fit together, numbers that are
    not finite, fewer than 2 classes, labels out of range and no pictures.
    """
    if num_classes < 2:
        raise UserError(f"num_classes must be at least 2; got {num_classes}.")
    units = _units(embeddings)
    truth = as_labels(labels, len(units[0]), num_classes)
    if not truth.size:
        raise UserError(f"A {HEAD} takes pictures to be fitted on; there are none.")
    sizes = tuple(part.shape[1] for part in units)
    scaling = _Scaling.of(units)
    features = scaling.features(units)
    if val is None:
        penalty, reached = _choose(lambda: _folds(features, truth, seed), num_classes)
    else:
        split = (features, truth, *_val_part(val, sizes, scaling, num_classes))
        penalty, reached = _choose(lambda: [split], num_classes)
    return scaling.head(fit(features, truth, num_classes, penalty), sizes, penalty, reached)


def _val_part(
    val: tuple[Sequence[ArrayLike], ArrayLike], sizes: tuple[int, ...], scaling: _Scaling, classes: int
) -> tuple[Floats, Labels]:
    units = _units(val[0])
    found = tuple(part.shape[1] for part in units)
    if found != sizes or not len(units[0]):
        raise UserError(
            f"val must hold pictures, and embeddings of sizes {_said(sizes)} as the training ones; "
            f"got {len(units[0]):,} and {_said(found)}."
        )
    return scaling.features(units), as_labels(val[1], len(units[0]), classes)


def _folds(features: Floats, truth: Labels, seed: int) -> Iterable[Split]:
    """FOLDS splits (fewer with fewer pictures), each class spread evenly over them; one picture alone gives none."""
    order = np.random.default_rng(seed).permutation(truth.size)
    order = order[np.argsort(truth[order], kind="stable")]
    folds = min(FOLDS, truth.size)
    fold_of = np.empty(truth.size, np.int64)
    fold_of[order] = np.arange(truth.size) % folds
    for fold in range(folds if folds > 1 else 0):
        held = fold_of == fold
        yield features[~held], truth[~held], features[held], truth[held]


def _choose(splits: Callable[[], Iterable[Split]], classes: int) -> tuple[float, float | None]:
    """(penalty, log loss): from strong to weak, up to the first that is no better on the held-out pictures."""
    best: tuple[float, float | None] = PENALTIES[0], None
    weights: dict[int, Floats] = {}
    for penalty in PENALTIES:
        total, count = 0.0, 0
        for i, (features, truth, held, held_truth) in enumerate(splits()):
            weights[i] = fit(features, truth, classes, penalty, weights.get(i), COARSE)
            found = log_loss(softmax(held @ weights[i][:-1] + weights[i][-1]), held_truth)
            total, count = total + (found or 0.0) * held_truth.size, count + held_truth.size
        if not count or (best[1] is not None and total / count >= best[1]):
            break
        best = penalty, total / count
    return best
