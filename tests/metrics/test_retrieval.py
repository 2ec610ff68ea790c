import naive_metrics as naive
import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.metrics import cosine
from metric_learning.metrics.retrieval import nearest, retrieval_metrics

KS = (1, 2, 10)


def tied_embeddings(rng, n):
    """Rows whose cosines are multiples of 1/4, exact in any order: many ties, some duplicates and zero rows."""
    rows = np.zeros((n, 6))
    for row in rows:
        kind = rng.integers(8)
        places = rng.permutation(6)[: 1 if kind == 0 else 4]
        row[places] = rng.choice([-1.0, 1.0], len(places)) * (kind != 1)
    return rows


def assert_same(got, expected):
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name] == (None if value is None else pytest.approx(value, abs=1e-12)), name


def test_worked_by_hand():
    # On a circle at 0, 10, 30, 100 and 110 degrees; classes a b a b c.
    angles = np.radians([0, 10, 30, 100, 110])
    got = retrieval_metrics(np.stack([np.cos(angles), np.sin(angles)], 1) * [[3.0]], list("abaab"), ks=(1, 2))
    # 0 (a): 10b 30a 100a 110b, positives at 2, 3.  10 (b): 0a 30a 100a 110b, at 4.  30 (a): 10b 0a 100a 110b, at 2, 3.
    # 100 (a): 110b 30a 10b 0a, at 2, 4.            110 (b): 100a 30a 10b 0a, at 3.
    assert got["queries"] == got["valid"] == 5
    assert got["without_positive"] == 0
    assert got["recall@1"] == 0
    assert got["recall@2"] == got["recall_all@2"] == 3 / 5
    assert got["precision@2"] == pytest.approx((3 * 1 / 2) / 5)
    assert got["r_precision"] == pytest.approx((3 * 1 / 2) / 5)
    assert got["map@r"] == pytest.approx((3 * (1 / 2) / 2) / 5)
    per_query = [(1 / 2 + 2 / 3) / 2, 1 / 4, (1 / 2 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2, 1 / 3]
    assert got["map"] == pytest.approx(sum(per_query) / 5)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("sort_rows", [False, True])
def test_against_the_loops_with_ties_duplicates_and_singletons(seed, sort_rows, monkeypatch):
    if sort_rows:
        monkeypatch.setattr("metric_learning.metrics.sorting.COUNTED_POSITIVES", 0)
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    x, labels = tied_embeddings(rng, n), rng.integers(0, max(1, n // 3), n)
    assert_same(retrieval_metrics(x, labels, ks=KS), naive.retrieval(x, labels, ks=KS))
    gallery, gallery_labels = tied_embeddings(rng, 15), rng.integers(0, 4, 15)
    got = retrieval_metrics(x, labels, gallery=gallery, gallery_labels=gallery_labels, ks=KS)
    assert_same(got, naive.retrieval(x, labels, gallery, gallery_labels, ks=KS))


@pytest.mark.parametrize("sort_rows", [False, True])
def test_against_the_loops_without_ties(sort_rows, monkeypatch):
    if sort_rows:
        monkeypatch.setattr("metric_learning.metrics.sorting.COUNTED_POSITIVES", 0)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((60, 5)) * rng.uniform(1e-3, 1e3, (60, 1)), rng.integers(0, 9, 60)
    assert_same(retrieval_metrics(x, labels, ks=KS), naive.retrieval(x, labels, ks=KS))


def test_the_short_way_gives_the_same_recall():
    rng = np.random.default_rng(1)
    x, labels = tied_embeddings(rng, 50), rng.integers(0, 12, 50)
    full, short = retrieval_metrics(x, labels), retrieval_metrics(x, labels, map_at_r=False)
    assert short == {name: full[name] for name in short}
    assert set(full) - set(short) == {"precision@1", "precision@10", "r_precision", "map@r", "map"}


@pytest.mark.parametrize("size", [3, 64, 127, 512])
@pytest.mark.sweep
def test_any_chunk_gives_the_same_bits(size):
    rng = np.random.default_rng(size)
    distinct = rng.standard_normal((150, size)).astype(np.float32)
    x = distinct[rng.integers(0, 150, 700)]
    labels = rng.integers(0, 20, 700)
    results = [retrieval_metrics(x, labels, chunk=chunk) for chunk in (None, 1, 7, 300, 1000)]
    assert all(result == results[0] for result in results)
    lists = [nearest(x, x, 9, exclude_self=True, chunk=chunk) for chunk in (None, 1, 7, 300, 1000)]
    for cosines, indices in lists:
        np.testing.assert_array_equal(cosines, lists[0][0])
        np.testing.assert_array_equal(indices, lists[0][1])


@pytest.mark.parametrize("size", [2, 64, 127, 512])
def test_exact_duplicates_tie_and_the_lowest_index_wins(size):
    # A BLAS product gives equal columns unequal last bits, so this fails if they are left as they come.
    rng = np.random.default_rng(size)
    kind = rng.integers(0, 40, 400)
    gallery = rng.standard_normal((40, size)).astype(np.float32)[kind]
    queries = rng.standard_normal((300, size)).astype(np.float32)
    cosines, indices = nearest(queries, gallery, 400)
    for row, order in zip(cosines, indices, strict=True):
        for which in range(40):
            places = np.flatnonzero(kind[order] == which)
            assert len(set(row[places].tolist())) <= 1
            assert (np.diff(order[places]) > 0).all()


def test_a_duplicate_counts_and_self_does_not():
    x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    # Row 0 finds its copy of another class first; row 2, at a right angle to both, takes the lower index.
    got = retrieval_metrics(x, [0, 1, 0], ks=(1, 2))
    assert (got["recall@1"], got["recall@2"], got["valid"]) == (1 / 2, 1, 2)
    assert got["recall_all@1"] == pytest.approx(1 / 3)
    assert retrieval_metrics(x, [0, 0, 1], ks=(1,))["recall@1"] == 1


def test_all_embeddings_equal_ranks_by_index():
    x, labels = np.ones((80, 3)), np.arange(80) % 2
    assert_same(retrieval_metrics(x, labels, ks=KS), naive.retrieval(x, labels, ks=KS))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_nothing_to_find_is_none_not_nan(n):
    got = retrieval_metrics(np.ones((n, 4)), np.arange(n))
    assert (got["queries"], got["valid"], got["without_positive"]) == (n, 0, n)
    assert got["recall@1"] is got["map@r"] is got["r_precision"] is got["map"] is got["precision@1"] is None
    assert got["recall_all@1"] == (0.0 if n else None)


def test_empty_gallery_and_labels_of_words():
    empty = retrieval_metrics(np.ones((2, 3)), ["a", "b"], gallery=np.ones((0, 3)), gallery_labels=[])
    assert (empty["valid"], empty["recall@1"], empty["recall_all@1"]) == (0, None, 0.0)
    found = retrieval_metrics(np.eye(3), ["ant", "bee", "fly"], gallery=np.eye(3)[:2], gallery_labels=["ant", "beetle"])
    assert (found["valid"], found["recall@1"]) == (1, 1.0)


def test_progress_adds_up():
    seen = []
    retrieval_metrics(np.eye(600), np.arange(600), chunk=256, progress=seen.append)
    assert sum(seen) == 600


def test_nearest_against_the_loops_and_past_the_end():
    rng = np.random.default_rng(3)
    x, gallery = tied_embeddings(rng, 20), tied_embeddings(rng, 9)
    for k in (1, 4, 9, 12):
        cosines, indices = nearest(x, gallery, k)
        assert cosines.shape == indices.shape == (20, k)
        for i in range(20):
            expected = naive.ranking(x[i], gallery)[:k]
            assert indices[i].tolist() == expected + [-1] * (k - len(expected))
            assert cosines[i, : len(expected)].tolist() == [naive.cosine(x[i], gallery[j]) for j in expected]
            assert np.isneginf(cosines[i, len(expected) :]).all()
    _, own = nearest(x, x, 19, exclude_self=True)
    assert own.tolist() == [naive.ranking(x[i], x, without=i) for i in range(20)]
    assert nearest(x[:1], x[:1], 1, exclude_self=True)[1].tolist() == [[-1]]
    assert nearest(x[:0], gallery, 2)[1].shape == (0, 2)


def test_rows_of_any_length_become_unit_rows():
    rows = np.array([[3.0, 4.0], [3e-200, 4e-200], [3e200, 4e200], [0.0, 0.0], [-0.0, -5.0]])
    units = cosine.unit_rows(rows)
    np.testing.assert_array_equal(units, np.array([[0.6, 0.8]] * 3 + [[0, 0], [0, -1]], np.float32))
    assert not np.signbit(units[4, 0])
    assert units.dtype == np.float32


def test_small_tiles_where_the_gallery_is_large():
    assert cosine.tile_rows(60502, 60502) == 256
    assert cosine.tile_rows(10**6, 10**6) == 64
    assert cosine.tile_rows(10**8, 10**8) == 16
    assert cosine.tile_rows(3, 60502) == 16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"embeddings": np.ones(3)}, "embeddings must be a"),
        ({"embeddings": [["a", "b"]] * 3}, "real numbers"),
        ({"embeddings": [[1.0, 2.0], [np.nan, 1.0], [np.inf, 0.0]]}, "row 1"),
        ({"labels": [1, 2]}, "labels must be one a row"),
        ({"gallery": np.ones((2, 2))}, "go together"),
        ({"gallery": np.ones((2, 5)), "gallery_labels": [1, 2]}, "2 numbers long and gallery 5"),
        ({"ks": (0,)}, "ks must be 1 or more"),
        ({"chunk": 0}, "chunk must be at least 1"),
    ],
)
def test_refusals_are_one_line(arguments, words):
    with pytest.raises(UserError, match=words) as error:
        retrieval_metrics(**{"embeddings": np.ones((3, 2)), "labels": [0, 0, 1], **arguments})
    assert "\n" not in str(error.value)


def test_nearest_refuses_what_makes_no_sense():
    with pytest.raises(UserError, match="k must be at least 1"):
        nearest(np.eye(2), np.eye(2), 0)
    with pytest.raises(UserError, match="exclude_self"):
        nearest(np.eye(2), np.eye(3)[:, :2], 1, exclude_self=True)
    with pytest.raises(UserError, match="use one model"):
        nearest(np.eye(2), np.eye(3), 1)
