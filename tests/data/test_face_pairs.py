"""LFW's two views and RFW's lists, recognised by themselves; pictures found by person and number."""

from pathlib import Path

import pytest
from test_pair_lists import named

from metric_learning.checks import UserError
from metric_learning.data import face_pairs
from metric_learning.data.face_pairs import PictureFinder
from metric_learning.data.pair_sources import read_pairs

VIEW_TWO = "2\t2\nA B\t1\t2\nA B\t1\t3\nA B\t1\tC\t1\nC\t1\tD\t12\nD\t1\t12\nD\t12\t1\nC\t1\tD\t1\nA B\t1\tD\t1\n"
VIEW_ONE = "2\nD\t1\t12\nD\t12\t1\nC\t1\tD\t1\nD\t12\tC\t1\n"
NAMES = ("A B/A B_0001.jpg", "A B/A B_0002.PNG", "A B/A B_0003.jpeg", "C/C_0001.jpg", "D/D_0001.pgm", "D/D_0012.jpg")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@pytest.fixture
def people(tmp_path) -> Path:
    touch(*(tmp_path / "faces" / name for name in NAMES))
    return tmp_path / "faces"


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def short(pairs, root: Path):
    return [(a.removeprefix(f"{root}/"), b.removeprefix(f"{root}/"), same) for a, b, same, _ in named(pairs)]


def test_view_two_has_the_folds_of_its_first_line(people, tmp_path):
    found = read_pairs(write(tmp_path / "pairs.txt", VIEW_TWO), str(people))
    assert found.kind == "LFW View 2" and not found.missing and found.group_names == ["all"]
    assert found.folds.tolist() == [0] * 4 + [1] * 4
    assert found.same.tolist() == [True, True, False, False] * 2
    a, d, e = (NAMES[0], NAMES[4], NAMES[5])
    assert short(found, people)[:2] == [(a, NAMES[1], True), (a, NAMES[2], True)]
    assert short(found, people)[3:6] == [(NAMES[3], e, False), (d, e, True), (e, d, True)]
    assert found.fold_numbers(4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_view_one_has_none_and_pictures_may_lie_beside_it(people):
    for root in (None, str(people)):
        found = read_pairs(write(people / "pairsDevTest.txt", VIEW_ONE + "\n \n"), root)
        assert found.kind == "LFW View 1" and found.folds is None and not found.missing
        assert found.same.tolist() == [True, True, False, False]
        assert found.fold_numbers(2).tolist() == [0, 1, 0, 1]


def test_view_two_of_blanks_and_windows_line_ends(people, tmp_path):
    text = VIEW_TWO.replace("A B", "C").replace("\t", "  ").replace("\n", "\r\n")
    found = read_pairs(write(tmp_path / "pairs.txt", "\ufeff" + text), str(people))
    assert found.kind == "LFW View 2" and len(found.a) == 8


def test_a_person_s_folder_is_read_once(people, tmp_path, monkeypatch):
    seen = []
    visible = face_pairs.visible
    monkeypatch.setattr(face_pairs, "visible", lambda folder: seen.append(folder) or visible(folder))
    read_pairs(write(tmp_path / "pairs.txt", VIEW_TWO), str(people))
    assert len(seen) == 3


def test_of_two_extensions_the_first_by_name_is_taken(tmp_path):
    touch(tmp_path / "x" / "x_0001.png", tmp_path / "x" / "x_0001.jpg", tmp_path / "x" / "x_0001.txt")
    assert PictureFinder([tmp_path])("x", 1) == (str(tmp_path / "x" / "x_0001.jpg"), True)
    assert PictureFinder([tmp_path])("y", 12345) == (str(tmp_path / "y" / "y_12345.jpg"), False)


def test_missing_pictures_are_named_with_the_line(people, tmp_path):
    (people / NAMES[5]).unlink()
    path = write(tmp_path / "pairs.txt", VIEW_TWO.replace("A B\t1\tC\t1", "A B\t1\tNobody\t7"))
    found = read_pairs(path, str(people))
    said = list(found.missing.values())
    assert len(said) == 2 and len(found.a) == 8
    assert said[0].startswith(str(people / "Nobody" / "Nobody_0007.jpg")) and f"{path}:4" in said[0]
    assert said[1].startswith(str(people / "D" / "D_0012.jpg")) and f"{path}:5" in said[1]
    assert [found.items[item] for item in found.missing] == [line.split(": ")[0] for line in said]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0\n", ":1: the first line must say how many"),
        ("1\t300\n", ":1: the first line must say how many"),
        (VIEW_ONE.replace("C\t1\tD\t1", "C\t1\tD"), ":4: a row must be"),
        (VIEW_ONE.replace("C\t1\tD\t1", "C\t1\tD\tx"), ":4: a row must be"),
        (VIEW_ONE.replace("C\t1\tD\t1", "C\t1"), ":4: a row must be"),
        (VIEW_ONE.replace("D\t1\t12", "\t1\t12"), ":2: a row must be"),
        (VIEW_ONE.rsplit("\n", 2)[0] + "\n", "says 2 x 2 pairs, it has 3"),
        (VIEW_TWO + "D\t1\t12\n", "says 2 x 2 x 2 pairs, it has 9"),
        ("2\t2\n", "lists no pairs"),
        (VIEW_ONE.replace("C\t1\tD\t1", "C\t1\t2"), ":4: by the first line this is a pair of two people"),
        (VIEW_TWO.replace("D\t12\t1\n", "D\t12\tC\t1\n"), ":7: by the first line this is a pair of one person"),
        ("A\t1\t2\nA\t1\n", ":2: a row must be"),
    ],
)
def test_a_wrong_list_is_one_line(people, tmp_path, text, said):
    path = write(tmp_path / "pairs.txt", text)
    with pytest.raises(UserError) as caught:
        read_pairs(path, str(people))
    assert path in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)


def test_the_list_of_real_faces(real_data):
    found = read_pairs(str(real_data / "lfw_devtest" / "pairsDevTest.txt"), str(real_data / "lfw_devtest"))
    assert found.kind == "LFW View 1" and len(found.a) == 1000 and found.same.sum() == 500
    assert not found.missing and all(Path(path).is_file() for path in found.items)


# ---- RFW


@pytest.fixture
def rfw(tmp_path) -> Path:
    root = tmp_path / "test"
    for race in ("African", "Asian"):
        write(root / "txts" / race / f"{race}_pairs.txt", "m.01\t1\t2\nm.01\t2\tm.02\t1\n" * 10)
        write(root / "txts" / race / f"{race}_people.txt", "m.01\t2\n")
        touch(*(root / "data" / race / name for name in ("m.01/m.01_0001.jpg", "m.01/m.01_0002.jpg")))
        touch(root / "data" / race / "m.02" / "m.02_0001.png")
    return root


@pytest.mark.parametrize("place", ["", "txts", "rfw", "RFW"])
def test_rfw_is_recognised(rfw, place):
    path, root = (place, str(rfw)) if place.lower() == "rfw" else (str(rfw / place), None)
    found = read_pairs(path, root)
    assert (found.kind, found.group_names, len(found.a)) == ("RFW", ["African", "Asian"], 40)
    assert not found.missing and len(found.items) == 6
    assert found.folds.tolist() == [f for f in range(10) for _ in range(2)] * 2
    assert found.groups.tolist() == [0] * 20 + [1] * 20
    assert named(found)[21] == (
        str(rfw / "data/Asian/m.01/m.01_0002.jpg"),
        str(rfw / "data/Asian/m.02/m.02_0001.png"),
        False,
        "Asian",
    )


@pytest.mark.parametrize("root", [None, "", "data", "data/Asian"])
def test_one_list_of_rfw(rfw, root):
    found = read_pairs(str(rfw / "txts/Asian/Asian_pairs.txt"), None if root is None else str(rfw / root))
    assert (found.kind, found.group_names, len(found.a)) == ("RFW", ["Asian"], 20)
    assert not found.missing and found.folds.tolist() == [f for f in range(10) for _ in range(2)]


@pytest.mark.parametrize("root", [None, "nowhere"])
def test_rfw_without_its_folder_is_one_line(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"txts/<Race>/<Race>_pairs\.txt"):
        read_pairs("rfw", root)
    with pytest.raises(UserError, match="Is a directory, and not RFW's"):
        read_pairs(str(tmp_path), root)
