"""The order of runs, whatever the clock says."""

import json
import os
import time

import pytest

from metric_learning.runs import in_order, new_run, newest_run


def begin(place, at: float, monkeypatch, loss="softmax"):
    """A run that begins when the clock says `at`, and has weights."""
    monkeypatch.setattr(time, "time", lambda: at)
    run = new_run(str(place), "train_elem", loss, {"lr": 0.1})
    os.utime(run.folder / "config.json", (at, at))
    run.best.write_bytes(b"")
    return run


@pytest.mark.parametrize("times", [[1e9, 2e9, 3e9], [3e9, 2e9, 1e9], [1e9, 9e9, 2e9, 2e9], [5e8] * 4])
def test_the_newest_run_is_the_one_begun_last(tmp_path, monkeypatch, times):
    runs = [begin(tmp_path, at, monkeypatch) for at in times]
    assert in_order(tmp_path) == runs and newest_run(str(tmp_path)) == runs[-1]
    assert newest_run(str(tmp_path), "elem") == runs[-1] and newest_run(str(tmp_path), "pair") is None


def test_a_run_of_an_older_version_is_as_old_as_its_config(tmp_path, monkeypatch):
    old = begin(tmp_path, 2e9, monkeypatch)
    (old.folder / "config.json").write_text(json.dumps({"lr": 1}))
    os.utime(old.folder / "config.json", (2e9, 2e9))
    before, after = begin(tmp_path / "elsewhere", 1e9, monkeypatch), begin(tmp_path, 1e9, monkeypatch)
    assert in_order(tmp_path) == [old, after] and after.started() > 2e9
    before.folder.rename(tmp_path / "moved")
    assert [run.folder.name for run in in_order(tmp_path)] == ["moved", old.folder.name, after.folder.name]
    for content in ("[]", "{", json.dumps({"started": "never"}), json.dumps({"started": None})):
        (old.folder / "config.json").write_text(content)
        os.utime(old.folder / "config.json", (2e9, 2e9))
        assert old.started() == 2e9


def test_a_resumed_run_stays_as_old_as_it_is(tmp_path, monkeypatch):
    first, second = begin(tmp_path, 1e9, monkeypatch), begin(tmp_path, 2e9, monkeypatch)
    first.rewrite_config({"lr": 0.2})
    assert first.config() == {"lr": 0.2, "started": 1e9} and newest_run(str(tmp_path)) == second
