import os
import struct
from pathlib import Path

import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.data.lists import read_list
from metric_learning.data.names import BLOCK
from metric_learning.data.sources import SOURCES, PictureSet, Sample, read_parts, recognise
from metric_learning.data.walk import pictures_below

SOP_HEADER = "image_id class_id super_class_id path\n"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def real(name: str) -> Path:
    root = Path(os.environ.get("METRIC_LEARNING_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (root / name).exists():
        pytest.skip(f"{root / name} is not here: no check on real pictures")
    return root / name


def make(root: Path, kind: str) -> Path:
    """A tiny valid data set of each kind in SOURCES: the sweep fails for a new source that has no example here."""
    if kind == "sop":
        write(root / "Ebay_train.txt", SOP_HEADER + "1 1 1 a/1.jpg\n2 2 1 a/2.jpg\n")
        write(root / "Ebay_test.txt", SOP_HEADER + "3 3 1 b/3.jpg\n")
    elif kind == "folders":
        touch(root, "a/1.jpg", "b/2.jpg")
    elif kind == "groups":
        touch(root, "African/p1/1.jpg", "Asian/p2/2.jpg")
    elif kind == "csv":
        write(root / "list.csv", "path,label\na/1.jpg,x\nb/2.jpg,y\n")
    elif kind == "recordio":
        # A record: magic, length; flag, label, id, id2; the picture's bytes, padded.
        records = [struct.pack("<IIIfQQ4s", 0xCED7230A, 28, 0, label, 0, 0, b"x") for label in (5, 7)]
        (root / "train.rec").write_bytes(b"".join(records))
    return root


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_is_recognised_and_yields_samples(tmp_path: Path, kind: str) -> None:
    root = make(tmp_path, kind)
    assert recognise(root) == kind
    samples = [sample for part in read_parts(root, kind).values() for sample in part]
    assert len(samples) >= 2
    assert all(isinstance(sample, Sample) and sample.path.startswith(str(root)) for sample in samples)


@pytest.mark.parametrize("kind", SOURCES)
def test_missing_file_and_empty_folder_are_user_errors(tmp_path: Path, kind: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("missing", "empty"):
        with pytest.raises(UserError, match=name) as error:
            read_parts(tmp_path / name, kind)
        assert "\n" not in str(error.value)
    for name in ("missing", "file"):
        with pytest.raises(UserError, match=name):
            recognise(tmp_path / name)


def test_unknown_kind_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'folders'"):
        read_parts(tmp_path, "folder")


# ---- PictureSet


def test_picture_set_numbers_the_classes_in_sorted_order() -> None:
    pictures = PictureSet.of([Sample("p", "b"), Sample("q", "a", "G"), Sample("r", "b")])
    assert pictures.paths == ["p", "q", "r"]
    assert pictures.labels.tolist() == [1, 0, 1]
    assert pictures.labels.dtype == np.int64
    assert pictures.classes == ["a", "b"]
    assert pictures.groups == ["", "G", ""]
    assert pictures.class_counts().tolist() == [1, 2]
    assert [indices.tolist() for indices in pictures.class_indices()] == [[1], [0, 2]]


def test_picture_set_of_nothing() -> None:
    pictures = PictureSet.of([])
    assert (len(pictures), pictures.classes, pictures.groups, len(pictures.class_indices())) == (0, [], [], 0)
    assert pictures.labels.shape == (0,)
    assert PictureSet.of([Sample("p", "a")]).groups == []


# ---- SOP lists


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", ":1: the header"),
        ("image_id class_id path\n1 1 a.jpg\n", ":1: the header"),
        (SOP_HEADER + "1 1 1 a.jpg\n2 x 1 b.jpg\n", ":3: class_id must be a whole number"),
        (SOP_HEADER + "1 ² 1 b.jpg\n", ":2: class_id must be"),
        (SOP_HEADER + "\n1 1 a.jpg\n", ":3: a row must have 4 columns"),
        (SOP_HEADER + "1 1 1 a b.jpg\n", ":2: a row must have 4 columns"),
        (SOP_HEADER, "lists no pictures"),
    ],
)
def test_malformed_sop_lists_name_file_and_line(tmp_path: Path, text: str, where: str) -> None:
    write(tmp_path / "Ebay_train.txt", text)
    with pytest.raises(UserError, match=where) as error:
        read_parts(tmp_path, "sop")
    assert "Ebay_train.txt" in str(error.value)


def test_sop_reads_both_lists_in_file_order(tmp_path: Path) -> None:
    write(tmp_path / "Ebay_train.txt", SOP_HEADER.strip() + "\r\n2 7 1 a/2.jpg\r\n1 07 1 a/1.jpg\r\n")
    write(tmp_path / "Ebay_test.txt", SOP_HEADER + "3 9 1 b/3.jpg\n\n")
    parts = read_parts(tmp_path, "sop")
    assert parts["train"] == [Sample(str(tmp_path / "a/2.jpg"), "7"), Sample(str(tmp_path / "a/1.jpg"), "7")]
    assert parts["test"] == [Sample(str(tmp_path / "b/3.jpg"), "9")]


def test_binary_list_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "Ebay_train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a UTF-8 text file"):
        read_parts(tmp_path, "sop")


# ---- folders


def test_folders_nest_and_pass_over_what_is_no_picture(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.PNG", "b/1.jpg", "al/ch/x.tiff", "al/y.gif", "al/notes.txt", "sheet.jpg")
    touch(tmp_path, ".hidden/1.jpg", "b/.3.jpg", "__MACOSX/b/1.jpg", "c/Thumbs.db")
    samples = read_parts(tmp_path, "folders")["all"]
    expected = [("al/ch/x.tiff", "al/ch"), ("al/y.gif", "al"), ("b/1.jpg", "b"), ("b/2.PNG", "b")]
    assert samples == [Sample(str(tmp_path / path), label) for path, label in expected]


@pytest.mark.parametrize(
    "extension", ["jpg", "jpeg", "png", "bmp", "pgm", "ppm", "pnm", "webp", "tif", "tiff", "gif", "JPG"]
)
def test_picture_extensions(tmp_path: Path, extension: str) -> None:
    touch(tmp_path, f"a/1.{extension}")
    assert len(read_parts(tmp_path, "folders")["all"]) == 1


def test_pictures_without_folders_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(UserError, match="no class folders"):
        read_parts(tmp_path, "folders")


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    touch(tmp_path, "data/b/1.jpg", "elsewhere/2.jpg")
    root = tmp_path / "data"
    (root / "b" / "up").symlink_to(root, target_is_directory=True)
    (root / "a").symlink_to(root / "b", target_is_directory=True)
    (root / "self").symlink_to(root / "self")
    (root / "b" / "self.jpg").symlink_to(root / "b" / "self.jpg")
    (root / "b" / "gone.jpg").symlink_to(root / "gone")
    (root / "c").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert recognise(root) == "folders"
    assert [sample.label for sample in read_parts(root, "folders")["all"]] == ["b", "c"]


def test_a_pipe_named_like_a_picture_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a" / "2.jpg")
    assert len(read_parts(tmp_path, "folders")["all"]) == 1


# ---- groups


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["African/p/1.jpg", "asian/p/1.jpg", "Middle_Eastern/q/1.jpg"], "groups"),
        (["Latino-Hispanic/p/1.jpg", "White/q/1.jpg"], "groups"),
        (["male/p/1.jpg", "female/q/1.jpg"], "groups"),
        (["male/1.jpg", "female/1.jpg"], "folders"),
        (["African/p/1.jpg", "Greek/q/1.jpg"], "folders"),
        (["Tifinagh/c1/1.png", "Greek/c1/1.png"], "folders"),
    ],
)
def test_race_folders_are_told_by_their_names(tmp_path: Path, files: list[str], kind: str) -> None:
    assert recognise(touch(tmp_path, *files)) == kind


def test_groups_can_be_forced_and_identities_are_kept_apart(tmp_path: Path) -> None:
    touch(tmp_path, "x/p/1.jpg", "y/p/1.jpg", "y/p/more/2.jpg")
    samples = read_parts(tmp_path, "groups")["all"]
    assert [(sample.label, sample.group) for sample in samples] == [("x/p", "x"), ("y/p", "y"), ("y/p", "y")]


def test_a_picture_without_identity_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "African/p/1.jpg", "African/stray.jpg")
    with pytest.raises(UserError, match=r"stray\.jpg lies in no identity folder"):
        read_parts(tmp_path, "groups")


# ---- csv


def test_csv_columns_in_any_order_with_bom_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('﻿Split,label,age,path,group\ntrain,"a, b",3,"p,1.jpg",G\n\ntest,c,4,q.jpg,H\n', encoding="utf-8")
    parts = read_parts(path, "csv")
    assert recognise(path) == "csv"
    assert parts == {
        "train": [Sample(str(tmp_path / "p,1.jpg"), "a, b", "G")],
        "test": [Sample(str(tmp_path / "q.jpg"), "c", "H")],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: the header must be"),
        ("path,name\n", ":1: .*'label' is there not at all"),
        ("path,path,label\n", ":1: .*'path' is there twice"),
        ("path,label,splits\n", "Did you mean 'split'"),
        ("path,label\n", "lists no pictures"),
        ("path,label\na,b\na\n", ":3: a row must have 2 columns"),
        ("path,label\na,b,c\n", ":2: a row must have 2 columns"),
        ("path,label\na,\n", ":2: label is empty"),
        ("path,label,group\na,b, \n", ":2: group is empty"),
        ("path,label,split\na,b,tain\n", ":2: split must be .*Did you mean 'train'"),
        ('path,label\n"a,b\n', "is not a csv file"),
    ],
)
def test_malformed_csv_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "x.csv", text)
    with pytest.raises(UserError, match=message) as error:
        read_parts(tmp_path, "csv")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_absolute_paths_in_a_csv_stay(tmp_path: Path) -> None:
    write(tmp_path / "x.csv", "path,label\n/a/b.jpg,1\n")
    assert read_parts(tmp_path, "csv")["all"][0].path == "/a/b.jpg"


def test_several_csv_files_name_the_flags(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "path,label\n")
    write(tmp_path / "test.csv", "path,label\n")
    with pytest.raises(UserError, match=r"test\.csv, train\.csv.*--train_list.*--dataset"):
        read_parts(tmp_path, recognise(tmp_path))


def test_a_list_is_told_by_its_header(tmp_path: Path) -> None:
    sop = write(tmp_path / "lists" / "mine", SOP_HEADER + "1 1 1 a.jpg\n")
    assert read_list(sop, tmp_path) == ("sop", {"all": [Sample(str(tmp_path / "a.jpg"), "1")]})
    assert read_list(sop)[1]["all"][0].path == str(tmp_path / "lists" / "a.jpg")
    table = write(tmp_path / "t.csv", "path,label\na.jpg,1\n")
    assert read_list(table)[0] == "csv"
    with pytest.raises(UserError, match="header"):
        read_list(write(tmp_path / "wrong.txt", "a b\n"))


def test_long_lists_are_read_block_by_block(tmp_path: Path) -> None:
    count = 2 * BLOCK + 5
    rows = [(f"é/{k}.jpg", f"c{k % 97}", "ghi"[k % 3], ("train", "val", "test")[k * k % 3]) for k in range(count)]
    table = write(tmp_path / "x.csv", "path,label,group,split\n" + "\n".join(map(",".join, rows)))
    for name, part in read_parts(table, "csv").items():
        expected = [Sample(str(tmp_path / row[0]), *row[1:3]) for row in rows if row[3] == name]
        assert part == expected
    write(table, "path,label\n" + "a,b\n\n" * count + "a\n" + "a,b,c\n")
    with pytest.raises(UserError, match=f":{2 * count + 2}: a row must have 2 columns"):
        read_parts(table, "csv")
    lines = [f"{k} {k % 97} 1 a/{k}.jpg\n" for k in range(count)]
    listed = write(tmp_path / "Ebay_train.txt", SOP_HEADER + "".join(lines))
    expected = [Sample(str(tmp_path / f"a/{k}.jpg"), str(k % 97)) for k in range(count)]
    assert read_parts(tmp_path, "sop")["train"] == expected
    write(listed, SOP_HEADER + "".join(lines) + "\n1 1 1 x\n1 1 y x\n")
    with pytest.raises(UserError, match=f":{count + 4}: super_class_id must be"):
        read_parts(tmp_path, "sop")


def test_the_place_of_a_wrong_byte_counts_from_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"path,label\n" + b"a,b\n" * 30_000 + b"\xff,b\n")
    with pytest.raises(UserError, match="at byte 120011"):
        read_parts(tmp_path, "csv")


def test_folders_and_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["b.jpg", "a/z.jpg", "a/b/c.jpg", "a/b.jpg", "a/b/d/x.jpg", "a/b!/c.jpg", "a!/q.jpg", "B/x.jpg", "a/c.jpg"]
    found = list(pictures_below(touch(tmp_path, *names)))
    assert found == sorted(tuple(name.split("/")) for name in names)


# ---- real data


@pytest.mark.parametrize(
    ("name", "kind", "pictures", "classes", "groups"),
    [
        ("grocery_sop", "sop", 5421, 81, 0),
        ("orl", "folders", 400, 40, 0),
        ("lfw_races", "groups", 2148, 327, 4),
        ("celeba_faces", "folders", 4266, 200, 0),
    ],
)
def test_real_folders(name: str, kind: str, pictures: int, classes: int, groups: int) -> None:
    root = real(name)
    assert recognise(root) == kind
    samples = [sample for part in read_parts(root, kind).values() for sample in part]
    found = PictureSet.of(samples)
    assert (len(found), len(found.classes), len(set(found.groups))) == (pictures, classes, groups)
    assert all(os.path.isfile(path) for path in found.paths)
