"""infer --gallery: made, extended, lessened and searched, with a predictor that is no network."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from fuzzing.seeds import record
from naive_reranking import final_distances
from small_runs import write_pictures
from test_compare import Means, reader

import metric_learning
from metric_learning import compare
from metric_learning.checks import UserError
from metric_learning.config import InferOptions, parse
from metric_learning.extract import BadPictures, embed
from metric_learning.gallery import Gallery
from metric_learning.stages import searching
from metric_learning.stages.inputs import pictures_of_input
from metric_learning.stages.scoring import Judge

MADE = {"weights": "w", "digest": "d", "flip_test": False}
GALLERY = [".gallery.npz.lock", "gallery.npz"]


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return list(write_pictures(Path("shop"), 4, 3).paths)


def extend(given="shop", predictor=None, made=MADE, gallery="g", share=1.0, **changed) -> Means:
    predictor = predictor or Means()
    config = parse(InferOptions, [f"--gallery={gallery}", f"--input={given}", f"--max_bad_pictures={share}"])
    searching.extend(config, pictures_of_input(given), made, predictor, reader(**changed))
    return predictor


def query(capsys, picture, *typed, made=MADE, gallery="g") -> list[str]:
    capsys.readouterr()
    config = parse(InferOptions, [f"--query={picture}", *([f"--gallery={gallery}"] if gallery else []), *typed])
    searching.query(config, made, Means(), reader(), Judge(None), Path("g/gallery.npz"))
    return capsys.readouterr().out.splitlines()


def remove(given, gallery="g"):
    searching.remove(parse(InferOptions, [f"--gallery={gallery}", f"--remove={given}"]))


def read(gallery="g/gallery.npz") -> Gallery:
    return Gallery.read(gallery)


def paint(path, value: int) -> None:
    cv2.imwrite(str(path), np.full((9, 9, 3), value, np.uint8))


# ---- to add


def test_only_what_is_new_or_has_changed_is_embedded(paths, capsys):
    assert extend().seen == 12
    made = read()
    assert made.paths == [os.path.abspath(path) for path in paths] and made.model == MADE
    np.testing.assert_array_equal(made.embeddings, embed(Means(), paths, reader(), BadPictures(12))[1])
    assert sorted(os.listdir("g")) == [".gallery.npz.lock", "gallery.npz"]
    before = Path("g/gallery.npz").read_bytes()
    capsys.readouterr()
    assert extend().seen == 0 and Path("g/gallery.npz").read_bytes() == before
    assert "Nothing to add" in capsys.readouterr().out
    paint(paths[3], 200)
    paint("shop/new.png", 100)
    assert extend().seen == 2
    assert "Added: 1 pictures; changed and embedded again: 1; taken out: 0" in capsys.readouterr().out
    more = read()
    assert more.paths == [*made.paths, os.path.abspath("shop/new.png")]
    same = [i for i in range(12) if i != 3]
    np.testing.assert_array_equal(more.embeddings[same], made.embeddings[same])
    np.testing.assert_array_equal(more.embeddings[3] / more.embeddings[3][0], np.ones(6))
    os.utime(paths[5], ns=(1, 1))
    assert extend().seen == 1 and read().known_stamps[5, 1] == 1


def test_a_changed_picture_that_cannot_be_read_leaves_the_gallery(paths, capsys):
    extend()
    Path(paths[2]).write_bytes(b"no picture any more")
    paint("shop/new.png", 100)
    extend()
    assert "taken out: 1" in capsys.readouterr().out
    assert os.path.abspath(paths[2]) not in read().paths and len(read()) == 12


def test_pictures_that_cannot_be_read_are_a_share_of_all_that_are_given(paths, capsys):
    Path("shop/bad.png").write_bytes(b"no picture")
    extend(share=0.1)
    before = Path("g/gallery.npz").read_bytes()
    capsys.readouterr()
    extend(share=0.1)
    said = capsys.readouterr().out
    assert "Added: 0 pictures" in said and "bad.png" in said and "Next:" not in said
    assert Path("g/gallery.npz").read_bytes() == before and sorted(os.listdir("g")) == GALLERY
    with pytest.raises(UserError, match=r"1 of 13 pictures cannot be read .*--max_bad_pictures=0\.05"):
        extend(share=0.05)
    Path(paths[2]).write_bytes(b"no picture any more")
    extend(share=0.2)
    assert "taken out: 1" in capsys.readouterr().out and len(read()) == 11
    Path("bad").mkdir()
    os.rename("shop/bad.png", "bad/bad.png")
    with pytest.raises(UserError, match="None of the pictures can be read"):
        extend("bad", gallery="other")
    assert os.listdir("other") == [".gallery.npz.lock"]


def test_a_listed_picture_that_is_only_gone_stays(paths):
    extend()
    Path("list.txt").write_text("\n".join(paths))
    Path(paths[2]).unlink()
    assert extend("list.txt", share=0.0).seen == 0 and len(read()) == 12
    paint(paths[2], 99)
    assert extend("list.txt", share=0.0).seen == 1 and len(read()) == 12


def test_pictures_in_a_record_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    colours = [cv2.imencode(".png", np.full((9, 9, 3), 20 * i, np.uint8))[1].tobytes() for i in range(1, 4)]
    records = [record(struct.pack("<IfQQ", 0, 0.0, 0, 0) + data) for data in colours]
    Path("faces.rec").write_bytes(b"".join(records))
    names = [f"{tmp_path}/faces.rec#{sum(map(len, records[:i]))}" for i in range(3)]
    config = parse(InferOptions, ["--gallery=g"])
    searching.extend(config, names, MADE, Means(), reader())
    assert read().paths == names and (read().known_stamps > 0).all()
    paint("query.png", 40)
    said = query(capsys, "query.png")
    assert len([line for line in said if "faces.rec#" in line]) == 3 and not any("gone" in line for line in said)
    os.utime("faces.rec", ns=(1, 1))
    again = Means()
    searching.extend(config, names, MADE, again, reader())
    assert again.seen == 3


@pytest.mark.parametrize("text", ["shop/class00/0.png\n".encode("utf-16"), b"shop/class00/0.png\nb\0.png\n"])
def test_a_list_in_another_encoding_is_one_line(paths, text):
    Path("list.txt").write_bytes(text)
    with pytest.raises(UserError, match=r"--input=list\.txt:\d: no path holds a zero byte; save the list as UTF-8"):
        extend("list.txt")


def test_a_file_of_embeddings_is_a_gallery_too(paths):
    compare.embed_to_file(Means(), paths[:6], reader(), BadPictures(6), Path("e.npz"), MADE)
    assert extend(gallery="e.npz").seen == 12  # the file says nothing of when its pictures were changed
    assert read("e.npz").paths == paths[:6] + [os.path.abspath(path) for path in paths[6:]]
    assert extend(gallery="e.npz").seen == 0


def test_an_interrupted_addition_changes_nothing_and_goes_on(paths, monkeypatch):
    monkeypatch.setattr(compare, "CHUNK", 4)
    extend("shop/class00")
    before = Path("g/gallery.npz").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        extend(predictor=Means(fail_after=6))
    assert Path("g/gallery.npz").read_bytes() == before
    assert extend().seen == 5 and len(read()) == 12
    np.testing.assert_allclose(read().embeddings, embed(Means(), paths, reader(), BadPictures(12))[1], rtol=1e-6)
    assert sorted(os.listdir("g")) == [".gallery.npz.lock", "gallery.npz"]


@pytest.mark.parametrize(
    ("made", "said"), [(MADE | {"digest": "e"}, "other weights"), (MADE | {"flip_test": True}, "flip_test False")]
)
def test_another_models_gallery_is_neither_extended_nor_searched(paths, capsys, made, said):
    extend()
    with pytest.raises(UserError, match=said):
        extend(made=made)
    with pytest.raises(UserError, match=said):
        query(capsys, paths[0], made=made)


def test_two_processes_at_once_are_refused(paths):
    pytest.importorskip("fcntl")
    extend("shop/class00")
    hold = "import sys\nfrom pathlib import Path\nfrom metric_learning.lock import held\n"
    hold += "with held(Path(sys.argv[1]), '.gallery.npz.lock'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    root = Path(metric_learning.__file__).parents[1]
    place = os.path.abspath("g")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", hold, place], cwd=root, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        for act in (extend, lambda: remove(paths[0])):
            with pytest.raises(UserError, match=rf"Process {other.pid} is changing the gallery gallery.npz in g now"):
                act()
        other.kill()
    assert extend().seen == 9


# ---- to take out


@pytest.mark.parametrize("typed", ["--vote=soft", "--uncertain=3", "--probabilities=True"])
def test_what_is_about_classes_is_refused(typed):
    name = typed.partition("=")[0]
    with pytest.raises(UserError, match=f"{name} is about classes, --gallery about embeddings"):
        parse(InferOptions, ["--gallery=g", "--remove=a.png", typed])


def test_pictures_lists_and_folders_are_taken_out(paths, tmp_path, monkeypatch):
    extend()
    remove(paths[0])
    Path("shop/list.txt").write_text("class01/0.png\nclass01/2.png\n")
    remove("shop/list.txt")
    assert read().paths == [os.path.abspath(path) for i, path in enumerate(paths) if i not in (0, 3, 5)]
    os.rename("shop/class02", "elsewhere")
    (tmp_path / "shop/class03").joinpath("0.png").unlink()
    remove("shop/class02")
    monkeypatch.chdir(tmp_path / "shop")
    remove("class03/0.png", gallery="../g")
    remove(os.path.abspath("class03/1.png"), gallery="../g")
    monkeypatch.chdir(tmp_path)
    assert read().paths == [os.path.abspath(paths[i]) for i in (1, 2, 4, 11)]
    for unknown in ("shop/class0", "nothing.txt", paths[0]):
        with pytest.raises(UserError, match="has no picture"):
            remove(unknown)
    remove("shop")
    assert len(read()) == 0
    os.rename("elsewhere", "shop/class02")
    extend("shop/class02")
    assert len(read()) == 3


# ---- to search


def test_hits_are_printed_and_drawn(paths, capsys, monkeypatch, tmp_path):
    extend()
    said = query(capsys, paths[4], "--topk=3")
    gallery = read()
    cosines, rows = gallery.search(gallery.embeddings[4:5], 3)
    hits = [line.split() for line in said[1:4]]
    assert [hit[-1] for hit in hits] == [gallery.paths[row] for row in rows[0]] and rows[0, 0] == 4
    assert [float(hit[4]) for hit in hits] == pytest.approx(cosines[0], abs=1e-4)
    assert said[4:] == ["Written: g/gallery.search.png"]
    assert cv2.imread("g/gallery.search.png").shape[1] == 4 * 120 + 8  # the query and three hits
    monkeypatch.chdir(tmp_path / "shop")
    assert query(capsys, "class01/1.png", "--top_k=3", "--output=sheet", gallery="../g")[1:4] == said[1:4]
    assert cv2.imread("sheet.png") is not None


def test_a_picture_that_is_gone_is_marked_and_too_many_asked_for_is_told(paths, capsys):
    extend()
    whole = query(capsys, paths[0], "--top_k=99")
    assert whole[1] == "The gallery holds 12 pictures, fewer than --top_k=99." and len(whole) == 15
    before = cv2.imread("g/gallery.search.png")
    os.rename(paths[0], "q.png")
    said = query(capsys, "q.png", "--top_k=99")
    assert [line.endswith("  (the file is gone)") for line in said[2:14]] == [True] + 11 * [False]
    after = cv2.imread("g/gallery.search.png")
    assert (before != after)[:, 128:240].any() and (after[8:120, 128:240] == 0xE4).all(axis=2).mean() > 0.5


def test_what_cannot_be_searched_is_one_line(paths, capsys):
    with pytest.raises(UserError, match=r"There is no gallery g/gallery\.npz\. Make one: .*--gallery=g"):
        query(capsys, paths[0])
    with pytest.raises(UserError, match="There is no gallery"):
        remove(paths[0])
    extend()
    Path("bad.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"Can't read the picture bad\.png"):
        query(capsys, "bad.png")
    Path("g2").mkdir()
    Path("g2/gallery.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"Can't read the embeddings g2/gallery\.npz"):
        query(capsys, paths[0], gallery="g2")
    remove("shop")
    with pytest.raises(UserError, match="holds no pictures"):
        query(capsys, paths[0])


def test_the_sheet_is_never_written_over_a_picture(paths, capsys):
    extend()
    with pytest.raises(UserError, match="over the picture"):
        query(capsys, paths[0], f"--output={paths[5]}")
    paint("sheet.png", 3)
    with pytest.raises(UserError, match="over the picture"):
        query(capsys, "sheet.png", "--output=sheet.png")
    extend("shop", gallery="shop")
    query(capsys, paths[0], gallery="shop")
    assert Path("shop/gallery.search.png").is_file() and extend("shop", gallery="shop").seen == 0
    Path("g/gallery.search.png").mkdir()
    assert query(capsys, paths[0])[-1].startswith("No sheet of pictures: Can't write g/gallery.search.png")


def test_hits_are_re_ranked_among_themselves(paths, capsys, monkeypatch):
    extend()
    plain = query(capsys, paths[4], "--top_k=12")
    same = query(capsys, paths[4], "--top_k=12", "--rerank=True", "--rerank_lambda=1")
    assert same[0] == "Re-ranked: the nearest 12, by k-reciprocal neighbours among them (k1=20, k2=6, lambda=1)."
    assert [line.split()[-1] for line in same[2:]] == [line.split()[-1] for line in plain[1:]]
    found = query(capsys, paths[4], "--top_k=4", "--rerank=True", "--rerank_k1=3", "--rerank_k2=2")
    rows = read().embeddings
    order = [int(row) for row in read().search(rows[4:5], 12)[1][0]]
    scores = 1 - np.array(final_distances([rows[4], *rows[order]], 3, 2, 0.3))[0, 1:]
    best = np.argsort(-scores, kind="stable")[:4]
    assert [line.split()[-1] for line in found[2:6]] == [read().paths[order[i]] for i in best]
    assert [float(line.split()[2]) for line in found[2:6]] == pytest.approx(scores[best], abs=1e-4)
    monkeypatch.setattr(searching, "MOST", 3)
    with pytest.raises(UserError, match="orders the 3 nearest at most"):
        query(capsys, paths[4], "--top_k=4", "--rerank=True")


def test_embeddings_of_output_are_searched_in_the_same_way(paths, capsys):
    extend()
    with_gallery = query(capsys, paths[0])
    assert query(capsys, paths[0], "--output=g/gallery.npz", gallery=None) == with_gallery
