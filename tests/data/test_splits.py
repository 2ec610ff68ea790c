import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.data.lists import CsvRules
from metric_learning.data.sources import PictureSet
from metric_learning.data.splits import Splits, allocate, load_splits

HEADER = "image_id class_id super_class_id path\n"


def folders(root: Path, classes: int, pictures: int = 2, group: str = "") -> Path:
    for k in range(classes):
        folder = root / group / f"c{k:03d}"
        folder.mkdir(parents=True)
        for number in range(pictures):
            (folder / f"{number}.jpg").write_bytes(b"x")
    return root


def sop(root: Path, train: int = 20, test: int = 5) -> Path:
    rows = [f"{2 * k + j} {k} 1 p/{k}_{j}.jpg" for k in range(1, train + test + 1) for j in (0, 1)]
    (root / "Ebay_train.txt").write_text(HEADER + "\n".join(rows[: 2 * train]))
    (root / "Ebay_test.txt").write_text(HEADER + "\n".join(rows[2 * train :]))
    return root


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train.classes), len(splits.val.classes), len(splits.test.classes)


def check_disjoint(splits: Splits) -> None:
    parts = [set(part.classes) for part in (splits.train, splits.val, splits.test)]
    assert sum(len(part) for part in parts) == len(set.union(*parts))


def test_defaults_for_folders(tmp_path: Path) -> None:
    splits = load_splits(folders(tmp_path, 50))
    assert sizes(splits) == (36, 4, 10)
    assert splits.kind == "folders"
    check_disjoint(splits)
    assert len(splits.train) == 72
    assert all("\n" not in note for note in splits.notes)


@pytest.mark.parametrize(
    ("test_classes", "val_classes", "expected"),
    [
        (0, 0, (20, 0, 0)),
        (0.5, 0, (10, 0, 10)),
        (3, 4, (13, 4, 3)),
        (3.0, 1, (16, 1, 3)),
        (0.01, 0.01, (18, 1, 1)),
        (None, 0, (16, 0, 4)),
        (18, 0, (2, 0, 18)),
    ],
)
def test_shares_and_counts(
    tmp_path: Path, test_classes: float | None, val_classes: float | None, expected: tuple[int, int, int]
) -> None:
    splits = load_splits(folders(tmp_path, 20), test_classes=test_classes, val_classes=val_classes)
    assert sizes(splits) == expected
    check_disjoint(splits)


@pytest.mark.parametrize("value", [19, 20, 100, -1, 2.5, float("nan"), 0.99])
def test_impossible_numbers_are_refused(tmp_path: Path, value: float) -> None:
    folders(tmp_path, 20)
    for flag in ("test_classes", "val_classes"):
        with pytest.raises(UserError, match=f"--{flag}"):
            load_splits(tmp_path, **{"test_classes": 0, flag: value})


def test_the_choice_depends_on_the_seed_and_the_names_alone(tmp_path: Path) -> None:
    first = load_splits(folders(tmp_path / "one", 30), seed=3)
    again = load_splits(folders(tmp_path / "two", 30, pictures=5), seed=3)
    other = load_splits(tmp_path / "one", seed=4)
    assert first.test.classes == again.test.classes
    assert first.val.classes == again.val.classes
    assert first.test.classes != other.test.classes
    # Fixed for all machines and versions: a hash, not a generator.
    assert first.test.classes == ["c003", "c006", "c008", "c014", "c015", "c020"]


def test_the_order_of_a_list_does_not_matter(tmp_path: Path) -> None:
    rows = [f"{k}_{j}.jpg,{k}" for k in range(12) for j in range(2)]
    (tmp_path / "a.csv").write_text("path,label\n" + "\n".join(rows))
    (tmp_path / "b.csv").write_text("path,label\n" + "\n".join(reversed(rows)))
    first, second = (load_splits(tmp_path / name) for name in ("a.csv", "b.csv"))
    assert first.test.classes == second.test.classes
    assert first.val.classes == second.val.classes


def test_groups_are_stratified(tmp_path: Path) -> None:
    for group, count in (("African", 10), ("Asian", 20), ("Indian", 70)):
        folders(tmp_path, count, group=group)
    splits = load_splits(tmp_path, val_classes=0)
    assert splits.kind == "groups"
    counts = {
        group: sum(name.startswith(group) for name in splits.test.classes) for group in ("African", "Asian", "Indian")
    }
    assert counts == {"African": 2, "Asian": 4, "Indian": 14}
    assert set(splits.test.groups) == set(splits.train.groups) == {"African", "Asian", "Indian"}


@pytest.mark.parametrize(
    ("given", "count", "expected"),
    [([1, 1, 1], 1, [1, 0, 0]), ([5, 0, 5], 3, [2, 0, 1]), ([10], 10, [10]), ([3, 7], 0, [0, 0]), ([1, 99], 2, [0, 2])],
)
def test_allocate(given: list[int], count: int, expected: list[int]) -> None:
    assert allocate(given, count) == expected


def test_val_avoids_classes_of_one_picture(tmp_path: Path) -> None:
    folders(tmp_path, 30, pictures=1)
    for k in (4, 9, 22):
        (tmp_path / f"c{k:03d}" / "more.jpg").write_bytes(b"y")
    assert load_splits(tmp_path, test_classes=0).val.classes == ["c004", "c009", "c022"]
    assert load_splits(tmp_path, test_classes=0, val_classes=2).val.class_counts().tolist() == [2, 2]
    assert len(load_splits(tmp_path, test_classes=0, val_classes=5).val.classes) == 5


def test_too_few_classes_give_no_val_and_no_test_but_a_note(tmp_path: Path) -> None:
    few = load_splits(folders(tmp_path / "nine", 9), test_classes=0)
    assert sizes(few) == (9, 0, 0)
    assert any(note.startswith("val: no classes split off") for note in few.notes)
    three = load_splits(folders(tmp_path / "three", 3))
    assert sizes(three) == (3, 0, 0)
    assert any(note.startswith("test: no classes split off") for note in three.notes)
    single = load_splits(folders(tmp_path / "singles", 30, pictures=1))
    assert len(single.val) == 0


def test_ten_classes_give_two_to_val(tmp_path: Path) -> None:
    assert sizes(load_splits(folders(tmp_path, 10), test_classes=0)) == (8, 2, 0)


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fewer than 2 classes"):
        load_splits(folders(tmp_path, 1))


# ---- given lists


def test_sop_keeps_its_test_list(tmp_path: Path) -> None:
    splits = load_splits(sop(tmp_path))
    assert sizes(splits) == (18, 2, 5)
    assert set(splits.test.classes) == {"21", "22", "23", "24", "25"}
    assert sizes(load_splits(tmp_path, test_classes=0, val_classes=0)) == (20, 0, 0)
    with pytest.raises(UserError, match="--test_classes=3: the data names its own test"):
        load_splits(tmp_path, test_classes=3)


def test_where_nothing_is_trained_only_what_the_data_names_is_set_aside(tmp_path: Path) -> None:
    assert sizes(load_splits(sop(tmp_path), set_aside=False)) == (20, 0, 5)
    assert sizes(load_splits(tmp_path, set_aside=False, test_classes=0, val_classes=3)) == (17, 3, 0)
    plain = folders(tmp_path / "plain", 20)
    assert sizes(load_splits(plain, set_aside=False)) == (20, 0, 0)
    assert sizes(load_splits(plain, set_aside=False, test_classes=4)) == (16, 0, 4)
    (tmp_path / "Ebay_test.txt").unlink()
    assert sizes(load_splits(tmp_path, set_aside=False)) == (20, 0, 0)


def test_sop_without_its_test_list(tmp_path: Path) -> None:
    (sop(tmp_path) / "Ebay_test.txt").unlink()
    with pytest.raises(UserError, match=r"no Ebay_test\.txt"):
        load_splits(tmp_path)
    assert sizes(load_splits(tmp_path, test_classes=4, val_classes=0)) == (16, 0, 4)
    (tmp_path / "Ebay_train.txt").rename(tmp_path / "Ebay_test.txt")
    with pytest.raises(UserError, match=r"no Ebay_train\.txt"):
        load_splits(tmp_path)


def test_csv_with_split(tmp_path: Path) -> None:
    rows = [f"{k}_{j}.jpg,{k},{part}" for k, part in enumerate(["train"] * 12 + ["test"] * 3) for j in (0, 1)]
    (tmp_path / "x.csv").write_text("path,label,split\n" + "\n".join(rows))
    assert sizes(load_splits(tmp_path)) == (10, 2, 3)
    (tmp_path / "x.csv").write_text("path,label,split\n" + "\n".join([*rows, "v.jpg,v,val"]))
    assert load_splits(tmp_path).val.classes == ["v"]
    with pytest.raises(UserError, match="--val_classes=2"):
        load_splits(tmp_path, val_classes=2)


def test_val_pictures_of_classes_that_become_the_test_are_left_out(tmp_path: Path) -> None:
    rows = [f"{k}_{j}.jpg,{k},{part}" for k in range(20) for j, part in enumerate(("train", "train", "val"))]
    (tmp_path / "x.csv").write_text("path,label,split\n" + "\n".join(rows))
    splits = load_splits(tmp_path)
    assert len(splits.test.classes) == 4 and not set(splits.val.classes) & set(splits.test.classes)
    assert len(splits.val.classes) == len(splits.val) == 16
    assert "val: 4 pictures of the classes of the test are left out" in splits.notes
    assert len(load_splits(tmp_path, test_classes=0).val) == 20


def test_classes_in_both_val_and_test_are_told(tmp_path: Path) -> None:
    rows = [f"{k}_{part}.jpg,{k},{part}" for k in range(3) for part in ("val", "test")]
    (tmp_path / "x.csv").write_text("path,label,split\na.jpg,a,train\nb.jpg,b,train\n" + "\n".join(rows))
    notes = load_splits(tmp_path).notes
    assert any(note.startswith("WARNING: 3 classes are in both val and test (0, 1, 2") for note in notes)


def test_a_csv_of_test_pictures_alone_can_be_measured(tmp_path: Path) -> None:
    rows = [f"{k}_{j}.jpg,{k},test" for k in range(3) for j in (0, 1)]
    (tmp_path / "x.csv").write_text("path,label,split\n" + "\n".join(rows))
    splits = load_splits(tmp_path, set_aside=False)
    assert len(splits.train) == len(splits.val) == 0 and len(splits.test) == 6
    with pytest.raises(UserError, match="fewer than 2 classes to train on"):
        load_splits(tmp_path)


def test_classes_in_both_lists_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path,label,split\n1,a,train\n2,b,train\n3,a,test\n4,c,test\n")
    notes = load_splits(tmp_path).notes
    assert any(note.startswith("WARNING: 1 classes are in both train and test (a") for note in notes)


def test_lists_by_flag(tmp_path: Path) -> None:
    sop(tmp_path)
    (tmp_path / "mine.txt").write_text(HEADER + "1 1 1 a.jpg\n2 2 1 b.jpg\n")
    splits = load_splits(tmp_path, train_list="mine.txt")
    assert sizes(splits) == (2, 0, 5)
    assert splits.train.paths == [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]
    assert sizes(load_splits(tmp_path, test_list=tmp_path / "mine.txt")) == (18, 2, 2)
    (tmp_path / "t.csv").write_text("path,label\n1,a\n2,b\n")
    (tmp_path / "u.csv").write_text("path,label\n1,c\n2,d\n")
    assert sizes(load_splits(tmp_path, train_list="t.csv", test_list="u.csv")) == (2, 0, 2)
    assert sizes(load_splits(tmp_path, train_list="t.csv")) == (2, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_list": "none.txt"}, "none.txt is neither"),
        ({"train_list": "t.csv", "test_list": "Ebay_test.txt"}, "is a sop list but"),
        ({"train_list": "t.csv", "dataset": "folders"}, "--dataset=folders does not read"),
        ({"train_list": "s.csv", "test_list": "t.csv"}, "names test pictures too"),
        ({"train_list": "t.csv", "test_list": "s.csv"}, "its split column names train pictures too"),
        ({"rules": CsvRules(group_column="race")}, "--group_column=race names a column of a csv, and .* read as 'sop'"),
        ({"dataset": "folder"}, "Did you mean 'folders'"),
    ],
)
def test_lists_that_contradict(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    sop(tmp_path)
    (tmp_path / "t.csv").write_text("path,label\n1,a\n2,b\n")
    (tmp_path / "s.csv").write_text("path,label,split\n1,a,train\n2,b,test\n")
    with pytest.raises(UserError, match=message):
        load_splits(tmp_path, **arguments)


def test_a_test_list_alone_needs_a_training_list(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\n1,a\n2,b\n")
    with pytest.raises(UserError, match="--test_list needs --train_list"):
        load_splits(tmp_path, test_list="t.csv")


def test_pictures_are_neither_lost_nor_doubled(tmp_path: Path) -> None:
    splits = load_splits(folders(tmp_path, 40, pictures=3))
    parts: list[PictureSet] = [splits.train, splits.val, splits.test]
    paths = [path for part in parts for path in part.paths]
    assert len(paths) == len(set(paths)) == 120


# ---- against loops over lists


def naive_split(rows: list[tuple[str, str, str]], name: str, count: int, seed: int) -> set[str]:
    """The classes to split off, by dictionaries of names; rows: (path, label, group)."""

    def rank(label: str) -> tuple[bytes, str]:
        return hashlib.blake2b(f"{seed}/{name}/{label}".encode(), digest_size=8).digest(), label

    def shared_out(labels: list[str], count: int) -> list[str]:
        strata: dict[str, list[str]] = {}
        for label in labels:
            strata.setdefault(next(row[2] for row in rows if row[1] == label), []).append(label)
        shares = allocate([len(strata[group]) for group in sorted(strata)], count)
        return [label for group, share in zip(sorted(strata), shares, strict=True) for label in strata[group][:share]]

    counts = Counter(label for _, label, _ in rows)
    ranked = sorted(counts, key=rank)
    if name == "test":
        return set(shared_out(ranked, count))
    paired, singles = ([label for label in ranked if (counts[label] > 1) == several] for several in (True, False))
    return {*shared_out(paired, min(count, len(paired))), *singles[: max(0, count - len(paired))]}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("grouped", [True, False])
def test_splits_are_those_of_loops_over_lists(tmp_path: Path, seed: int, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    classes = [f"{name}é" for name in rng.permutation(100)[: 14 + 5 * seed]]
    labels = rng.choice(classes, 50)
    rows = [(f"{k}.jpg", str(label), str(rng.choice(list("xyz")))) for k, label in enumerate(labels)]
    if not grouped:
        rows = [(path, label, "") for path, label, _ in rows]
    head, columns = ("path,label,group", 3) if grouped else ("path,label", 2)
    (tmp_path / "x.csv").write_text("\n".join([head, *(",".join(row[:columns]) for row in rows)]), encoding="utf-8")
    for test, val in ((3, 4), (1, 2), (5, 6)):
        found = load_splits(tmp_path, test_classes=test, val_classes=val, seed=seed)
        gone = naive_split(rows, "test", test, seed)
        left = [row for row in rows if row[1] not in gone]
        judges = naive_split(left, "val", val, seed)
        expected = [
            [row for row in left if row[1] not in judges],
            [row for row in left if row[1] in judges],
            [row for row in rows if row[1] in gone],
        ]
        for part, wanted in zip((found.train, found.val, found.test), expected, strict=True):
            assert part.paths == [str(tmp_path / path) for path, _, _ in wanted]
            assert part.classes == sorted({label for _, label, _ in wanted})
            assert [part.classes[label] for label in part.labels] == [label for _, label, _ in wanted]
            assert part.groups == ([group for _, _, group in wanted] if grouped else [])
