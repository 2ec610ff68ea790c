"""Pictures that lie between two classes."""

import numpy as np
from numpy.typing import NDArray


def uncertain(probabilities: NDArray[np.floating], band: float) -> NDArray[np.int64]:
    """probabilities (N, C), C >= 2 -> the rows whose two highest differ by at most 2 `band`, the closest first.

    Of two classes: those with a probability in 0.5 - band .. 0.5 + band.
    """
    top = np.sort(np.asarray(probabilities, np.float64), axis=1)[:, -2:]
    gap = top[:, 1] - top[:, 0]
    rows = np.flatnonzero(gap <= 2 * band + 1e-9)  # 0.55 - 0.45 is a little more than 0.1
    found: NDArray[np.int64] = rows[np.argsort(gap[rows], kind="stable")]
    return found
