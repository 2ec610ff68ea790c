"""The nearest by NumPy and by faiss: the same numbers, ties included, whatever the engine rounds."""

import sys
from types import SimpleNamespace

import naive_metrics as naive
import numpy as np
import pytest
from test_retrieval import tied_embeddings

from metric_learning.checks import UserError
from metric_learning.metrics import neighbours
from metric_learning.metrics.neighbours import nearest


class FlatIndex:
    """faiss's flat index, as badly as it is allowed to be: it rounds coarsely, and ties come in any order."""

    def __init__(self, size):
        self.size, self.rng = size, np.random.default_rng(0)

    def add(self, rows):
        self.rows = rows

    def search(self, queries, k):
        scores = (queries.astype(np.float64) @ self.rows.T.astype(np.float64)).astype(np.float32)
        scores += self.rng.uniform(-0.9, 0.9, scores.shape).astype(np.float32) * np.float32(
            neighbours.rounding(self.size)
        )
        order = np.argsort(-scores, axis=1)[:, :k]
        return np.take_along_axis(scores, order, 1), order


@pytest.fixture(params=["a fake", "faiss"])
def engine(request, monkeypatch):
    if request.param == "faiss":
        pytest.importorskip("faiss", reason="faiss is not installed; it is optional (pip install faiss-cpu)")
    else:
        monkeypatch.setitem(sys.modules, "faiss", SimpleNamespace(IndexFlatIP=FlatIndex))
    monkeypatch.setattr(neighbours, "QUERIES", 7)
    monkeypatch.setattr(neighbours, "FEW", 0)


def same(a, b):
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spare", [0, 2, 16])
def test_faiss_gives_the_numbers_of_numpy_with_ties_and_copies(seed, spare, engine, monkeypatch):
    monkeypatch.setattr(neighbours, "SPARE", spare)
    rng = np.random.default_rng(seed)
    x, gallery = tied_embeddings(rng, 30), tied_embeddings(rng, 40)
    for k in (1, 4, 39, 40, 60):
        found = nearest(x, gallery, k, search="faiss")
        same(found, nearest(x, gallery, k))
        assert found[1][3].tolist() == (naive.ranking(x[3], gallery) + [-1] * 60)[:k]
    same(nearest(x, x, 5, True, search="faiss"), nearest(x, x, 5, True))


def test_faiss_gives_the_numbers_of_numpy_without_ties(engine):
    rng = np.random.default_rng(0)
    x, gallery = rng.standard_normal((50, 127)), rng.standard_normal((300, 127))
    gallery[200:] = gallery[:100]  # and with copies
    same(nearest(x, gallery, 10, search="faiss"), nearest(x, gallery, 10))
    same(nearest(gallery, gallery, 3, True, search="faiss"), nearest(gallery, gallery, 3, True))
    cosines, indices = nearest(x, gallery, 10, search="faiss")
    units = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    expected = (units @ (x / np.linalg.norm(x, axis=1, keepdims=True)).T).T
    np.testing.assert_allclose(cosines, np.take_along_axis(expected, indices, 1), atol=1e-6)


def test_a_pair_has_one_cosine_whatever_it_is_computed_with():
    rng = np.random.default_rng(1)
    for size in (3, 127, 512):
        x = rng.standard_normal((60, size))
        cosines, indices = nearest(x, x, 60)
        whole = np.empty((60, 60), np.float32)
        np.put_along_axis(whole, indices, cosines, 1)
        for part in (slice(0, 1), slice(5, 38), slice(59, 60)):
            few, where = nearest(x[7:9], x[part], 60)
            held = where >= 0
            np.testing.assert_array_equal(few[held], whole[7:9][np.nonzero(held)[0], where[held] + part.start])


def test_without_faiss_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match="pip install faiss-cpu") as error:
        nearest(np.eye(3), np.eye(3), 1, search="faiss")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="faiss"):
        nearest(np.eye(3), np.eye(3), 1, search="fais")
