"""Data sets and lists of pairs through a predictor into the metrics."""

import numpy as np
import pytest
from small_runs import write_pictures
from test_compare import Means, reader

from metric_learning.checks import UserError
from metric_learning.data.loader import BadPictures
from metric_learning.data.sources import PictureSet, Sample
from metric_learning.evaluate import embed_set, read_pairs, retrieval, verification, verify_pairs


@pytest.fixture
def pictures(tmp_path) -> PictureSet:
    return write_pictures(tmp_path / "pictures", 4, 3)


def grouped(pictures: PictureSet) -> PictureSet:
    samples = [
        Sample(path, pictures.classes[label], "even" if label % 2 == 0 else "odd")
        for path, label in zip(pictures.paths, pictures.labels, strict=True)
    ]
    return PictureSet.of(samples)


# ---- a set


def test_labels_groups_and_paths_stay_with_their_pictures(pictures, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    whole = grouped(pictures)
    bad = PictureSet(
        [str(tmp_path / "bad.jpg"), *whole.paths], np.append(3, whole.labels), whole.classes, ["odd", *whole.groups]
    )
    found = embed_set(Means(), bad, reader(), BadPictures(13, 1.0))
    assert found.paths == whole.paths and found.labels.tolist() == whole.labels.tolist()
    assert found.groups.tolist() == whole.groups and len(found.embeddings) == 12
    assert embed_set(Means(), pictures, reader(), BadPictures(12)).groups is None


def test_classes_of_one_colour_are_found_again(pictures):
    found = embed_set(Means(), grouped(pictures), reader(), BadPictures(12))
    assert retrieval(found)["recall@1"] == 1.0
    result = verification(found, (0.1, 0.01))
    assert set(result.groups) == {"even", "odd"}
    assert [result.groups[name].positives for name in ("even", "odd")] == [6, 6]
    assert [result.groups[name].negatives for name in ("even", "odd")] == [9, 9]


# ---- a list of pairs


def pairs_file(folder, text: str, name: str = "pairs.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_pairs_are_read_with_their_paths(tmp_path):
    path = pairs_file(tmp_path, "\ufeffa,b,same\nx.jpg,y/z.jpg,1\n/abs/x.jpg,w.jpg,0\n")
    found = read_pairs(path, None)
    assert found.a == [str(tmp_path / "x.jpg"), "/abs/x.jpg"]
    assert found.b == [str(tmp_path / "y/z.jpg"), str(tmp_path / "w.jpg")]
    assert found.same.tolist() == [True, False] and found.groups == ["all", "all"]
    assert read_pairs(path, "/data").a == ["/data/x.jpg", "/abs/x.jpg"]
    path = pairs_file(tmp_path, 'group,same,b,a\nG,1,"b, c.jpg",a.jpg\n')
    found = read_pairs(path, "/d")
    assert (found.a, found.b, found.groups) == (["/d/a.jpg"], ["/d/b, c.jpg"], ["G"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1: the header must be a,b,same"),
        ("a,b\nx,y\n", ":1: the header must be a,b,same"),
        ("x.jpg,y.jpg,1\n", ":1: the header must be a,b,same"),
        ("a,b,same\n", "lists no pairs"),
        ("a,b,same\nx,y,1\nx,y,yes\n", ":3: a pair needs two pictures and same=0 or 1"),
        ("a,b,same\nx,y\n", ":2: a pair needs"),
        ("a,b,same\n,y,1\n", ":2: a pair needs"),
        ("a,b,same\nx,,0\n", ":2: a pair needs"),
        ('a,b,same\n"x\ny",z,2\n', ":3: a pair needs"),
    ],
)
def test_a_wrong_list_names_file_and_line(tmp_path, text, said):
    path = pairs_file(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_pairs(path, None)
    assert path in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00a")
    (tmp_path / "nul.csv").write_bytes(b"a,b,same\nx,y\0z,1\nx,y,2\n")
    (tmp_path / "long.csv").write_text("a,b,same\n" + "x" * 200_000 + ",y,1\n")
    for name in ("none.csv", "binary.csv", "nul.csv", "long.csv", ""):
        with pytest.raises(UserError) as caught:
            read_pairs(str(tmp_path / name), None)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_pairs_with_a_bad_picture_are_left_out_and_counted(pictures, tmp_path):
    paths = pictures.paths
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    rows = ["a,b,same,group", f"{paths[0]},none.jpg,0,only bad"]
    rows += [f"bad.jpg,{paths[0]},1,g", f"{paths[0]},bad.jpg,0,h"]
    for a in range(12):
        for b in range(a + 1, 12):
            rows.append(f"{paths[a]},{paths[b]},{int(a // 3 == b // 3)},{'gh'[a % 2]}")
    pairs = read_pairs(pairs_file(tmp_path, "\n".join(rows) + "\n"), None)
    bad = BadPictures(14, 1.0)
    result, left_out = verify_pairs(Means(), pairs, reader(), bad, (0.1,))
    assert left_out == 3 and len(bad) == 2 and set(result.groups) == {"g", "h"}
    assert sum(group.positives for group in result.groups.values()) == 12
    assert sum(group.negatives for group in result.groups.values()) == 54
    assert result.groups["g"].points[0].tar == 1.0
    with pytest.raises(UserError, match="--max_bad_pictures"):
        verify_pairs(Means(), pairs, reader(), BadPictures(14, 0.01), (0.1,))


def test_wrong_answers_lower_the_rate(pictures, tmp_path):
    """The answer of a pair goes with that pair."""
    paths = pictures.paths
    same = [(a, b) for a in range(12) for b in range(a + 1, 12) if a // 3 == b // 3]
    apart = [(a, (a + 3) % 12) for a in range(12)]
    rows = [f"{paths[a]},{paths[b]},{int(a // 3 == b // 3)}" for a, b in same + apart]
    right = read_pairs(pairs_file(tmp_path, "a,b,same\n" + "\n".join(rows) + "\n"), None)
    turned = [row[:-1] + str(1 - int(row[-1])) for row in rows]
    wrong = read_pairs(pairs_file(tmp_path, "a,b,same\n" + "\n".join(turned) + "\n"), None)
    tars = []
    for pairs in (right, wrong):
        result, _ = verify_pairs(Means(), pairs, reader(), BadPictures(12), (0.2,))
        tars.append(result.groups["all"].points[0].tar)
    assert tars == [1.0, 0.0]


def test_a_list_without_a_usable_pair_is_one_line(pictures, tmp_path):
    text = f"a,b,same\n{pictures.paths[0]},none1.jpg,1\n{pictures.paths[1]},none2.jpg,0\n"
    pairs = read_pairs(pairs_file(tmp_path, text), None)
    with pytest.raises(UserError) as caught:
        verify_pairs(Means(), pairs, reader(), BadPictures(4, 1.0), (0.1,))
    assert "pair" in str(caught.value) and "\n" not in str(caught.value)
