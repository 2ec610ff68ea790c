from pathlib import Path

import numpy as np
from test_recordio import MAGIC, pack, write_rec

from metric_learning.data.duplicates import duplicates
from metric_learning.data.recordio import RecordPaths


def test_equal_files_are_paired_with_the_earliest(tmp_path: Path) -> None:
    contents = {
        "a": b"one",
        "b": b"two",
        "c": b"one",
        "d": b"three!",
        "x": b"one",
        "y": b"six",
        "z": b"three!",
        "w": b"long one",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)

    def paths(names: str) -> list[str]:
        return [str(tmp_path / name) for name in names]

    found = duplicates(paths("abcd"), paths("xyzw"))
    assert found == [(str(tmp_path / "a"), str(tmp_path / "x")), (str(tmp_path / "d"), str(tmp_path / "z"))]
    assert duplicates(paths("ab"), paths("a")) == [(str(tmp_path / "a"), str(tmp_path / "a"))]
    assert duplicates([], paths("x")) == duplicates(paths("x"), []) == []


def test_missing_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    (tmp_path / "c").mkdir()
    names = [str(tmp_path / name) for name in ("none", "c", "a")]
    assert duplicates(names, [str(tmp_path / "c"), str(tmp_path / "b"), str(tmp_path / "gone")]) == [
        (str(tmp_path / "a"), str(tmp_path / "b"))
    ]


def test_only_files_of_a_shared_size_are_read(tmp_path: Path, monkeypatch: object) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"yy")
    (tmp_path / "a").chmod(0)
    assert duplicates([str(tmp_path / "a")], [str(tmp_path / "b")]) == []


def test_records_and_files_are_compared_with_each_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.bytes(50) for _ in range(3)]
    pictures += [pictures[0][:-1] + b"x", b"x" + pictures[0][1:], b"tiny", MAGIC + pictures[0], pictures[1]]
    labels: list[float | list[float]] = [1, [2, 2], 3, 4, 5, 6, 7, 8]
    places = write_rec(tmp_path / "t.rec", {k: pack(labels[k], pictures[k], k) for k in range(8)})
    other = write_rec(tmp_path / "u.rec", {9: pack(1, pictures[2]), 5: pack(2, b"tiny", 77), 1: pack([1, 2, 3], b"")})
    records = RecordPaths(str(tmp_path / "t.rec"), np.array([places[k] for k in range(8)]))
    others = RecordPaths(str(tmp_path / "u.rec"), np.array([other[k] for k in (9, 5, 1)]))
    files = [str(tmp_path / f"{k}.jpg") for k in range(8)]
    for name, content in zip(files, pictures, strict=True):
        Path(name).write_bytes(content)
    assert duplicates(records, others) == [(records[2], others[0]), (records[5], others[1])]
    assert duplicates(others, records) == [(others[0], records[2]), (others[1], records[5])]
    found = duplicates(records, files)
    assert found == [(records[k if k < 7 else 1], files[k]) for k in (0, 1, 2, 3, 4, 5, 7)]  # record 6 is split
    assert duplicates(files[:1], records[3:5]) == []
    assert duplicates(files[7:], records) == [(files[7], records[1]), (files[7], records[7])]
