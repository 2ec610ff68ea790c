"""Galleries: what they find, hold, refuse and write."""

import contextlib
import io
import os
import zipfile

import naive_metrics as naive
import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.gallery import Gallery

MODEL = {"weights": "w", "digest": "d"}


def gallery(count=30, size=6, seed=0) -> Gallery:
    rows = np.random.default_rng(seed).integers(-2, 3, (count, size)).astype(np.float32)  # with many ties
    return Gallery(rows, [f"{i}.jpg" for i in range(count)], dict(MODEL))


@pytest.mark.parametrize("k", [1, 7, 30, 99])
def test_search_is_the_naive_ranking_ties_by_row(k):
    found, queries = gallery(), gallery(100, seed=1).embeddings
    found.embeddings[7] = found.embeddings[3]
    cosines, rows = found.search(queries, k)
    assert cosines.shape == rows.shape == (100, min(k, 30))
    for query, values, order in zip(queries, cosines, rows, strict=True):
        exact = np.array([naive.cosine(query, row) for row in found.embeddings])
        np.testing.assert_allclose(values, np.sort(exact)[::-1][: len(values)], atol=1e-6)
        np.testing.assert_allclose(exact[order], values, atol=1e-6)
        assert (np.diff(values) <= 0).all()
        assert all(a < b for a, b, same in zip(order, order[1:], np.diff(values) == 0, strict=False) if same)


def test_faiss_finds_the_same(monkeypatch):
    pytest.importorskip("faiss")
    found, queries = gallery(500), gallery(50, seed=1).embeddings
    found.embeddings[100:200] = found.embeddings[:100]
    assert found._index.by == "faiss"
    by_faiss = found.search(queries, 9)
    monkeypatch.setattr("metric_learning.gallery.find_spec", lambda name: None)
    plain = gallery(500)
    plain.embeddings[100:200] = plain.embeddings[:100]
    assert plain._index.by == "numpy"
    for a, b in zip(by_faiss, plain.search(queries, 9), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_query_finds_what_many_find(monkeypatch):
    monkeypatch.setattr("metric_learning.gallery.find_spec", lambda name: None)
    found, queries = gallery(300), gallery(50, seed=1).embeddings
    alone = [found.search(queries[i : i + 1], 9) for i in range(50)]
    for a, b in zip(found.search(queries, 9), zip(*alone, strict=True), strict=True):
        np.testing.assert_array_equal(a, np.concatenate(b))


def test_add_replaces_and_remove_takes_out():
    first = gallery(4)
    assert (first.known_stamps == -1).all()
    new = np.full((3, 6), 9, np.float32) * [[1], [2], [3]]
    more = first.add(new.astype(np.float32), ["new.jpg", "2.jpg", "last.jpg"])
    assert more.paths == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "new.jpg", "last.jpg"]
    np.testing.assert_array_equal(more.embeddings[[4, 2, 5]], new)
    np.testing.assert_array_equal(more.embeddings[[0, 1, 3]], first.embeddings[[0, 1, 3]])
    less = more.remove(["0.jpg", "new.jpg"])
    assert less.paths == ["1.jpg", "2.jpg", "3.jpg", "last.jpg"] and less.embeddings[1, 0] == 18
    stamped = less.add(less.embeddings[:2], ["3.jpg", "x.jpg"], np.array([[5, 6], [7, 8]])).remove(["1.jpg"])
    assert stamped.known_stamps.tolist() == [[-1, -1], [5, 6], [-1, -1], [7, 8]]
    assert stamped.add(less.embeddings[:1], ["3.jpg"]).known_stamps[1].tolist() == [-1, -1]
    assert len(first) == 4 and len(less.remove(less.paths)) == 0
    assert less.remove(less.paths).search(new, 3)[1].shape == (3, 0)
    with pytest.raises(UserError, match=r"no picture 'x\.jpg'"):
        more.remove(["x.jpg"])
    with pytest.raises(UserError, match="6 numbers"):
        more.add(new[:, :2], ["a", "b", "c"])
    with pytest.raises(UserError, match="2 paths for 1 rows"):
        more.add(new[:1], ["a", "b"])
    with pytest.raises(UserError, match="3 paths for 3 rows"):
        more.add(new, ["a", "b", "c"], np.zeros((1, 2), np.int64))


def test_numbers_and_names_of_other_types_are_written_as_they_are_read(tmp_path):
    rows = np.random.default_rng(0).random((2, 6))
    Gallery(rows, [tmp_path / "a.jpg", tmp_path / "b.jpg"], MODEL).write(tmp_path / "g.npz")
    found = Gallery.read(tmp_path / "g.npz")
    assert found.paths == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]
    np.testing.assert_array_equal(found.embeddings, rows.astype(np.float32))


def test_another_models_gallery_is_refused():
    gallery().check_model("d", "w")
    with pytest.raises(UserError, match="other weights"):
        gallery().check_model("e", "v")
    with pytest.raises(UserError, match="other weights made them"):
        gallery().search(np.ones((1, 5)), 1)


def test_embeddings_made_in_another_way_are_refused():
    made = {**MODEL, "flip_test": False, "picture": {"shape": [3, 16, 16], "test_crop": 1.0}}
    kept = Gallery(gallery().embeddings, gallery().paths, made)
    kept.check_model("d", "w", made | {"weights": "moved", "picture": {"shape": (3, 16, 16), "test_crop": 1.0}})
    kept.check_model("d", "w", MODEL | {"new": 1})
    gallery().check_model("d", "w", made)  # an older file does not say it
    for changed, said in (({"flip_test": True}, "flip_test False, not True"), ({"picture": {"test_crop": 0.5}}, "0.5")):
        with pytest.raises(UserError, match=said):
            kept.check_model("d", "w", made | changed)


def test_written_whole_and_read_back(tmp_path):
    stamps = np.arange(60).reshape(30, 2)
    found = Gallery(gallery().embeddings, gallery().paths, MODEL, stamps)
    found.write(tmp_path / "g.npz")
    again = Gallery.read(tmp_path / "g.npz")
    np.testing.assert_array_equal(again.known_stamps, stamps)
    assert again.paths == found.paths and again.model == MODEL and os.listdir(tmp_path) == ["g.npz"]
    np.testing.assert_array_equal(again.embeddings, found.embeddings)
    Gallery(found.embeddings[:0], [], MODEL).write(tmp_path / "g.npz")
    assert len(Gallery.read(tmp_path / "g.npz")) == 0


def refused(place):
    with pytest.raises(UserError) as caught:
        Gallery.read(place)
    assert "\n" not in str(caught.value)


def test_parts_that_lie_about_their_size_and_bombs_are_refused(tmp_path):
    gallery().write(tmp_path / "g.npz")
    parts = dict(np.load(tmp_path / "g.npz"))
    np.savez_compressed(tmp_path / "bomb.npz", **parts | {"embeddings": np.zeros((30, 10**5), np.float32)})
    refused(tmp_path / "bomb.npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    with zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive, zipfile.ZipFile(tmp_path / "g.npz") as real:
        archive.writestr("embeddings.npy", header.getvalue())
        for name in ("paths.npy", "model.npy"):
            archive.writestr(name, real.read(name))
    refused(tmp_path / "liar.npz")
    wrong = [{"embeddings": parts["embeddings"][:5]}, {"paths": np.arange(30)}, {"model": np.array("[]")}]
    wrong += [{"stamps": parts["stamps"][:5]}, {"stamps": np.full((30, 2), "x")}]
    wrong += [{"embeddings": parts["embeddings"] * np.nan}, {"embeddings": parts["embeddings"].astype("f8")}]
    for changed in wrong:
        np.savez(tmp_path / "wrong.npz", **parts | changed)
        refused(tmp_path / "wrong.npz")


def test_mutated_files_are_read_or_refused(tmp_path):
    gallery(3).write(tmp_path / "g.npz")
    whole = (tmp_path / "g.npz").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
        (tmp_path / "m.npz").write_bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.2 else data)
        with contextlib.suppress(UserError):
            Gallery.read(tmp_path / "m.npz")
