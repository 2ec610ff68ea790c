"""k-reciprocal re-ranking against the paper's equations in loops, and at its edges."""

import numpy as np
import pytest
from naive_reranking import final_distances
from teams import run_team
from test_retrieval import tied_embeddings

from metric_learning.checks import UserError
from metric_learning.metrics import reranking
from metric_learning.metrics.cosine import hide_self
from metric_learning.metrics.reranking import Rerank, Reranked, reranked_hits
from metric_learning.metrics.retrieval import retrieval_metrics

PAPER = Rerank()


def clusters(seed: int, count: int = 40, classes: int = 8, size: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return rng.normal(size=(classes, size))[labels] + rng.normal(size=(count, size)), labels


def scores(queries, gallery=None, how=PAPER, **changed) -> np.ndarray:
    slabs = [slab.copy() for _, slab in Reranked(queries, gallery, how, **changed).slabs()]
    return np.concatenate(slabs) if slabs else np.empty((0, 0))


def expected(embeddings, how: Rerank) -> np.ndarray:
    return 1 - np.array(final_distances(embeddings, how.k1, how.k2, how.weight))


SETTINGS = [Rerank(), Rerank(6, 3, 0.3), Rerank(5, 1, 0.0), Rerank(7, 7, 0.9), Rerank(1, 1, 0.5), Rerank(200, 2, 0.1)]


@pytest.mark.parametrize("how", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", ["clusters", "ties and duplicates"])
@pytest.mark.sweep
def test_the_scores_are_those_of_the_paper(how, kind, monkeypatch):
    monkeypatch.setattr(reranking, "BLOCK", 7)
    monkeypatch.setattr(reranking, "PAIRS", 50)
    for seed in range(2):
        rows = clusters(seed)[0] if kind == "clusters" else tied_embeddings(np.random.default_rng(seed), 30)
        np.testing.assert_allclose(scores(rows, how=how, chunk=16), expected(rows, how), atol=2e-6)


def test_a_gallery_is_ranked_with_the_queries_in_one_set():
    rows, how = clusters(3)[0], Rerank(6, 3, 0.3)
    found = scores(rows[:9], rows[9:], how)
    np.testing.assert_allclose(found, expected(rows, how)[:9, 9:], atol=2e-6)
    np.testing.assert_allclose(reranked_hits(rows[0], rows[1:], how), expected(rows, how)[0, 1:], atol=2e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_fewer_pictures_than_neighbours(count):
    rows = clusters(1)[0][:count]
    np.testing.assert_allclose(scores(rows), expected(rows, Rerank()), atol=2e-6)


def test_equal_pictures_and_zero_rows_and_one_class():
    rows = np.repeat(clusters(2)[0][:4], 6, axis=0)
    rows[5] = 0
    np.testing.assert_allclose(scores(rows), expected(rows, Rerank()), atol=2e-6)
    figures = retrieval_metrics(rows, np.zeros(24), rerank=Rerank())
    assert figures["recall@1"] == figures["map@r"] == 1
    assert retrieval_metrics(rows[:0], [], rerank=Rerank())["queries"] == 0


@pytest.mark.parametrize("given_gallery", [False, True])
def test_lambda_1_is_the_original_order(given_gallery):
    rows, labels = clusters(4, 300, 30)
    apart = {"gallery": rows[100:], "gallery_labels": labels[100:]} if given_gallery else {}
    some = slice(100) if given_gallery else slice(None)
    plain = retrieval_metrics(rows[some], labels[some], **apart)
    assert retrieval_metrics(rows[some], labels[some], rerank=Rerank(weight=1), **apart) == plain
    assert retrieval_metrics(rows[some], labels[some], rerank=Rerank(weight=0), **apart) != plain
    hits = np.argsort(-reranked_hits(rows[0], rows[1:], Rerank(weight=1)), kind="stable")
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert hits.tolist() == np.argsort(-(units[1:] @ units[0]), kind="stable").tolist()


def test_the_figures_are_those_of_the_order(monkeypatch):
    rows, labels = clusters(5, 60)
    how = Rerank(6, 3, 0.3)
    wanted = expected(rows, how).astype(np.float32)
    hide_self(wanted, 0)
    order = np.argsort(-wanted, axis=1, kind="stable")
    hits = labels[order[:, :1]] == labels[:, None]
    found = retrieval_metrics(rows, labels, rerank=how)
    assert found["recall@1"] == pytest.approx(hits.mean()) and found["valid"] == 60
    assert found["map@r"] > retrieval_metrics(rows, labels)["map@r"]  # what it is for
    assert retrieval_metrics(rows, labels, rerank=how, chunk=16) == found
    for share in run_team(3, lambda team: retrieval_metrics(rows, labels, rerank=how, chunk=16, team=team)):
        assert share == found


def test_what_is_refused(monkeypatch):
    rows = clusters(0)[0]
    for wrong in ({"k1": 0}, {"k1": 201}, {"k2": 0}, {"k1": 5, "k2": 6}, {"weight": -0.1}, {"weight": np.nan}):
        with pytest.raises(UserError, match="of the re-ranking must be"):
            Rerank(**wrong)
    spoilt = rows.copy()
    spoilt[7, 3] = np.nan
    for given in ((spoilt, None), (rows, spoilt)):
        with pytest.raises(UserError, match="must be finite; row"):
            scores(*given)
    with pytest.raises(UserError, match="must be finite"):
        reranked_hits(spoilt[7], rows, Rerank())
    monkeypatch.setattr(reranking, "LIMIT", 39)
    with pytest.raises(UserError, match="takes 39 pictures at most; got 40"):
        scores(rows)
