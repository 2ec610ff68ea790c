"""csv tables of pairs and of templates; the other kinds of lists have files of their own."""

import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.data.pair_lists import PairList, contiguous, read_templates
from metric_learning.data.pair_sources import read_pairs


def named(pairs: PairList) -> list[tuple[str, str, bool, str]]:
    """The pairs with their names."""
    columns = zip(pairs.a, pairs.b, pairs.same, pairs.groups, strict=True)
    return [(str(pairs.items[a]), str(pairs.items[b]), bool(s), pairs.group_names[g]) for a, b, s, g in columns]


def pairs_file(folder, text: str, name: str = "pairs.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_pairs_are_read_with_their_paths(tmp_path):
    path = pairs_file(tmp_path, "\ufeffa,b,same\nx.jpg,y/z.jpg,1\n/abs/x.jpg,w.jpg,0\n")
    found = read_pairs(path, None)
    first, second = (str(tmp_path / "x.jpg"), str(tmp_path / "y/z.jpg")), ("/abs/x.jpg", str(tmp_path / "w.jpg"))
    assert named(found) == [(*first, True, "all"), (*second, False, "all")]
    assert (found.kind, found.folds) == ("csv", None)
    assert [row[0] for row in named(read_pairs(path, "/data"))] == ["/data/x.jpg", "/abs/x.jpg"]
    path = pairs_file(tmp_path, 'group,same,b,a\nG,1,"b, c.jpg",a.jpg\n')
    found = read_pairs(path, "/d")
    assert named(found) == [("/d/a.jpg", "/d/b, c.jpg", True, "G")]


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
        ("a,b,same,groups\nx,y,1,G\n", ":1: the column 'groups' is unknown. Did you mean 'group'"),
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


def test_a_picture_in_many_pairs_is_one_item(tmp_path):
    found = read_pairs(pairs_file(tmp_path, "a,b,same\nx,y,1\ny,x,0\nx,x,1\n"), None)
    assert len(found.items) == 2 and found.a.tolist() == [0, 1, 0] and found.b.tolist() == [1, 0, 0]


# ---- folds


def test_folds_are_contiguous_and_the_first_hold_more():
    assert contiguous(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert contiguous(2, 3).tolist() == [0, 1]


def pairs_of(same, groups, by_answer=False):
    groups = np.array(groups)
    a = np.arange(len(groups))
    return PairList([str(i) for i in a], a, a, np.array(same, bool), groups, ["g", "h"], "csv", by_answer=by_answer)


def test_folds_that_are_asked_for_are_cut_within_each_group():
    found = pairs_of([1, 1, 1, 1, 0, 0, 0, 0], [0, 1, 0, 1, 0, 1, 0, 1])
    assert found.fold_numbers(None) is None
    assert found.fold_numbers(2).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_folds_of_a_list_in_order_of_its_answers_hold_both():
    found = pairs_of([1, 1, 1, 1, 0, 0, 0, 0], [0] * 8, by_answer=True)
    assert found.fold_numbers(2).tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


# ---- templates


def test_templates_are_read_with_their_paths(tmp_path):
    path = pairs_file(tmp_path, "media,path,template\nm1,x.jpg,t1\n\nm1,y.jpg,t2\n", "templates.csv")
    found = read_templates(tmp_path / "templates.csv", "/d")
    assert found.paths == ["/d/x.jpg", "/d/y.jpg"] and (found.templates, found.media) == (["t1", "t2"], ["m1", "m1"])
    pairs = read_pairs(pairs_file(tmp_path, "a,b,same\nt1,t2,0\n"), "/d", of_templates=True)
    assert path and named(pairs) == [("t1", "t2", False, "all")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1: the header must be path,template,media"),
        ("path,template\nx,t\n", ":1: the header must be path,template,media"),
        ("path,template,media\n", "lists no pictures"),
        ("path,template,media\nx,t,m\nx,,m\n", ":3: path, template and media must be given"),
    ],
)
def test_wrong_templates_name_file_and_line(tmp_path, text, said):
    path = pairs_file(tmp_path, text, "templates.csv")
    with pytest.raises(UserError) as caught:
        read_templates(tmp_path / "templates.csv", None)
    assert path in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)
