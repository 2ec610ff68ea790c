"""Pictures named by their id, and pictures divided within their classes."""

import random
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.data.lists import CsvRules, read_csv, read_names
from metric_learning.data.picture_splits import Division, divide

RACES = ("Black", "White", "Indian")


def attributes(folder: Path, count: int = 60, test: int = 0, *, order: int | None = None) -> Path:
    """count pictures <id>.png below images/, labels 0 and 1 at 2 : 1, three races; train.csv, and test.csv of more."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    picture = np.full((8, 8, 3), 128, np.uint8)
    rows = []
    for number in range(count + test):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture + np.uint8(number % 100))
        rows.append(f"{number},{int(number % 3 == 0)},{RACES[number // 3 % 3]},{20 + number}")
    train = rows[:count]
    if order is not None:
        random.Random(order).shuffle(train)
    (folder / "train.csv").write_text("\n".join(["id,label,race,age", *train]) + "\n")
    if test:
        (folder / "test.csv").write_text("\n".join(["id,label,race,age", *rows[count:]]) + "\n")
    return folder


def names(pictures) -> list[str]:
    return [Path(path).stem for path in pictures.paths]


# ---- pictures by their id


def test_ids_are_found_below_the_folder_and_groups_are_races(tmp_path) -> None:
    splits = divide(attributes(tmp_path, 60, 9), train_list="train.csv", test_list="test.csv")
    assert names(splits.test) == [str(number) for number in range(60, 69)]  # as the list has them
    assert splits.test.labels.tolist() == [1, 0, 0] * 3 and "test: 9 pictures" in splits.notes
    assert splits.train.classes == splits.val.classes == splits.test.classes == ["0", "1"]
    assert list(splits.test.groups) == [RACES[number // 3 % 3] for number in range(60, 69)]


def test_another_column_may_name_the_groups(tmp_path) -> None:
    attributes(tmp_path, 3)
    found = read_csv(tmp_path / "train.csv", CsvRules(tmp_path, group_column="age"))["all"]
    assert list(found.groups) == ["20", "21", "22"]
    with pytest.raises(UserError, match="group_column=colour: the columns are id, label, race, age"):
        read_csv(tmp_path / "train.csv", CsvRules(tmp_path, group_column="colour"))
    with pytest.raises(UserError, match="group_column=label is no column of groups"):
        read_csv(tmp_path / "train.csv", CsvRules(tmp_path, group_column="label"))


def test_a_missing_picture_is_named_or_left_out(tmp_path) -> None:
    attributes(tmp_path, 5)
    (tmp_path / "images" / "3.png").unlink()
    with pytest.raises(UserError, match=r"train.csv:5: there is no picture 3.jpg .*--skip_missing=True"):
        read_csv(tmp_path / "train.csv", CsvRules(tmp_path))
    found = read_csv(tmp_path / "train.csv", CsvRules(tmp_path, skip_missing=True))["all"]
    assert [Path(path).stem for path in found.paths] == ["0", "1", "2", "4"]
    assert list(found.labels) == ["1", "0", "0", "0"]
    kind, ids, paths = read_names(tmp_path / "train.csv", CsvRules(tmp_path, skip_missing=True))
    assert kind == "id" and ids == ["0", "1", "2", "4"] and [Path(path).stem for path in paths] == ids


def test_of_two_pictures_of_one_id_the_folder_of_the_lists_name_is_meant(tmp_path) -> None:
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "7.jpg"), np.zeros((4, 4, 3), np.uint8))
    for name in ("train", "test", "other"):
        (tmp_path / f"{name}.csv").write_text("id,label\n7,0\n")
    for name in ("train", "test"):
        assert read_csv(tmp_path / f"{name}.csv")["all"][0].path == str(tmp_path / name / "7.jpg")
    with pytest.raises(UserError, match=r"other.csv:2: id '7' may be .*column\s+`path`"):
        read_csv(tmp_path / "other.csv")


def test_an_id_with_an_ending_is_that_file(tmp_path) -> None:
    for name in ("a.jpg", "a.png", "b.c.jpg"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "l.csv").write_text("id,label\na.png,x\nb.c,x\n")
    assert [Path(sample.path).name for sample in read_csv(tmp_path / "l.csv")["all"]] == ["a.png", "b.c.jpg"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id\n1\n", "'label' is there not at all"),
        ("name,label\n1,0\n", "'path' is there not at all"),
        ("id,id,label\n1,1,0\n", "'id' is there twice"),
        ("id,label\n,0\n", "l.csv:2: id is empty"),
        ("id,label,grop\n1,0,a\n", "'grop' is unknown"),
        ("id,label\n", "lists no pictures"),
    ],
)
def test_what_is_no_list_of_ids(tmp_path, text, said) -> None:
    cv2.imwrite(str(tmp_path / "1.jpg"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read_csv(tmp_path / "l.csv")


def test_a_list_to_be_answered_needs_no_labels(tmp_path) -> None:
    attributes(tmp_path, 30)
    (tmp_path / "test.csv").write_text("id\n5\n2\n9\n")
    splits = divide(tmp_path, train_list="train.csv", test_list="test.csv")
    assert splits.test.labels.tolist() == [-1, -1, -1] and names(splits.test) == ["5", "2", "9"]
    assert "test: 3 pictures, 3 of them without a label" in splits.notes


# ---- dividing


def test_shares_are_those_of_each_class_and_group(tmp_path) -> None:
    splits = divide(attributes(tmp_path, 360), train_list="train.csv", division=Division(0.25, 0.5))
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [135, 45, 180]
    for part, share in ((splits.test, 0.5), (splits.val, 0.125), (splits.train, 0.375)):
        counts = Counter(zip(part.labels.tolist(), list(part.groups), strict=True))
        assert all(abs(counts[label, race] - share * (80, 40)[label]) < 1 for label in (0, 1) for race in RACES)
    parts = [set(names(part)) for part in (splits.train, splits.val, splits.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 360


def test_the_choice_is_that_of_the_seed_alone(tmp_path) -> None:
    first, moved = attributes(tmp_path / "a", 60), attributes(tmp_path / "b", 60, order=3)
    choice = {
        key: set(names(divide(place, train_list="train.csv", division=Division(0.2, 0.1, seed=seed)).val))
        for key, place, seed in (("first", first, 0), ("moved", moved, 0), ("seed", first, 1))
    }
    assert choice["first"] == choice["moved"] != choice["seed"]


def test_the_choice_stays_what_it_was(tmp_path) -> None:
    """Runs keep the seed and not the names: with another choice an old run's training pictures would be its test."""
    splits = divide(attributes(tmp_path, 12), train_list="train.csv", division=Division(0.25, 0.25, seed=1))
    assert (names(splits.val), names(splits.test)) == (["9", "10"], ["5", "7", "11"])
    folds = [
        names(divide(tmp_path, train_list="train.csv", division=Division(0, 0, folds=4, fold=n, seed=1)).val)
        for n in (1, 2)
    ]
    assert folds == [["7", "9", "10"], ["0", "2", "8"]]


def test_shares_are_rounded_to_whole_pictures(tmp_path) -> None:
    attributes(tmp_path, 10)
    for share, count in ((0.14, 1), (0.15, 2), (0.16, 2)):
        splits = divide(tmp_path, train_list="train.csv", division=Division(share, 0))
        assert len(splits.val) == count


@pytest.mark.parametrize("folds", [2, 5, 7, 64])
def test_every_picture_is_in_one_fold(tmp_path, folds) -> None:
    attributes(tmp_path, 64)
    parts = [
        divide(tmp_path, train_list="train.csv", division=Division(test_share=0, folds=folds, fold=fold + 1))
        for fold in range(folds)
    ]
    listed = [name for part in parts for name in names(part.val)]
    assert sorted(listed, key=int) == [str(number) for number in range(64)]
    sizes = [len(part.val) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for label in (0, 1):
        counts = [int((part.val.labels == label).sum()) for part in parts]
        assert max(counts) - min(counts) <= 1
    assert all(not set(names(part.val)) & set(names(part.train)) for part in parts)


def test_a_picture_that_is_listed_twice_is_in_one_part(tmp_path) -> None:
    attributes(tmp_path, 12)
    once = divide(tmp_path, train_list="train.csv", division=Division(test_share=0, folds=3))
    head, *rows = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join([head, *rows, *rows[:5]]) + "\n")
    found = divide(tmp_path, train_list="train.csv", division=Division(test_share=0, folds=3))
    assert names(found.train) == names(once.train) and names(found.val) == names(once.val)
    assert "train: 5 rows name a picture once more, and are left out" in found.notes
    (tmp_path / "train.csv").write_text("\n".join([head, *rows, "0,0,Black,20"]) + "\n")
    with pytest.raises(UserError, match=r"0\.png stands there twice, with two labels"):
        divide(tmp_path, train_list="train.csv")


def test_what_can_not_be_divided(tmp_path) -> None:
    attributes(tmp_path, 12, 3)
    with pytest.raises(UserError, match=r"--folds=20 is more than the 12 pictures"):
        divide(tmp_path, train_list="train.csv", division=Division(test_share=0, folds=20))
    with pytest.raises(UserError, match=r"--test_share=0.2: the data names its own test pictures"):
        divide(tmp_path, train_list="train.csv", test_list="test.csv", division=Division(test_share=0.2))
    with pytest.raises(UserError, match=r"No pictures are left to train on"):
        divide(tmp_path, train_list="train.csv", division=Division(test_share=0, folds=1))
    (tmp_path / "other.csv").write_text("id,label\n1,2\n")
    with pytest.raises(UserError, match=r"1 classes of the test pictures are not among .*'2'"):
        divide(tmp_path, train_list="train.csv", test_list="other.csv")
    (tmp_path / "one.csv").write_text("id,label\n1,2\n2,2\n")
    with pytest.raises(UserError, match=r"has 1 class to learn"):
        divide(tmp_path, train_list="one.csv")
    with pytest.raises(UserError, match=r"--val_share must be at least 0 and at most 0.9"):
        divide(tmp_path, train_list="train.csv", division=Division(val_share=1.0))


def test_a_folder_a_class_is_divided_as_well(tmp_path) -> None:
    for label in ("cat", "dog"):
        for number in range(10):
            (tmp_path / label).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / label / f"{number}.png"), np.zeros((4, 4, 3), np.uint8))
    splits = divide(tmp_path)
    assert [np.bincount(part.labels).tolist() for part in (splits.train, splits.val, splits.test)] == [
        [6, 7],
        [2, 1],
        [2, 2],
    ]
    assert not len(divide(tmp_path, division=Division(0, 0)).val)
