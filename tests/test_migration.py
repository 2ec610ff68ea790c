"""Every name of ours on docs/migration.md exists: options parse, Python names import, scripts and modules are there."""

import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from metric_learning.checks import UserError
from metric_learning.config import COMMANDS, options, parse
from metric_learning.data.lists import COLUMNS
from metric_learning.metrics import retrieval_metrics

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
FIGURES = {re.sub(r"\d+$", "k", name) for name in retrieval_metrics(np.eye(4), [0, 0, 1, 1])}
OTHERS = {".npz", ".pdparams", "log.txt", "test", "validation", "visualdl --logdir output"}


def ours() -> list[str]:
    """What stands in backquotes in the last column of every table."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("|---")]
    return sorted({code for row in rows for code in re.findall(r"`([^`]+)`", row.rsplit(" | ", 1)[1])})


def takes(kind, typed: list[str]) -> bool:
    """Whether a command takes these options: values as they are typed, or the name alone."""
    if all("=" not in word for word in typed):
        return {word[2:] for word in typed} <= {item.name for item in options(kind)}
    try:
        parse(kind, typed)
    except UserError:
        return False
    return True


def exists(code: str) -> bool:
    if code.startswith("--"):
        return any(takes(kind, code.split()) for kind in COMMANDS)
    if code.startswith("python -m "):
        return find_spec(code.split()[2]) is not None
    if code.startswith("python "):
        script, *typed = code.split()[1:]
        kind = next(kind for kind in COMMANDS if f"{kind.command}.py" == script)
        return (ROOT / script).exists() and (not typed or takes(kind, typed))
    if code.startswith("metric_learning."):
        module, _, name = code.rpartition(".")
        return hasattr(importlib.import_module(module), name)
    if code in OTHERS or (ROOT / code).exists() or re.sub(r"@1$", "@k", code) in FIGURES:
        return True
    return set(code.split(",")) <= set(COLUMNS)


@pytest.mark.parametrize("code", ours())
def test_our_name_exists(code: str) -> None:
    assert exists(code)


@pytest.mark.parametrize(
    "code",
    [
        *("--loss_name=cosface", "--batch_hard", "--loss_name=eml --margin2=1", "python -m metric_learning.sop"),
        *("metric_learning.losses.ArcFaceLoss", "python eval.py --query=a.jpg", "mrr@k", "path,labels"),
    ],
)
def test_a_name_that_does_not_exist_is_seen(code: str) -> None:
    assert not exists(code)


def test_tables_have_two_columns() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert rows and all(row.count("|") == 3 for row in rows)
