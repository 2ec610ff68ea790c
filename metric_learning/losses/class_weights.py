"""What each class weighs in the mean over a batch."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError, check_range, suggestion


def balanced_weights(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """counts (C,), training pictures of each class -> n / (C n_c) (C,), scikit-learn's `balanced`.

    So every class has the same share of the loss, and a picture weighs 1 in the mean. A class without pictures counts
    nowhere; its weight is 1.
    """
    there = counts > 0
    found = np.ones(len(counts))
    found[there] = counts.sum() / (there.sum() * counts[there])
    return found


def named_weights(classes: Sequence[str], wanted: Mapping[str, float]) -> NDArray[np.float64]:
    """classes: the C names; wanted: name -> weight above 0 -> weights (C,), 1 where not named; may raise UserError."""
    found = np.ones(len(classes))
    for name, weight in wanted.items():
        check_range(f"--class_weights of {name}", weight, above=0)
        if name not in classes:
            near = suggestion(name, classes)
            raise UserError(f"--class_weights names {name!r}, which is none of the {len(classes)} classes.{near}")
        found[classes.index(name)] = weight
    return found
