from pathlib import Path

from metric_learning.data.duplicates import duplicates


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
