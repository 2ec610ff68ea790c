"""The drawn set with one large group."""

import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from metric_learning.checks import UserError
from metric_learning.data.skewed import TABLE, TRAIN, counts_of, main, write_skewed_faces
from metric_learning.data.splits import load_splits

SMALL = {"train": {"African": 1, "Caucasian": 3}, "val": 1, "test": 2, "pictures": 2, "progress": False}


def test_a_skewed_training_set_and_an_equal_test(tmp_path) -> None:
    root = write_skewed_faces(str(tmp_path / "faces"), **SMALL)
    splits = load_splits(root)
    assert splits.kind == "csv"
    for part, people in (
        ("train", SMALL["train"]),
        ("val", dict.fromkeys(SMALL["train"], 1)),
        ("test", dict.fromkeys(SMALL["train"], 2)),
    ):
        pictures = getattr(splits, part)
        found = defaultdict(set)
        for label, group in zip(pictures.labels.tolist(), pictures.groups, strict=True):
            found[group].add(pictures.classes[label])
        assert {group: len(names) for group, names in found.items()} == people
        assert set(Counter(pictures.labels.tolist()).values()) == {2}
    assert not set(splits.train.classes) & (set(splits.val.classes) | set(splits.test.classes))
    assert not set(splits.val.classes) & set(splits.test.classes)


def test_it_is_written_once_and_mended(tmp_path) -> None:
    root = write_skewed_faces(str(tmp_path / "faces"), **SMALL)
    table = Path(root) / TABLE
    before, text = table.stat().st_mtime_ns, table.read_bytes()
    write_skewed_faces(root, **SMALL)
    assert table.stat().st_mtime_ns == before
    table.write_text("half of a")
    write_skewed_faces(root, **SMALL)
    assert table.read_bytes() == text and not [name for name in os.listdir(root) if name.endswith(".part")]
    again = write_skewed_faces(str(tmp_path / "again"), **SMALL)
    assert (Path(again) / TABLE).read_bytes() == text


def test_more_people_to_train_on_leave_the_test_as_it_is(tmp_path) -> None:
    rows = []
    for name, count in (("few", 1), ("many", 2)):
        root = write_skewed_faces(str(tmp_path / name), **(SMALL | {"train": {"African": count, "Caucasian": 1}}))
        rows.append([line for line in (Path(root) / TABLE).read_text().splitlines() if not line.endswith("train")])
    assert rows[0] == rows[1]


def test_the_command_line(tmp_path, capsys) -> None:
    root = tmp_path / "faces"
    assert main([f"--root={root}", "--train=Asian:1,Indian:2", "--val=0", "--test=1", "--pictures=1"]) == 0
    assert "train with --data_dir=" in capsys.readouterr().out
    assert (root / TABLE).read_text().count(",Indian,") == 3
    for typed, word in (
        ("--train=Asia:1", "Did you mean 'Asian'?"),
        ("--train=Asian", "such as African:26"),
        ("--test=-1", "--test must be at least 0"),
        ("--val=9", "not {"),  # the folder was made with others
        ("--trian=1", "Did you mean '--train'?"),
    ):
        assert main([f"--root={root}", "--pictures=1", typed]) == 2
        assert word in capsys.readouterr().err


def test_counts() -> None:
    assert counts_of(",".join(f"{group}:{count}" for group, count in TRAIN.items())) == TRAIN
    with pytest.raises(UserError):
        counts_of("African:x")
    with pytest.raises(UserError, match="names African twice"):
        counts_of("African:5,Asian:3,African:7")
