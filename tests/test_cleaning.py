"""eval --clean, end to end: what it writes, says and refuses."""

import contextlib
import csv
import io
import shutil
from pathlib import Path

import cli_cases
import numpy as np
import pytest
from cli_cases import leftovers, refused, run, working_in

from metric_learning.evaluate import Embedded
from metric_learning.stages import cleaning

ODD = "b$_é\udcff"  # a folder's name that is no text


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Twelve classes of drawn stripes, a run over them, and the same in another folder."""
    with working_in(tmp_path_factory.mktemp("clean")) as here:
        cli_cases.folders(Path("data"))
        said = run("train_elem", "--data_dir=data")
        assert said.status == 0, said.err
        shutil.copytree("data", "copy")
        return here


@pytest.fixture
def here(place):
    with working_in(place):
        yield place


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def clustered(seed: int = 0):
    """Six classes of six pictures (files that are not there) in 16 dimensions; three moved; one class of odd name."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(6), 6)
    rows = np.eye(16)[labels] + 0.1 * rng.normal(size=(36, 16))
    labels[[0, 13, 22]] = [3, 5, 1]
    return Embedded(rows.astype(np.float32), labels, None, [f"x/{i}.jpg" for i in range(36)])


def test_the_list_the_sheet_and_what_is_said(tmp_path):
    found, names = clustered(), ["a", ODD, "c", "d", "e", "f"]
    (tmp_path / "s_classes.csv").write_text("older")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        cleaning.clean(found, names, tmp_path / "s.csv")
    rows = rows_of(str(tmp_path / "s.csv"))
    assert list(rows[0]) == ["path", "class", "own_cosine", "other_class", "other_cosine", "reason"]
    assert {(row["path"], row["class"], row["other_class"]) for row in rows[:3]} == {
        ("x/0.jpg", "d", "a"),
        ("x/13.jpg", "f", "c"),
        ("x/22.jpg", ODD, "d"),
    }
    assert {row["reason"] for row in rows[:3]} == {"nearer"}
    assert all(float(row["own_cosine"]) < 0.5 < float(row["other_cosine"]) for row in rows[:3])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.csv", "s.png"]  # the older pairs are gone
    said = out.getvalue()
    assert f"{len(rows)} of 36 pictures" in said and "x/13.jpg: f " in said and "0 pairs of classes" in said


def test_pairs_of_classes_are_written(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 6)
    rows = np.eye(16)[np.minimum(labels, 4)] + 0.1 * rng.normal(size=(36, 16))
    cleaning.clean(Embedded(rows, labels, None, ["x"] * 36), list("abcdef"), tmp_path / "s.csv")
    (pair,) = rows_of(str(tmp_path / "s_classes.csv"))
    assert (pair["class"], pair["other_class"], pair["pictures"], pair["other_pictures"]) == ("e", "f", "6", "6")
    assert float(pair["cosine"]) > 0.9


def test_nothing_suspicious_is_a_header_and_no_sheet(tmp_path):
    (tmp_path / "s.png").write_text("older")
    rows = np.eye(4)[np.repeat(np.arange(4), 3)]
    cleaning.clean(Embedded(rows, np.repeat(np.arange(4), 3), None, ["x"] * 12), list("abcd"), tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text().count("\n") == 1 and not (tmp_path / "s.png").exists()


def test_one_class_has_no_other(tmp_path):
    rows = np.array([[1.0, 0.0]] * 5 + [[-1.0, 0.1]])
    cleaning.clean(Embedded(rows, np.zeros(6, np.int64), None, list("uvwxyz")), ["only"], tmp_path / "s.csv")
    (row,) = rows_of(str(tmp_path / "s.csv"))
    assert row["path"] == "z" and row["other_class"] == row["other_cosine"] == "" and row["reason"] == "far"
    assert (tmp_path / "s.png").is_file()


def test_the_command(here):
    said = run("eval", "--data_dir=copy", "--clean=found/list.csv")
    assert said.status == 0 and said.err == "", said.err
    assert "split: all" in said.out and "pictures / classes: 60 / 12" in said.out
    assert "WARNING: output/elem-softmax" in said.out and "list is too short" in said.out
    rows = rows_of("found/list.csv")
    assert f"{len(rows)} of 60 pictures are probably" in said.out
    assert all(Path(row["path"]).is_file() for row in rows)
    assert Path("found/list.png").is_file() == bool(rows)
    assert not leftovers(here) and not list(Path("output").rglob("eval.*"))


@pytest.mark.slow
def test_a_split_and_a_folder(here):
    Path("there").mkdir()
    said = run("eval", "--clean=there", "--split=test", "--data_dir=data")
    assert said.status == 0 and "split: test" in said.out and "WARNING" not in said.out, said
    assert Path("there", "suspects.csv").is_file()


@pytest.mark.slow
def test_unreadable_pictures_are_left_out(here):
    shutil.copytree("data", "broken", dirs_exist_ok=True)
    Path("broken/class00/0.png").write_bytes(b"no")
    said = run("eval", "--data_dir=broken", "--clean=b.csv", "--max_bad_pictures=0.1")
    assert said.status == 0 and "of 59 pictures" in said.out and "Left out, can't be read" in said.out


@pytest.mark.parametrize(
    "typed",
    ["--pairs=a.csv", "--fars=0.1", "--output=o.json", "--calibrate=c.safetensors", "--group_means=True"],
)
def test_options_of_figures_are_refused(here, typed):
    refused(run("eval", "--clean=x.csv", typed), "--clean", typed.split("=")[0])
    assert not Path("x.csv").exists()


@pytest.mark.slow
def test_the_data_is_not_written_over(here):
    cli_cases.table(Path("table"))
    before = Path("table/list.csv").read_bytes()
    refused(run("eval", "--data_dir=table/list.csv", "--clean=table/list.csv"), "write over table/list.csv")
    refused(run("eval", "--data_dir=data", "--clean=data/class00/1.csv"), "write over data/class00/1.png")
    assert Path("table/list.csv").read_bytes() == before
    refused(run("eval", "--data_dir=data", "--clean=table/list.csv/x.csv"), "--clean")
    refused(run("eval", "--data_dir=data", "--clean=data/new/x.csv"), "is inside data")
    assert not Path("data/new").exists()
