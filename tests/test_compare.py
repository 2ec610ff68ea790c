"""Embeddings in files, the similarity of two pictures."""

import json
import os

import cv2
import numpy as np
import pytest
from small_runs import write_pictures

from metric_learning import compare
from metric_learning.checks import UserError
from metric_learning.compare import embed_to_file, similarity
from metric_learning.data.loader import BadPictures
from metric_learning.data.transforms import PictureSpec
from metric_learning.extract import Reader, embed
from metric_learning.gallery import read_embeddings

SPEC = PictureSpec((3, 16, 16), (0.5,) * 3, (0.5,) * 3, test_crop=1.0)


class Means:
    """A predictor whose embedding is the mean colour of the left and of the right half; it counts its pictures."""

    precision = "float32"

    def __init__(self, fail_after: int = 10**9) -> None:
        self.seen, self.fail_after = 0, fail_after

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if self.seen + len(images) > self.fail_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        halves = images[..., :8].mean(axis=(2, 3)), images[..., 8:].mean(axis=(2, 3))
        return np.concatenate(halves, axis=1).astype(np.float32)


@pytest.fixture
def paths(tmp_path):
    return list(write_pictures(tmp_path / "pictures", 4, 3).paths)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(compare, "CHUNK", 5)


def reader(**changed) -> Reader:
    return Reader(SPEC, **{"batch_size": 2, "workers": 1, **changed})


def write(paths, output, predictor=None, model=None, share=1.0, may_be_none=False, **changed):
    bad = BadPictures(len(paths), share)
    model = model or {"weights": "w"}
    return embed_to_file(predictor or Means(), paths, reader(**changed), bad, output, model, may_be_none)


# ---- embedding


def test_embeddings_come_in_order_for_any_batch_size(paths):
    expected = np.concatenate([embed(Means(), [path], reader(), BadPictures(1))[1] for path in paths])
    for batch_size in (1, 5, 100):
        kept, found = embed(Means(), paths, reader(batch_size=batch_size, workers=0), BadPictures(12))
        assert kept.tolist() == list(range(12))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert len(np.unique(found.round(5), axis=0)) == 12


def test_the_flip_test_adds_the_mirror_image(paths):
    _, plain = embed(Means(), paths, reader(), BadPictures(12))
    _, both = embed(Means(), paths, reader(flip_test=True), BadPictures(12))
    np.testing.assert_allclose(both, plain + plain[:, [3, 4, 5, 0, 1, 2]], rtol=1e-5)
    assert not np.allclose(plain, plain[:, [3, 4, 5, 0, 1, 2]])


def test_bad_pictures_are_left_out_with_their_place(paths, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    mixed = [paths[0], str(tmp_path / "bad.jpg"), paths[1], str(tmp_path / "none.jpg")]
    bad = BadPictures(4, 1.0)
    kept, found = embed(Means(), mixed, reader(), bad)
    assert kept.tolist() == [0, 2] and len(found) == 2 and len(bad) == 2
    with pytest.raises(UserError, match="None of the pictures can be read"):
        embed(Means(), [mixed[1]], reader(), BadPictures(1, 1.0))


# ---- the file


def test_a_file_of_embeddings_holds_no_pickle(paths, tmp_path):
    output = tmp_path / "new" / "a.npz"
    assert write(paths, output, model={"weights": "w", "size": 3}) == (12, 0)
    with np.load(output, allow_pickle=False) as file:
        assert set(file.files) == {"embeddings", "paths", "model"}
        assert file["embeddings"].dtype == np.float32 and json.loads(str(file["model"])) == {"weights": "w", "size": 3}
    embeddings, names, model = read_embeddings(output)
    assert names == paths and model == {"weights": "w", "size": 3}
    np.testing.assert_array_equal(embeddings, embed(Means(), paths, reader(), BadPictures(12))[1])
    assert os.listdir(output.parent) == ["a.npz"]


@pytest.mark.parametrize(("fail_after", "done"), [(3, 0), (6, 5), (11, 10)])
def test_an_interrupted_file_goes_on_behind_its_last_chunk(paths, tmp_path, fail_after, done):
    output, whole = tmp_path / "a.npz", tmp_path / "whole.npz"
    write(paths, whole)
    with pytest.raises(KeyboardInterrupt):
        write(paths, output, Means(fail_after))
    assert not output.exists()
    again = Means()
    assert write(paths, output, again) == (12, 0)
    assert again.seen == 12 - done
    np.testing.assert_array_equal(read_embeddings(output)[0], read_embeddings(whole)[0])
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "pictures", "whole.npz"]


@pytest.mark.parametrize("other", ["paths", "model", "flip_test", "precision"])
def test_chunks_of_another_job_are_not_taken_over(paths, tmp_path, other):
    output = tmp_path / "a.npz"
    with pytest.raises(KeyboardInterrupt):
        write(paths, output, Means(11))
    again = Means()
    if other == "precision":
        again.precision = "bfloat16"
    changed = {"model": {"weights": "other"}} if other == "model" else {}
    changed |= {"flip_test": True} if other == "flip_test" else {}
    names = paths[::-1] if other == "paths" else paths
    write(names, output, again, **changed)
    assert again.seen == (24 if other == "flip_test" else 12)
    assert read_embeddings(output)[1] == names


def test_a_finished_file_is_made_anew_and_replaced_whole(paths, tmp_path):
    output = tmp_path / "a.npz"
    write(paths, output)
    with pytest.raises(KeyboardInterrupt):
        write(paths[:6], output, Means(3))
    assert len(read_embeddings(output)[1]) == 12
    write(paths[:6], output)
    assert len(read_embeddings(output)[1]) == 6


def test_chunks_without_a_readable_picture(paths, tmp_path):
    bad = []
    for number in range(6):
        bad.append(str(tmp_path / f"bad{number}.jpg"))
        (tmp_path / f"bad{number}.jpg").write_bytes(b"no picture")
    names = paths[:5] + bad + paths[5:]
    assert write(names, tmp_path / "a.npz") == (12, 6)
    assert read_embeddings(tmp_path / "a.npz")[1] == paths
    with pytest.raises(UserError, match="--max_bad_pictures"):
        write(names, tmp_path / "b.npz", share=0.01)
    with pytest.raises(UserError, match="None of the pictures can be read"):
        write(bad, tmp_path / "c.npz")
    assert not (tmp_path / "b.npz").exists() and not list(tmp_path.glob("c.npz*"))
    assert write(bad, tmp_path / "c.npz", may_be_none=True) == (0, 6)
    assert read_embeddings(tmp_path / "c.npz")[1] == []


def test_running_again_hides_no_bad_picture_and_takes_mended_ones(paths, tmp_path):
    """Two chunks with one bad picture each, of which one is allowed."""
    output, names = tmp_path / "e.npz", list(paths)
    for place, name in ((2, "first.png"), (7, "second.png")):
        names.insert(place, str(tmp_path / name))
        (tmp_path / name).write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(UserError, match="2 of 14 pictures cannot be read"):
            write(names, output, share=0.1)
    cv2.imwrite(names[2], np.full((9, 9, 3), 200, np.uint8))
    again = Means()
    assert write(names, output, again, share=0.1) == (13, 1)
    assert again.seen < 13 and read_embeddings(output)[1] == names[:7] + names[8:]
    expected = embed(Means(), read_embeddings(output)[1], reader(), BadPictures(13))[1]
    np.testing.assert_allclose(read_embeddings(output)[0], expected, rtol=1e-6)


def test_nothing_to_embed_and_nowhere_to_write(paths, tmp_path):
    with pytest.raises(UserError, match="no pictures to embed"):
        write([], tmp_path / "a.npz")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^Can't write .*--output\.$"):
        write(paths, tmp_path / "file" / "a.npz")


def test_names_that_are_no_utf8(paths, tmp_path):
    odd = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xe4.png")
    os.rename(paths[0], odd)
    write([odd, *paths[1:]], tmp_path / "a.npz")
    assert read_embeddings(tmp_path / "a.npz")[1][0] == odd


def test_files_that_hold_no_embeddings_are_one_line(paths, tmp_path):
    write(paths, tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    np.savez(tmp_path / "other.npz", x=np.ones(1))
    np.savez(tmp_path / "pickled.npz", embeddings=np.array([{}]), paths=np.array(["a"]), model=np.array("{}"))
    np.save(tmp_path / "array.npy", np.ones(3))
    contents = [b"", b"text", whole[:200], whole[:-30], whole[:200] + b"\0" * 40 + whole[240:]]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.npz").write_bytes(content)
    names = ["none.npz", "other.npz", "pickled.npz", "array.npy", *(f"{i}.npz" for i in range(len(contents)))]
    for name in names:
        with pytest.raises(UserError) as caught:
            read_embeddings(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value) and "infer.py" in str(caught.value)


# ---- two pictures


def test_similarity_is_monotone_and_within_0_and_1():
    assert [similarity(c) for c in (-1.0, 0.0, 0.5, 1.0)] == [0.0, 0.5, 0.75, 1.0]
    assert similarity(1.0000002) == 1.0 and similarity(-1.0000002) == 0.0


def test_two_pictures(paths):
    vectors = embed(Means(), paths[:2], reader(), BadPictures(2))[1].astype(np.float64)
    expected = vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1])
    assert compare.compare(Means(), paths[0], paths[1], reader()) == pytest.approx(expected, abs=1e-6)
    assert compare.compare(Means(), paths[0], paths[0], reader()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("place", [0, 1])
def test_a_picture_of_a_pair_that_cannot_be_read_is_one_line(paths, tmp_path, place):
    pair = [paths[0], paths[1]]
    pair[place] = str(tmp_path / "none.jpg")
    with pytest.raises(UserError) as caught:
        compare.compare(Means(), *pair, reader())
    assert "none.jpg" in str(caught.value) and "\n" not in str(caught.value)
