"""Which pictures lie between two classes, by hand."""

import numpy as np
import pytest

from metric_learning.metrics.uncertain import uncertain


@pytest.mark.parametrize(
    ("band", "expected"), [(0.0, [2]), (0.04, [2]), (0.05, [2, 1]), (0.06, [2, 1, 3]), (0.5, [2, 1, 3, 0])]
)
def test_of_two_classes_the_band_lies_around_a_half(band, expected):
    p0 = np.array([0.9, 0.55, 0.5, 0.44])
    assert uncertain(np.stack([p0, 1 - p0], axis=1), band).tolist() == expected


def test_of_more_classes_the_two_highest_count():
    rows = np.array([[0.6, 0.3, 0.1], [0.1, 0.45, 0.45], [0.34, 0.33, 0.33], [0.2, 0.4, 0.4]])
    assert uncertain(rows, 0.01).tolist() == [1, 3, 2]  # of equal ones the first
    assert uncertain(rows, 0.15).tolist() == [1, 3, 2, 0]
    assert uncertain(np.empty((0, 3)), 0.5).tolist() == []
