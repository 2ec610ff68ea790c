"""Retrieval in many small tiles, over several processes: the same figures as the loops, and the same bits."""

import naive_metrics as naive
import numpy as np
import pytest
from teams import run_team
from test_retrieval import KS, assert_same, tied_embeddings

from metric_learning.checks import UserError
from metric_learning.metrics import counting, ranks, retrieval_metrics, sorting


@pytest.fixture
def small_strips(monkeypatch):
    monkeypatch.setattr(ranks, "STRIP", 8)
    monkeypatch.setattr(ranks, "QUERIES", 5)
    monkeypatch.setattr(counting, "ROWS", 3)


def case(seed, most=60):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, most))
    x, labels = tied_embeddings(rng, n), rng.permutation(np.arange(n) // int(rng.integers(1, 5)))
    if seed % 3 == 0:  # copies within a class, and of other classes
        x[rng.integers(0, n, n // 4)] = x[rng.integers(0, n, n // 4)]
    gallery = tied_embeddings(rng, 2 * n // 3 + 1)
    return x, labels, gallery, rng.integers(0, n, len(gallery))


@pytest.mark.parametrize("rare", [0, 32, 10**9])
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.sweep
def test_ties_across_tiles_against_the_loops(seed, rare, small_strips, monkeypatch):
    monkeypatch.setattr(counting, "RARE", rare)
    x, labels, gallery, gallery_labels = case(seed)
    full = retrieval_metrics(x, labels, ks=KS)
    assert_same(full, naive.retrieval(x, labels, ks=KS))
    assert retrieval_metrics(x, labels, ks=KS, map_at_r=False).items() <= full.items()
    split = retrieval_metrics(x, labels, gallery=gallery, gallery_labels=gallery_labels, ks=KS)
    assert_same(split, naive.retrieval(x, labels, gallery, gallery_labels, ks=KS))
    monkeypatch.setattr(ranks, "NEAR_BYTES", 1)
    assert retrieval_metrics(x, labels, gallery=gallery, gallery_labels=gallery_labels, ks=KS) == split


def test_the_tiles_are_really_used(small_strips, monkeypatch):
    monkeypatch.setattr(sorting, "ranks_by_rows", None)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((100, 4)), np.arange(100) // 3
    assert_same(retrieval_metrics(x, labels, ks=KS), naive.retrieval(x, labels, ks=KS))


@pytest.fixture
def rough_products(monkeypatch):
    """A BLAS library that rounds each place of a product otherwise, as some do."""
    exact, rng = ranks.multiply, np.random.default_rng(0)

    def multiply(rows, columns, out):
        exact(rows, columns, out)
        out *= 1 + rng.integers(-2, 3, out.shape).astype(np.float32) * np.float32(2**-23)

    monkeypatch.setattr(ranks, "multiply", multiply)


@pytest.mark.parametrize("size", [3, 64, 127, 512])
def test_copies_of_other_classes_tie_with_the_positive(size, rough_products, monkeypatch):
    rng = np.random.default_rng(size)
    centres = rng.standard_normal((200, size)).astype(np.float32)
    # Of each class the centre and a picture near it; a copy of each centre bears the label of the next class.
    order = rng.permutation(600)
    x = np.concatenate([centres, centres + 0.01 * rng.standard_normal(centres.shape), centres]).astype(np.float32)[
        order
    ]
    labels = np.concatenate([np.arange(200), np.arange(200), np.roll(np.arange(200), 1) + 200])[order]
    place = np.argsort(order)
    lower = place[:200] < place[400:]  # so the picture near a centre finds its own class first
    for strip in (8, 64, 2048):
        monkeypatch.setattr(ranks, "STRIP", strip)
        got = retrieval_metrics(x, labels, ks=(1,))
        assert (got["valid"], got["recall@1"]) == (400, np.count_nonzero(lower) / 400), strip


def test_equal_rows_have_equal_cosines_in_every_tile(rough_products, monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((250, 127)).astype(np.float32)
    x[100:150] = x[:50]
    monkeypatch.setattr(ranks, "STRIP", 64)
    product, seen = ranks.Counting._product, []

    def checked(self, run, strip):
        scores = product(self, run, strip)
        units = self.found.gallery.rows
        for side, (first, last) in (("columns", self.strips[strip]), ("rows", self.runs[run])):
            rows = scores.T if side == "columns" else scores
            _, where = np.unique(units[first:last], axis=0, return_inverse=True)
            for one in np.flatnonzero(np.bincount(where.ravel()) > 1):
                found = rows[where.ravel() == one]
                seen.append(side)
                if side == "columns" or run != strip:
                    np.testing.assert_array_equal(found, np.broadcast_to(found[:1], found.shape))
        return scores

    monkeypatch.setattr(ranks.Counting, "_product", checked)
    retrieval_metrics(x, np.arange(250) // 5)
    assert {"rows", "columns"} == set(seen)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_several_processes_give_the_figures_of_one(seed, size, small_strips):
    rng = np.random.default_rng(seed)
    x, labels = rng.standard_normal((90, 7)), rng.permutation(np.arange(90) // 3)
    x[5:15] = x[:10]
    gallery, gallery_labels = rng.standard_normal((50, 7)), rng.permutation(np.arange(50) // 2)
    jobs = [
        lambda **team: retrieval_metrics(x, labels, **team),
        lambda **team: retrieval_metrics(x, labels, map_at_r=False, **team),
        lambda **team: retrieval_metrics(x, labels, gallery=gallery, gallery_labels=gallery_labels, **team),
        lambda **team: retrieval_metrics(x, labels // 10, chunk=16, **team),  # classes too large for the tiles
    ]
    for job in jobs:
        assert run_team(size, lambda team, job=job: job(team=team)) == [job()] * size


def test_more_processes_than_work():
    for n in (0, 1, 3):
        x, labels = np.eye(4)[:n], np.zeros(n)
        assert (
            run_team(4, lambda team, x=x, y=labels: retrieval_metrics(x, y, team=team))
            == [retrieval_metrics(x, labels)] * 4
        )


def test_the_tiles_are_dealt_out_evenly(monkeypatch):
    monkeypatch.setattr(ranks, "STRIP", 8)
    rng = np.random.default_rng(0)
    x, labels, done = rng.standard_normal((200, 5)), np.arange(200) // 4, {}
    product = ranks.Counting._product

    def counted(self, run, strip):
        done[self.team.rank] = done.get(self.team.rank, 0) + 1
        return product(self, run, strip)

    monkeypatch.setattr(ranks.Counting, "_product", counted)
    run_team(4, lambda team: retrieval_metrics(x, labels, team=team))
    strips = 25
    assert sum(done.values()) == strips * (strips + 1) // 2  # each pair of strips once
    assert max(done.values()) - min(done.values()) <= 2


def test_one_class_one_picture_and_k_beyond_the_gallery(small_strips):
    x = np.random.default_rng(0).standard_normal((30, 4))
    same = retrieval_metrics(x, np.zeros(30), ks=(1, 100))
    assert same["recall@1"] == same["map@r"] == same["r_precision"] == 1.0
    assert same["precision@100"] == pytest.approx(0.29)
    assert_same(retrieval_metrics(x, np.arange(30) // 2, ks=(100,)), naive.retrieval(x, np.arange(30) // 2, ks=(100,)))
    one = retrieval_metrics(x[:1], [0], ks=(1,))
    assert (one["queries"], one["valid"], one["recall@1"], one["map@r"]) == (1, 0, None, None)


def test_a_nan_is_named_by_its_row_though_rows_are_sorted():
    x = np.ones((9, 3))
    x[[4, 7]] = np.nan
    with pytest.raises(UserError, match="row 4 is not"):
        retrieval_metrics(x, np.arange(9)[::-1])


def test_progress_adds_up_over_tiles(small_strips):
    seen = []
    retrieval_metrics(np.eye(50), np.arange(50) // 2, progress=seen.append)
    assert sum(seen) == 50 and len(seen) > 5
