"""Damaged and hostile files for every reader, a few of each; benchmarks/fuzz.py gives them 10^5."""

from pathlib import Path

import pytest
from fuzzing.hostile import hostile
from fuzzing.readers import READERS, TRIALS
from fuzzing.supervisor import GOOD, outcomes

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux's /proc"
)
DAMAGED = 1000  # the number of the first file that is damaged by chance, behind all that are made to do harm


def wrong(jobs: list[tuple[str, int, int]], seconds: float = 20.0) -> list[str]:
    found = list(outcomes(jobs, 1, seconds))
    assert len(found) == sum(stop - first for _, first, stop in jobs)
    return [f"{one.reader} {one.number} {one.case}: {one.what}: {one.why}" for one in found if one.what not in GOOD]


@pytest.mark.slow
def test_what_no_reader_may_do_is_noticed():
    found = list(outcomes([(name, 0, 1) for name in TRIALS], 0, 1.0))
    assert [one.reader for one in found] == [one.what for one in found] == list(TRIALS)


def test_damaged_files_are_read_or_refused():
    assert not wrong([(name, DAMAGED, DAMAGED + 25) for name, reader in READERS.items() if not reader.paddle])


@pytest.mark.slow
def test_more_damaged_files_are_read_or_refused():
    assert not wrong([(name, DAMAGED, DAMAGED + 300) for name in READERS])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in READERS if name in hostile()])
@pytest.mark.sweep
def test_files_made_to_do_harm_are_refused(name):
    assert not wrong([(name, 0, len(hostile()[name]))])
