"""What element-wise and pair-wise losses share: the check of a batch, and figures for the log."""

from typing import Any

import numpy as np
import numpy.typing as npt
from paddle import Tensor, nn

from metric_learning.checks import UserError

Labels = npt.NDArray[np.int64]


class Loss(nn.Layer):
    """A loss that remembers some scalars of its last batch. They stay on the device until `figures` is read."""

    def __init__(self) -> None:
        super().__init__()
        self._measured: dict[str, Tensor | np.floating[Any]] = {}

    @property
    def figures(self) -> dict[str, float]:
        """Figures of the last batch, by name; empty before the first. Reading them waits for the device."""
        return {name: float(value.item()) for name, value in self._measured.items()}


def labels_on_host(embeddings: Tensor, labels: Tensor) -> Labels:
    """embeddings (B, D), labels (B,) integers -> labels as a NumPy array (B,). UserError if the shapes or dtype differ.

    A column of labels (B, 1) is refused: compared with its own transpose it would quietly give other pairs.
    """
    for what, given in (("embeddings", embeddings), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise UserError(
                f"{what} must be a Paddle tensor; got {type(given).__name__}. Use paddle.to_tensor({what})."
            )
    if len(embeddings.shape) != 2 or list(labels.shape) != [embeddings.shape[0]] or embeddings.shape[0] < 1:
        raise UserError(
            "A loss takes embeddings (B, D) and labels (B,) with B at least 1; "
            f"got {tuple(embeddings.shape)} and {tuple(labels.shape)}."
        )
    names: npt.NDArray[np.generic] = labels.numpy()
    if not np.issubdtype(names.dtype, np.integer):
        raise UserError(f"labels must be integers; got {names.dtype}. Relabel the classes 0..C-1.")
    return names.astype(np.int64)


def check_labels(names: Labels, num_classes: int) -> None:
    """Raise a UserError that names the first label (B,) outside 0..num_classes-1."""
    outside = names[(names < 0) | (names >= num_classes)]
    if len(outside):
        raise UserError(
            f"labels must be 0..{num_classes - 1} for {num_classes} classes; got {outside[0]}. "
            "Relabel the classes from 0, or give the number of classes that the data has."
        )
