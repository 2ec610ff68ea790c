"""Compact names against the lists that they stand for."""

import os
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from metric_learning.data import names
from metric_learning.data.names import Coded, PackedNames, joined, packed, smallest, taken
from metric_learning.data.recordio import RecordPaths
from metric_learning.data.samples import Sample, SamplePacker, Samples
from metric_learning.data.sources import PictureSet

WORDS = ["a/1.jpg", "", "/abs/é.png", "日本/x.jpg", os.fsdecode(b"caf\xe9.jpg"), "a\nb", "a/1.jpg", "z" * 300]
PLACES = [0, 8, 123456789012, 4, 8]
KINDS: dict[str, Callable[[], tuple[Sequence[str], list[str]]]] = {
    "packed": lambda: (packed(iter(WORDS)), WORDS),
    "coded": lambda: (Coded.of(iter(WORDS)), WORDS),
    "records": lambda: (RecordPaths("d/t.rec", np.array(PLACES)), [f"d/t.rec#{place}" for place in PLACES]),
    "none": lambda: (packed([]), []),
    "none coded": lambda: (Coded.of([]), []),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "BLOCK", 3)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_the_list(kind: str) -> None:
    found, expected = KINDS[kind]()
    assert len(found) == len(expected) and bool(found) == bool(expected)
    assert list(found) == expected and found == expected and expected == found and found == tuple(expected)
    assert list(reversed(found)) == expected[::-1]
    assert found != [*expected, "more"] and found != "".join(expected)
    if expected:
        assert found != [*expected[:-1], "other"] and found[-1] == expected[-1]
        assert found[np.int64(1)] == expected[1] and expected[1] in found and found.index(expected[2]) == 2
    for index in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            found[index]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [slice(None), slice(1, 4), slice(None, None, -1), slice(-3, None, 2), slice(4, 1)])
def test_slices_stay_compact(kind: str, part: slice) -> None:
    found, expected = KINDS[kind]()
    assert type(found[part]) is type(found) and found[part] == expected[part]


@pytest.mark.parametrize("kind", KINDS)
def test_taking_rows_in_any_order(kind: str) -> None:
    found, expected = KINDS[kind]()
    rows = np.random.default_rng(0).integers(0, len(expected), 11) if expected else np.empty(0, np.int64)
    for names_ in (found, expected):
        assert taken(names_, rows) == [expected[row] for row in rows]
    assert type(taken(found, rows)) is type(found)


@pytest.mark.parametrize("kind", KINDS)
def test_joining(kind: str) -> None:
    found, expected = KINDS[kind]()
    for parts in ([found], [found, found], [found[:2], found[2:]], [found, ["x"]], [["x"], found], []):
        assert joined(parts) == [name for part in parts for name in part]
    if expected:
        assert type(joined([found, found])) is type(found) or kind == "coded"
    assert RecordPaths("d/t.rec", np.array([0])) == ["d/t.rec#0"]


def test_names_below_a_folder_are_joined_as_paths_are() -> None:
    cells = ["a.jpg", "/abs.jpg", "é/b.jpg"]
    for folder in ("", "data", "/data", "data/", "."):
        packer = names.NamePacker(folder)
        packer.add(cells[:1])
        packer.add(cells[1:])
        found = packer.packed()
        expected = [os.path.join(folder, cell) for cell in cells]
        assert found == expected and found.take(np.array([2, 0])) == [expected[2], expected[0]]
        assert joined([found, found]) == expected * 2
        assert joined([found, packed(["q"])]) == [*expected, "q"]
        assert found.data.nbytes < 30


def test_codes_are_sorted_and_only_names_that_are_there_stay() -> None:
    found = Coded.of(["b", "c", "a", "c", "b", "d"]).take(np.array([1, 3, 4, 0, 2]))
    ordered = found.sorted()
    assert found == ordered == ["c", "c", "b", "b", "a"]
    assert ordered.names == ["a", "b", "c"] and ordered.counts().tolist() == [1, 2, 2]
    assert found.present() == {"a", "b", "c"}
    assert np.array(found).tolist() == list(found) and np.array(Coded.of([])).tolist() == []
    parts = [found, Coded.of(["e", "a"]), Coded.of([])]
    assert Coded.join(parts) == [*found, "e", "a"] and Coded.join([]) == []


@pytest.mark.parametrize(("count", "kind"), [(0, "u1"), (256, "u1"), (257, "u2"), (65536, "u2"), (65537, "i4")])
def test_codes_are_as_small_as_can_be(count: int, kind: str) -> None:
    assert smallest(count) == np.dtype(kind)
    assert Coded.of(map(str, range(count))) == [str(k) for k in range(count)]


SAMPLES = [Sample("p", "b"), Sample("q", "a", "G"), Sample("r", "b", "H"), Sample("p", "c", "G")]


def test_tables_of_samples() -> None:
    table = Samples.of(iter(SAMPLES))
    assert table == SAMPLES and table[1] == SAMPLES[1] and isinstance(table[0], Sample)
    assert table.take(np.array([3, 0])) == [SAMPLES[3], SAMPLES[0]] and table[1:3] == SAMPLES[1:3]
    assert Samples.join([table, table[:1], Samples.of([])]) == [*SAMPLES, SAMPLES[0]]
    assert Samples.join([]) == [] and Samples.of(table) is table
    packer = SamplePacker("d")
    packer.add(["x"], ["1"])
    assert packer.packed() == [Sample(os.path.join("d", "x"), "1")]


def test_a_set_of_pictures_and_back() -> None:
    pictures = PictureSet.of(SAMPLES)
    assert pictures.samples() == SAMPLES
    assert pictures.groups == ["", "G", "H", "G"]
    by_hand = PictureSet(["p", "q"], np.array([1, 0]), ["a", "b"], [])
    assert by_hand.samples() == [Sample("p", "b"), Sample("q", "a")]


def test_pictures_cost_their_letters_and_little_more() -> None:
    count = 100_000
    pictures = PictureSet.of(Sample(f"{k:08d}", str(k // 50), "ab"[k % 2]) for k in range(count))
    assert isinstance(pictures.paths, PackedNames) and isinstance(pictures.groups, Coded)
    held = pictures.paths.data.nbytes + pictures.paths.offsets.nbytes + pictures.groups.codes.nbytes
    assert held + pictures.labels.nbytes < (8 + 8 + 1 + 8) * count + 100
