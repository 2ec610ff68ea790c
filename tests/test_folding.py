"""--folds without a training: which fold comes next, and what the folds say together, by hand."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from metric_learning.config import ElemOptions
from metric_learning.config.parsing import parse
from metric_learning.data.predictions import Predictions, read_predictions, write_predictions
from metric_learning.runs import Run
from metric_learning.stages.folding import next_fold, runs_of, summary


def options(place: Path, *typed: str) -> ElemOptions:
    return parse(ElemOptions, ["--task=classify", f"--model_save_dir={place}", *typed])


def begun(place: Path, name: str, fold: int | None = None, *, age: int = 0) -> Run:
    """A run of the series `first`, so many seconds old."""
    folder = place / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"fold": fold, "fold_series": "first" if fold else None}))
    os.utime(folder / "config.json", (10_000 - age, 10_000 - age))
    return Run(folder)


def test_one_fold_comes_behind_the_other(tmp_path):
    config, first = options(tmp_path, "--folds=3"), begun(tmp_path, "first")
    seen = []
    run = first
    while following := next_fold(config, run):
        config, there, checkpoint = following
        assert there is None and checkpoint is None and config.checkpoint is None
        run = begun(tmp_path, f"fold-{config.fold}", config.fold)
        seen.append((config.fold, config.fold_series))
    assert seen == [(2, "first"), (3, "first")]
    assert {fold: found.folder.name for fold, found in runs_of("first", tmp_path).items()} == {
        1: "first",
        2: "fold-2",
        3: "fold-3",
    }


def test_one_fold_alone_and_no_folds_have_none_behind_them(tmp_path):
    first = begun(tmp_path, "first")
    assert next_fold(options(tmp_path, "--folds=3", "--fold=1"), first) is None
    assert next_fold(options(tmp_path), first) is None


def test_a_fold_that_has_begun_goes_on(tmp_path):
    config, first = options(tmp_path, "--folds=3"), begun(tmp_path, "first")
    begun(tmp_path, "a", 2, age=1)
    newest = begun(tmp_path, "b", 2)
    begun(tmp_path, "c", 2, age=2)
    assert next_fold(config, first)[1:] == (newest, None)  # stopped before its first checkpoint
    newest.latest.parent.mkdir()
    newest.latest.touch()
    assert next_fold(config, first)[1:] == (newest, newest.latest)


def said(run: Run, labels: str, predicted: str, test: float | None = None) -> None:
    """Predictions of a letter a picture, each sure; a picture is called <run><number>.png."""
    paths = [str(run.folder / f"{i}.png") for i in range(len(labels))]
    for path in paths:
        cv2.imwrite(path, np.zeros((8, 8, 3), np.uint8))
    rows = np.array([[0.9, 0.1] if letter == "a" else [0.1, 0.9] for letter in predicted])
    write_predictions(run.val_predictions, Predictions(paths, list(labels), rows, ["a", "b"]))
    if test is not None:
        run.results.write_text(json.dumps({"all": {"accuracy": test, "balanced_accuracy": 0.125}}))


def test_what_the_folds_say_together(tmp_path, capsys):
    said(begun(tmp_path, "third", 3, age=2), "abbbb", "abbba")  # 4 of 5; 1 of 1 and 3 of 4
    said(begun(tmp_path, "second", 2, age=1), "ab", "aa", test=0.6)
    said(begun(tmp_path, "first"), "aaab", "aabb", test=0.8)  # 3 of 4; 2 of 3 and 1 of 1
    summary("first", tmp_path)
    found = json.loads((tmp_path / "first-folds" / "results.json").read_text())
    accuracy, balanced = [0.75, 0.5, 0.8], [5 / 6, 0.5, 0.875]
    for i, fold in enumerate("123"):
        assert found["folds"][fold] == pytest.approx(
            {"val_accuracy": accuracy[i], "val_balanced_accuracy": balanced[i], "test_accuracy": (0.8, 0.6, None)[i]}
        )
    assert list(found["mean"].values()) == pytest.approx([sum(accuracy) / 3, sum(balanced) / 3, 0.7])
    spread = (sum((value - sum(accuracy) / 3) ** 2 for value in accuracy) / 2) ** 0.5
    assert found["std"]["val_accuracy"] == pytest.approx(spread)
    assert found["std"]["test_accuracy"] == pytest.approx(0.02**0.5)
    parts = [Path(path).parent.name for path in read_predictions(tmp_path / "first-folds" / "predictions.csv").paths]
    assert parts == ["first"] * 4 + ["second"] * 2 + ["third"] * 5
    assert "3 folds" in capsys.readouterr().out


@pytest.mark.parametrize(("test", "mean"), [(None, None), (0.5, 0.5)])
def test_what_too_few_folds_know_is_left_open(tmp_path, test, mean):
    said(begun(tmp_path, "first"), "ab", "ab", test)
    said(begun(tmp_path, "second", 2), "ab", "ab")
    summary("first", tmp_path)
    found = json.loads((tmp_path / "first-folds" / "results.json").read_text())
    assert found["mean"]["test_accuracy"] == mean and found["std"]["test_accuracy"] is None
    assert found["std"]["val_accuracy"] == 0
