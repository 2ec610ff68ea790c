"""InsightFace's .rec/.idx, written by a small writer of our own after dmlc-core's recordio.cc and mxnet.recordio."""

import contextlib
import io
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metric_learning.checks import UserError
from metric_learning.data import record_lists, recordio
from metric_learning.data.pictures import PictureError, encoded, read_picture
from metric_learning.data.record_lists import read_index, read_recordio
from metric_learning.data.recordio import is_record, read_encoded
from metric_learning.data.sources import PictureSet, read_parts, recognise
from metric_learning.data.splits import load_splits

MAGIC = struct.pack("<I", 0xCED7230A)


def record(content: bytes) -> bytes:
    """One record of a file; where the magic stands at a multiple of 4 the content is split and the magic left out."""
    cuts = [at for at in range(0, len(content) - 3, 4) if content[at : at + 4] == MAGIC]
    bounds = [*zip([0, *(cut + 4 for cut in cuts)], [*cuts, len(content)], strict=True)]
    out = b""
    for number, (start, stop) in enumerate(bounds):
        kind = 0 if len(bounds) == 1 else 1 if number == 0 else 3 if number == len(bounds) - 1 else 2
        out += MAGIC + struct.pack("<I", kind << 29 | (stop - start)) + content[start:stop]
        out += bytes(-len(out) % 4)
    return out


def pack(label: float | Sequence[float], picture: bytes, number: int = 0) -> bytes:
    """mxnet.recordio.pack: one label stands in the header, several behind it."""
    if isinstance(label, int | float):
        return struct.pack("<IfQQ", 0, label, number, 0) + picture
    return struct.pack("<IfQQ", len(label), 0, number, 0) + struct.pack(f"<{len(label)}f", *label) + picture


def jpeg(seed: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_rec(path: Path, contents: dict[int, bytes], index: bool = True) -> dict[int, int]:
    """Write records in the given order -> {key: byte}."""
    data, places = b"", {}
    for key, content in contents.items():
        places[key] = len(data)
        data += record(content)
    path.write_bytes(data)
    if index:
        path.with_suffix(".idx").write_text("".join(f"{key}\t{place}\n" for key, place in places.items()))
    return places


def insightface(labels: Sequence[int]) -> dict[int, bytes]:
    """Contents as InsightFace packs them: 1.. the pictures, then a record an identity, and record 0, written last."""
    contents = {k: pack(label, jpeg(k), k) for k, label in enumerate(labels, start=1)}
    first = len(labels) + 1
    people = sorted(set(labels))
    for k, label in enumerate(people):
        begin = 1 + labels.index(label)
        contents[first + k] = pack([begin, begin + labels.count(label)], b"", first + k)
    return {**contents, 0: pack([first, first + len(people)], b"")}


LABELS = [3, 3, 3, 11, 11, 20]


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("zero_first", [True, False])
def test_insightface_sets(tmp_path: Path, index: bool, zero_first: bool) -> None:
    contents = insightface(LABELS)
    if zero_first:
        contents = {0: contents[0], **contents}
    places = write_rec(tmp_path / "train.rec", contents, index)
    (tmp_path / "property").write_text("3,112,112")
    (tmp_path / "lfw.bin").write_bytes(b"")
    assert recognise(tmp_path) == "recordio" == recognise(tmp_path / "train.rec")
    samples = read_parts(tmp_path, "recordio")["all"]
    assert samples == read_parts(tmp_path / "train.rec", "recordio")["all"]
    assert [sample.label for sample in samples] == ["3", "3", "3", "11", "11", "20"]
    assert [sample.path for sample in samples] == [f"{tmp_path / 'train.rec'}#{places[k]}" for k in range(1, 7)]
    assert PictureSet.of(samples).labels.tolist() == [2, 2, 2, 0, 0, 1]
    for k, sample in enumerate(samples, start=1):
        assert encoded(sample.path) == jpeg(k)
        assert read_picture(sample.path).shape == (12, 10, 3)


def test_pictures_are_the_same_as_from_files(tmp_path: Path) -> None:
    places = write_rec(tmp_path / "a.rec", {k: pack(k, jpeg(k, kind)) for k, kind in enumerate(("JPEG", "PNG"))})
    for k, kind in enumerate(("JPEG", "PNG")):
        (tmp_path / "file").write_bytes(jpeg(k, kind))
        assert np.array_equal(read_picture(f"{tmp_path}/a.rec#{places[k]}"), read_picture(tmp_path / "file"))


def test_splits_take_it_like_any_other_source(tmp_path: Path) -> None:
    write_rec(tmp_path / "train.rec", insightface([k // 2 for k in range(40)]))
    splits = load_splits(tmp_path)
    assert (splits.kind, len(splits.train.classes), len(splits.val.classes), len(splits.test.classes)) == (
        "recordio",
        14,
        2,
        4,
    )


def test_several_labels_count_by_the_first(tmp_path: Path) -> None:
    """Such as MS1MV3's: (identity, something), and a picture behind them; no record 0."""
    write_rec(tmp_path / "train.rec", {5: pack([7, 0.5], jpeg(5)), 2: pack([8], jpeg(2)), 9: pack(7, jpeg(9))})
    samples = read_recordio(tmp_path)["all"]
    assert [sample.label for sample in samples] == ["8", "7", "7"]  # by key, not by place
    assert [encoded(sample.path) for sample in samples] == [jpeg(2), jpeg(5), jpeg(9)]


def test_identity_records_with_a_few_bytes_are_passed_over_too(tmp_path: Path) -> None:
    contents = {**insightface(LABELS), 7: pack([1, 4], b"\0")}
    write_rec(tmp_path / "train.rec", contents)
    assert len(read_recordio(tmp_path)["all"]) == len(LABELS)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize(
    "picture", [MAGIC, MAGIC * 3, b"abcd" + MAGIC, MAGIC + b"ab", b"abcd" + MAGIC + b"efgh" + MAGIC]
)
def test_split_records(tmp_path: Path, picture: bytes, index: bool) -> None:
    magic_id = int.from_bytes(MAGIC, "little")
    contents = {0: pack(1, picture), 1: pack([2, 3], picture), 2: pack(4, jpeg(2), magic_id)}
    places = write_rec(tmp_path / "train.rec", contents, index)
    data = (tmp_path / "train.rec").read_bytes()
    assert data[places[0] + 4 : places[0] + 8] != struct.pack("<I", len(contents[0]))  # they are split indeed
    samples = read_recordio(tmp_path)["all"]
    assert [(sample.label, encoded(sample.path)) for sample in samples] == [
        ("1", picture),
        ("2", picture),
        ("4", jpeg(2)),
    ]


def test_a_magic_that_is_not_at_a_multiple_of_4_splits_nothing(tmp_path: Path) -> None:
    write_rec(tmp_path / "train.rec", {0: pack(1, b"ab" + MAGIC + b"cd"), 1: pack(1, b"e")})
    assert [encoded(sample.path) for sample in read_recordio(tmp_path)["all"]] == [b"ab" + MAGIC + b"cd", b"e"]


def test_padding_may_be_missing_at_the_very_end(tmp_path: Path) -> None:
    data = record(pack(1, b"abc")) + record(pack(2, b"abcde"))
    (tmp_path / "train.rec").write_bytes(data[:-3])
    assert [encoded(sample.path) for sample in read_recordio(tmp_path)["all"]] == [b"abc", b"abcde"]


def test_a_picture_without_bytes_is_a_bad_picture(tmp_path: Path) -> None:
    write_rec(tmp_path / "train.rec", {0: pack(1, b""), 1: pack(1, b"no picture"), 2: pack(2, jpeg(1))})
    first, second, _ = read_recordio(tmp_path)["all"]
    with pytest.raises(PictureError, match=r"train\.rec#0: empty"):
        read_picture(first.path)
    with pytest.raises(PictureError, match=r"train\.rec#32: not a picture"):
        read_picture(second.path)


def test_threads_read_the_same(tmp_path: Path) -> None:
    write_rec(tmp_path / "train.rec", insightface(LABELS))
    samples = read_recordio(tmp_path)["all"]
    expected = [jpeg(k) for k in range(1, 7)]
    wrong: list[str] = []

    def read() -> None:
        for _ in range(200):
            wrong.extend(s.path for s, data in zip(samples, expected, strict=True) if encoded(s.path) != data)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- what is not a RecordIO file


def refused(path: Path, match: str) -> None:
    with pytest.raises(UserError, match=match) as error:
        read_recordio(path)
    assert "\n" not in str(error.value)
    assert str(path.parent) in str(error.value)


@pytest.mark.parametrize("index", [True, False])
def test_a_file_that_was_cut_off_is_refused_wherever_it_was_cut(tmp_path: Path, index: bool) -> None:
    path = tmp_path / "train.rec"
    places = write_rec(path, {k: pack(k, jpeg(k)) for k in range(3)}, index)
    whole = path.read_bytes()
    for size in [0, 3, 7, 9, places[1] - 5, places[2] + 4, places[2] + 20, len(whole) - 4]:
        path.write_bytes(whole[:size])
        refused(path, "cut off|no record|not a RecordIO|cannot")


def test_an_index_of_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.rec"
    write_rec(path, {k: pack(k, jpeg(k)) for k in range(3)})
    for rows, message in {
        "0\t0\n1\t32\n": "byte 32: no record begins",
        "0\t2\n": "byte 2: no record can begin",
        "0\t-4\n": "byte -4: no record can begin",
        "0\t99999999\n": "byte 99999999: no record can begin",
        "0\t99999999999999999999999\n": "no record can begin",
        "0\t0\n0\t0\n": "key 0 is there twice",
        "0\n1\n": "not the index",
        "0 0 0 0\n": "not the index",
        "a\tb\n": "not the index",
        "0\t1.5\n": "not the index",
        "": "not the index",
        "\xff": "not the index",
    }.items():
        path.with_suffix(".idx").write_text(rows, encoding="latin1")
        refused(path, message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (MAGIC + struct.pack("<I", 8) + bytes(8), "too short"),
        (MAGIC + struct.pack("<IIfQQ", 24, 2**32 - 1, 0, 0, 0), "too short"),
        (MAGIC + struct.pack("<IIfQQ", 2**29 - 1, 0, 0, 0, 0), "cut off"),
        (MAGIC + struct.pack("<I", 1 << 29 | 4) + b"abcd", "no end"),
        (MAGIC + struct.pack("<I", 2 << 29 | 4) + b"abcd", "split"),
        (MAGIC + struct.pack("<I", 7 << 29 | 4) + b"abcd", "split"),
        (2 * (MAGIC + struct.pack("<I", 1 << 29 | 4) + b"abcd"), "split"),
        (MAGIC + struct.pack("<I", 1 << 29) + MAGIC + struct.pack("<I", 3 << 29), "too short"),
        (record(pack(float("nan"), b"x")), "label is nan"),
        (record(pack(float("inf"), b"x")), "label is inf"),
        (record(pack(0.5, b"x")), r"label is 0\.5"),
        (record(pack([1, 2], b"")), "holds no pictures"),
        (b"PK\3\4" + bytes(100), "no record"),
        (b"", "not a RecordIO file"),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "train.rec").write_bytes(data)
    refused(tmp_path / "train.rec", message)
    if message != "not a RecordIO file":
        (tmp_path / "train.idx").write_text("1\t0\n")
        refused(tmp_path / "train.rec", "byte|label|holds no pictures|whole")


@pytest.mark.parametrize("seed", range(3))
def test_damaged_bytes_are_user_errors_or_bad_pictures(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    write_rec(tmp_path / "train.rec", insightface(LABELS), index=seed != 0)
    whole = (tmp_path / "train.rec").read_bytes()
    for _ in range(60):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 6):
            data[at - at % 4 : at - at % 4 + 4] = rng.choice([MAGIC, bytes(4), b"\xff" * 4, rng.bytes(4)])
        (tmp_path / "train.rec").write_bytes(data)
        try:
            samples = read_recordio(tmp_path)["all"]
        except UserError:
            continue
        for sample in samples:
            with contextlib.suppress(PictureError):  # any other error fails the test
                read_picture(sample.path)


def test_reading_by_name(tmp_path: Path) -> None:
    write_rec(tmp_path / "odd name#3.rec", {0: pack(1, jpeg(0)), 1: pack([1, 2, 3], jpeg(1))})
    path = tmp_path / "odd name#3.rec"
    assert is_record(f"{path}#0") and not is_record(path) and not is_record(f"{path}#x") and not is_record("a#1.jpg")
    assert read_encoded(f"{path}#0") == jpeg(0)
    for name, message in {
        f"{path}#4": "no record",
        f"{path}#999999999999": "no record",
        "gone.rec#0": "No such",
    }.items():
        with pytest.raises(PictureError, match=message):
            read_picture(name)
    with pytest.raises(ValueError, match="not the name of a record"):
        read_encoded(path)


def test_a_file_that_shrinks_or_changes_under_us_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "train.rec"
    write_rec(path, {0: pack(1, jpeg(0)), 1: pack(1, jpeg(1))})
    first, second = read_recordio(tmp_path)["all"]
    assert encoded(second.path) == jpeg(1)
    path.write_bytes(record(pack(1, jpeg(7))))
    assert encoded(first.path) == jpeg(7)
    with pytest.raises(PictureError, match="no record"):
        read_picture(second.path)
    path.unlink()
    with pytest.raises(PictureError, match="No such file"):
        read_picture(first.path)


def test_which_file_of_a_folder(tmp_path: Path) -> None:
    write_rec(tmp_path / "mine.rec", {0: pack(1, b"x")})
    assert len(read_recordio(tmp_path)["all"]) == 1
    write_rec(tmp_path / "other.rec", {0: pack(1, b"x")})
    with pytest.raises(UserError, match=r"several others \(mine\.rec, other\.rec\)"):
        read_recordio(tmp_path)
    write_rec(tmp_path / "train.rec", {0: pack(1, b"x"), 1: pack(1, b"y")})
    assert len(read_recordio(tmp_path)["all"]) == 2


def test_index_rows_in_any_order_and_with_windows_ends(tmp_path: Path) -> None:
    (tmp_path / "a.idx").write_bytes(b"2\t64\r\n0\t0\r\n\r\n1\t32\r\n")
    keys, places = read_index(tmp_path / "a.idx")
    assert (keys.tolist(), places.tolist()) == ([0, 1, 2], [0, 32, 64])


@pytest.mark.parametrize("index", [True, False])
def test_headers_and_index_are_read_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: bool
) -> None:
    write_rec(tmp_path / "train.rec", insightface(LABELS), index)
    whole = read_recordio(tmp_path)["all"]
    for size in (1, 2, 3, 7):
        monkeypatch.setattr(record_lists, "CHUNK", size)
        monkeypatch.setattr(record_lists, "TEXT", size)
        assert read_recordio(tmp_path)["all"] == whole == list(whole)
    rows = (tmp_path / "train.rec").with_suffix(".idx")
    for text in ("0\t0\n4\n", "0\t0\n1\n2 3 4 5\n\n\n"):
        rows.write_text(text)
        refused(tmp_path, "not the index")


def test_records_of_any_length_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [np.random.default_rng(k).bytes(k) for k in (0, 1, 3, 50, 16352, 16376 - 24, 16377, 50_000)]
    pictures += [pictures[-1] + 2 * MAGIC + pictures[3] + MAGIC]  # split
    places = write_rec(tmp_path / "a.rec", {k: pack(1, content) for k, content in enumerate(pictures)})
    for usual in (8, 9, 40, recordio.USUAL):
        monkeypatch.setattr(recordio, "USUAL", usual)
        for k, place in places.items():
            assert read_encoded(f"{tmp_path}/a.rec#{place}") == pictures[k]


def test_a_file_cut_off_while_it_is_open_is_a_bad_picture(tmp_path: Path) -> None:
    """A memory map would end the process here."""
    place = write_rec(tmp_path / "a.rec", {0: pack(1, bytes(9)), 1: pack(1, jpeg(1) * 50)})[1]
    file = recordio.opened(str(tmp_path / "a.rec"))
    with open(tmp_path / "a.rec", "r+b") as shorter:
        shorter.truncate(place + 40)
    with pytest.raises(ValueError, match="cut off"):
        recordio.content_of(file, place)
