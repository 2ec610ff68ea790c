"""The program on docs/evaluation.md runs, and its arithmetic of pairs is right."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from metric_learning.metrics.scores import needed

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_the_program_of_halves_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    paths = [f"faces/{group}/{group}{i}/{k}.jpg" for group, n in (("A", 20), ("B", 2)) for i in range(n) for k in "12"]
    centres = np.random.default_rng(0).standard_normal((len(paths) // 2, 8)).repeat(2, axis=0)
    embeddings = centres + 0.05 * np.random.default_rng(1).standard_normal(centres.shape)
    np.savez(tmp_path / "faces.npz", embeddings=embeddings.astype(np.float32), paths=np.array(paths))
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)[1], {})
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"A, 20 people, 20 of 20 halves: (100\.0|9\d\.\d) ± \d+\.\d %", first)
    assert second == "B, 2 people, 0 of 20 halves: not measurable"


def test_pairs_of_people_and_pictures() -> None:
    people = np.repeat(np.arange(10), 3)
    pairs = [people[a] == people[b] for a, b in itertools.combinations(range(30), 2)]
    assert (sum(pairs), len(pairs) - sum(pairs)) == (10 * 3 * 2 // 2, 3**2 * 10 * 9 // 2)
    assert "100 people with 8 pictures give 316,800 and 2,800" in PAGE.replace("\n", " ")
    assert (8**2 * 100 * 99 // 2, 100 * 8 * 7 // 2) == (316_800, 2_800)


def test_pairs_that_a_far_needs() -> None:
    rows = re.findall(r"^\| (0\.\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE, flags=re.M)
    assert len(rows) == 4
    for far, least, third, tenth in rows:
        numbers = [int(number.replace(",", "")) for number in (least, third, tenth)]
        assert numbers == [needed(float(far)), 10 * needed(float(far)), 100 * needed(float(far))]
