"""Files that got more than a refusal from the readers of data, until that was mended; see test_fuzz.py."""

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzzing import seeds
from fuzzing.hostile import hostile
from PIL import Image

from metric_learning.checks import UserError
from metric_learning.data import record_lists, sop
from metric_learning.data.limits import check_work
from metric_learning.data.lists import read_csv, read_sop_list
from metric_learning.data.pair_lists import read_csv_pairs, read_templates
from metric_learning.data.pair_sources import read_pairs
from metric_learning.data.pictures import PictureError, open_picture, read_picture
from metric_learning.data.predictions import read_predictions
from metric_learning.data.questions import read_questions
from metric_learning.data.record_lists import read_recordio
from metric_learning.data.sources import read_parts, recognise


def put(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


# ---- lists


def test_a_label_of_thousands_of_digits_is_a_label(tmp_path):
    path = put(tmp_path, "Ebay_train.txt", seeds.SOP + b"4 000" + b"9" * 5000 + b" 1 c.jpg\n4 000 1 d.jpg\n")
    assert [sample.label for sample in read_sop_list(path)] == ["1", "1", "2", "9" * 5000, "0"]


def test_a_first_line_behind_a_form_feed_is_a_line(tmp_path):
    with pytest.raises(UserError, match="its first line says 10 x 2 x 300 pairs, it has 1"):
        read_pairs(str(put(tmp_path, "pairs.txt", b"\x0c10 300\nAnn 1 2\n")), None)


@pytest.mark.parametrize(
    ("header", "row", "read"),
    [
        ("a,b,same", ",y,1", lambda path: read_csv_pairs(path, str(path.parent)).items),
        ("a,b", ",y", lambda path: read_questions(str(path), str(path.parent)).items),
        ("path,template,media", ",t,m", lambda path: read_templates(path, str(path.parent)).paths),
    ],
)
def test_a_name_that_no_file_can_have_is_only_not_there(tmp_path, header, row, read):
    name = "x" * 5000
    assert f"{tmp_path}/{name}" in read(put(tmp_path, "list.csv", f"{header}\n{name}{row}\n".encode()))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (b"1.jpg,a,a,nan,0.1", "line 2 has a probability outside 0..1"),
        (b"1.jpg,a,a,0.5,0.5\n1.jpg,a,a,-1,0.1", "line 3 has a probability outside 0..1"),
        (b"1.jpg,z,a,0.5,0.5", "the label of line 2 is 'z'"),
        (b"1.jpg,a,a,0.5", "line 2 has 4 columns, its header 5"),
        (b'"1.jpg,a,a,0.5', "unexpected end of data"),
    ],
)
def test_predictions_name_the_line_that_is_wrong(tmp_path, rows, said):
    path = put(tmp_path, "p.csv", b"path,label,predicted,p(a),p(b)\n" + rows + b"\n")
    with pytest.raises(UserError, match=rf"p\.csv is no list of predictions.*: .*{said}"):
        read_predictions(path)


@pytest.mark.parametrize("header", [b"", b"path,label,predicted\n", b"path,label,predicted,p(a),p(a)\n", b"x\n"])
def test_predictions_need_their_header(tmp_path, header):
    with pytest.raises(UserError, match=r"its header is not|no classes"):
        read_predictions(put(tmp_path, "p.csv", header))


def test_a_first_line_that_is_too_long_to_be_looked_at_whole(tmp_path):
    with pytest.raises(UserError, match="the first line must say how many pairs there are"):
        read_pairs(str(put(tmp_path, "pairs.txt", b"10" + b" " * 2000 + b"300 5\n")), None)


@pytest.mark.parametrize("read", [lambda path: read_csv(path), lambda path: read_csv_pairs(path, None)])
def test_a_table_of_very_many_columns_is_refused(tmp_path, read):
    path = put(tmp_path, "list.csv", b"path,label,a,b,same" + b"".join(b",p%d" % k for k in range(20_000)) + b"\n")
    with pytest.raises(UserError, match="the header has 20,005 columns"):
        read(path)


def test_a_pipe_that_is_called_like_a_list_is_passed_over(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    os.mkfifo(tmp_path / "list.csv")
    assert recognise(tmp_path) == "folders" and len(read_parts(tmp_path, "folders")["all"]) == 1
    with pytest.raises(UserError, match="no csv file"):
        read_parts(tmp_path, "csv")


def test_long_values_are_cut_off_in_refusals(tmp_path):
    with pytest.raises(UserError) as caught:
        read_questions(str(put(tmp_path, "q.csv", b"a,b\n" + b"x" * 5000 + b",\n")), None)
    assert str(caught.value).endswith("x....") and len(str(caught.value)) < 150 + len(str(tmp_path))


# ---- pictures


@pytest.mark.parametrize("read", [read_picture, open_picture])
def test_a_jpeg_without_a_height_says_so(tmp_path, read):
    with pytest.raises(PictureError, match=r"its height is said behind its pixels \(DNL\)"):
        read(put(tmp_path, "a.jpg", hostile()["JPEG"]["no height (DNL)"]()))


@pytest.mark.parametrize("kind", ["L", "CMYK"])
def test_a_jpeg_of_thousands_of_passes_is_refused(tmp_path, kind):
    data = seeds.saved(Image.new(kind, (64, 64)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    path = put(tmp_path, "a.jpg", data[:last] + data[last:-2] * 2000 + b"\xff\xd9")
    for read in (read_picture, open_picture):
        with pytest.raises(PictureError, match="passes over its pixels, above the limit of 100"):
            read(path)
    assert read_picture(put(tmp_path, "b.jpg", data)).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("kind", "case", "said"),
    [
        ("JPEG", "a header without end", "more than 100,000 bytes between its segments"),
        ("JPEG", "junk without end", "more than 100,000 bytes between its segments"),
        ("JPEG", "a million segments", "more than 2,000 segments"),
        ("PNG", "chunks without end", "more than 100,000 chunks"),
        ("PPM", "comments without end", "more than 1,000 comments"),
        ("PPM", "a comment without end", "its header is longer than 10,000 bytes"),
    ],
)
def test_pictures_that_would_take_minutes_are_refused(tmp_path, kind, case, said):
    path = put(tmp_path, "a", hostile()[kind][case]())
    for read in (read_picture, open_picture):
        with pytest.raises(PictureError, match=said):
            read(path)


@pytest.mark.parametrize("data", [*seeds.jpegs(), *seeds.pngs(), *seeds.others()["PPM"]])
def test_pictures_of_every_day_are_no_work(data):
    check_work(data + bytes(20_000))
    check_work(data)


# ---- pictures in files


def test_an_index_that_names_one_record_a_thousand_times_reads_it_once(tmp_path, monkeypatch):
    files, _ = seeds.records()
    put(tmp_path, "train.rec", files[1])
    split = files[1].index(struct.pack("<II", seeds.MAGIC, 1 << 29 | 32))
    put(tmp_path, "train.idx", b"".join(b"%d\t%d\n" % (key, split) for key in range(1, 1001)))
    read, real = [], record_lists._split_header
    monkeypatch.setattr(record_lists, "_split_header", lambda *where: read.append(where) or real(*where))
    assert len(read_recordio(tmp_path / "train.rec")["all"]) == 1000 and len(read) == 1


def test_a_file_that_goes_while_its_notes_are_read_is_one_line(tmp_path, monkeypatch):
    files, indices = seeds.records()
    put(tmp_path, "train.rec", files[0])
    put(tmp_path, "train.idx", indices[0])
    assert len(read_recordio(tmp_path / "train.rec")["all"]) == 2

    def gone(path):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(record_lists, "opened", gone)
    with pytest.raises(UserError, match=r"train\.rec: No such file or directory"):
        read_recordio(tmp_path / "train.rec")


def test_a_picture_that_stands_in_a_bin_a_thousand_times_is_taken_once(tmp_path, monkeypatch):
    from metric_learning.data import encoded

    picture, taken, real = seeds.pngs()[0], [], encoded._picture
    monkeypatch.setattr(encoded, "_picture", lambda *what: taken.append(what) or real(*what))
    data = np.frombuffer(picture, np.uint8)
    found = read_pairs(str(put(tmp_path, "a.bin", pickle.dumps(([data] * 2000, [True] * 1000)))), None)
    assert len(found.items) == 1 and len(found.a) == 1000 and len(taken) == 1


# ---- archives


@pytest.mark.parametrize("case", [case for case in hostile()["archive of SOP"] if not case.startswith("read")])
@pytest.mark.sweep
def test_an_archive_made_to_do_harm_is_refused_and_leaves_nothing_elsewhere(tmp_path, case):
    path = put(tmp_path, "archive.zip", hostile()["archive of SOP"][case]())
    with pytest.raises(UserError, match="the archive is not usable and was removed"):
        sop._unpack(path, tmp_path / "unpacked", None)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"unpacked"}
    assert sum(file.stat().st_size for file in tmp_path.rglob("*")) < 2 << 20


def test_a_damaged_stream_of_an_archive_is_one_line(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Ebay_train.txt", seeds.SOP * 3)
    data = bytearray(buffer.getvalue())
    data[len("Ebay_train.txt") + 30] ^= 0xFF
    with pytest.raises(UserError, match="the archive is not usable"):
        sop._unpack(put(tmp_path, "archive.zip", bytes(data)), tmp_path / "unpacked", None)
