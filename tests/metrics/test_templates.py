"""Templates against loops: mean within media, sum over media, length 1."""

import naive_metrics as naive
import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.metrics import template_embeddings, templates


def test_templates_by_hand():
    # t: medium a is the mean of (2, 0) and (4, 0), medium b is (0, 4): (3, 4). u: its medium a is another one.
    rows = [[2.0, 0.0], [0.0, 4.0], [0.0, -9.0], [4.0, 0.0]]
    names, found = template_embeddings(rows, ["t", "t", "u", "t"], ["a", "b", "a", "a"])
    assert names.tolist() == ["t", "u"] and found.dtype == np.float32
    assert found == pytest.approx(np.array([[0.6, 0.8], [0.0, -1.0]]))


@pytest.mark.parametrize("at_once", [1, 7, 8192])
@pytest.mark.parametrize("seed", range(5))
def test_templates_against_the_loops(seed, at_once, monkeypatch):
    monkeypatch.setattr(templates, "ROWS_AT_ONCE", at_once)
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    rows, template, media = rng.normal(size=(n, 5)) * 10, rng.integers(0, 8, n), rng.integers(0, 3, n)
    names, found = template_embeddings(rows.astype(np.float32), template, media)
    expected = naive.template_rows(rows.astype(np.float32).tolist(), template.tolist(), media.tolist())
    assert names.tolist() == sorted(expected)
    assert found == pytest.approx(np.array([expected[name] for name in names.tolist()]), abs=1e-6)


def test_order_of_the_pictures_is_nothing():
    rng = np.random.default_rng(7)
    rows, template, media, order = rng.normal(size=(30, 4)), np.arange(30) // 6, np.arange(30) % 4, rng.permutation(30)
    _, found = template_embeddings(rows, template, media)
    _, other = template_embeddings(rows[order], template[order], media[order])
    assert other == pytest.approx(found, abs=1e-6)


def test_many_frames_of_one_video_weigh_like_one_picture():
    _, found = template_embeddings([[1.0, 0.0]] * 9 + [[0.0, 1.0]], ["t"] * 10, ["video"] * 9 + ["photograph"])
    assert found[0] == pytest.approx([0.5**0.5, 0.5**0.5])


def test_pictures_that_cancel_out_are_zero_and_none_is_none():
    _, found = template_embeddings([[1.0, 0.0], [-1.0, 0.0]], ["t", "t"], ["a", "b"])
    assert found.tolist() == [[0.0, 0.0]]
    names, found = template_embeddings(np.ones((0, 3)), [], [])
    assert len(names) == 0 and found.shape == (0, 3)


@pytest.mark.parametrize(
    ("rows", "template", "media", "said"),
    [
        ([[1.0, np.nan]], ["t"], ["a"], "row 0 is not"),
        ([1.0], ["t"], ["a"], "array of real numbers"),
        ([[1.0]], ["t", "u"], ["a"], "templates must be one a row"),
        ([[1.0]], ["t"], [], "media must be one a row"),
    ],
)
def test_what_does_not_match_is_refused(rows, template, media, said):
    with pytest.raises(UserError, match=said):
        template_embeddings(rows, template, media)
