"""What a page is made of, as eval has found it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metric_learning.evaluate import Embedded, HardPair
from metric_learning.report import Report


@dataclass(frozen=True)
class Material:
    """The report, and what lies behind its figures.

    embedded: the pictures, where they have classes (a list of pairs has none), and the names of those by label.
    histograms: group -> counts (2, BINS) of the scores of pairs of one class and of two. hardest: of a list of pairs
    those that are most wrong. run: the folder of the run that the weights are of. trained: some of the classes were
    trained on. made: when, to say so on the page.
    """

    report: Report
    embedded: Embedded | None = None
    classes: Sequence[str] = ()
    histograms: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    hardest: Sequence[HardPair] = ()
    run: Path | None = None
    trained: bool = False
    made: str = ""
