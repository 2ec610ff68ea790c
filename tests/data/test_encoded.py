"""InsightFace's .bin: as Python 2 and 3 and NumPy write it, and as someone hostile would."""

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metric_learning.checks import UserError
from metric_learning.data.loader import BadPictures, test_batches
from metric_learning.data.pair_sources import read_pairs
from metric_learning.data.pictures import Encoded, PictureError, read_picture
from metric_learning.data.transforms import PictureSpec

SPEC = PictureSpec((3, 16, 16), (0.5,) * 3, (0.5,) * 3, test_crop=1.0)


def encoded(colour: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (colour, 2 * colour, 255 - colour)).save(buffer, kind)
    return buffer.getvalue()


PICTURES = [encoded(colour) for colour in (10, 20, 30, 10, 40, 50)]
SAME = [True, False, True]


def python_two(pictures: list[bytes], same: list[bool]) -> bytes:
    """The pickle that Python 2 writes at protocol 2 of (list of str, list of bool), written out by hand."""

    def text(data: bytes) -> bytes:
        return (b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data))) + data

    lists = b"](" + b"".join(map(text, pictures)) + b"e](" + b"".join(b"\x88" if s else b"\x89" for s in same) + b"e"
    return b"\x80\x02" + lists + b"\x86."


def arrays(pictures: list[bytes]) -> list[np.ndarray]:
    return [np.frombuffer(data, np.uint8) for data in pictures]


WAYS = {
    **{f"protocol {n}": pickle.dumps((PICTURES, SAME), protocol=n) for n in range(6)},
    **{f"arrays, protocol {n}": pickle.dumps((arrays(PICTURES), SAME), protocol=n) for n in range(6)},
    "python 2": python_two(PICTURES, SAME),
    "list of two": pickle.dumps([tuple(PICTURES), np.array(SAME)]),
    "numpy answers": pickle.dumps((PICTURES, list(np.array(SAME)))),
    "counted answers": pickle.dumps((PICTURES, np.array(SAME).astype(">i4"))),
    "ones and noughts": pickle.dumps((PICTURES, [1, 0, 1])),
    "old numpy": pickle.dumps((arrays(PICTURES), SAME), protocol=2).replace(b"numpy._core", b"numpy.core"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_it_reads_the_same(way, tmp_path):
    (tmp_path / "lfw.bin").write_bytes(WAYS[way])
    found = read_pairs(str(tmp_path / "lfw.bin"), "/nowhere")
    assert found.same.tolist() == SAME and found.kind == "InsightFace .bin" and found.group_names == ["all"]
    assert [found.items[i].data for i in found.a] == PICTURES[0::2]
    assert [found.items[i].data for i in found.b] == PICTURES[1::2]
    assert len(found.items) == 5, "equal pictures are one"
    assert found.folds.tolist() == [0, 1, 2]


def test_a_picture_is_named_by_its_place(tmp_path):
    (tmp_path / "lfw.bin").write_bytes(WAYS["python 2"])
    names = [str(item) for item in read_pairs(str(tmp_path / "lfw.bin"), None).items]
    assert names == [f"{tmp_path / 'lfw.bin'}[{n}]" for n in (0, 1, 2, 4, 5)]


class Hostile:
    def __init__(self, call, *arguments) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["whole", "picture", "answer"])
def test_a_hostile_file_runs_nothing(protocol, place, tmp_path):
    evil = Hostile(os.mkdir, str(tmp_path / "made"))
    content = {"whole": evil, "picture": ([evil, *PICTURES], SAME), "answer": (PICTURES, [evil, *SAME])}[place]
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(content, protocol=protocol))
    refused(tmp_path / "evil.bin", "mkdir")
    assert not (tmp_path / "made").exists()


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_pairs(str(path), None)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "Ran out"),
        (WAYS["protocol 4"][:-40], "cut off"),
        (b"no pickle", ""),
        (pickle.dumps(PICTURES), "must hold"),
        (pickle.dumps({"a": 1}), "must hold"),
        (pickle.dumps((PICTURES, SAME, 1)), "must hold"),
        (pickle.dumps((PICTURES[:-1], SAME)), "5 pictures and 3 answers"),
        (pickle.dumps(([], [])), "0 pictures"),
        (pickle.dumps((PICTURES, "yes")), "answers are a str"),
        (pickle.dumps((PICTURES, [True, 2, False])), "answer 1"),
        (pickle.dumps((PICTURES, [True, False, None])), "answer 2"),
        (pickle.dumps((PICTURES, [True, False, np.array([], bool)])), "answer 2"),
        (pickle.dumps(([*PICTURES[:-1], 7], SAME)), "[5]"),
        (pickle.dumps(([*PICTURES[:-1], "\u0416"], SAME)), "[5]"),
        (pickle.dumps(([*PICTURES[:-1], np.zeros(3)], SAME)), "float64"),
        (pickle.dumps(([*PICTURES[:-1], np.zeros(3, object)], SAME)), "O8"),
        (pickle.dumps(([*PICTURES[:-1], np.zeros(3, np.int32)], SAME)), "[5]"),
    ],
)
def test_a_damaged_file_is_one_line(content, word, tmp_path):
    (tmp_path / "bad.bin").write_bytes(content)
    refused(tmp_path / "bad.bin", word)
    refused(tmp_path / "none.bin", "No such file")


# ---- pictures in memory


def test_bytes_decode_as_the_file_does(tmp_path):
    for kind in ("PNG", "JPEG", "BMP"):
        data = encoded(77, kind)
        (tmp_path / "x").write_bytes(data)
        assert (read_picture(Encoded("name", data)) == read_picture(tmp_path / "x")).all()


@pytest.mark.parametrize("data", [b"", b"no picture", encoded(9, "JPEG")[:-30]])
def test_bytes_that_are_no_picture_are_named(data):
    with pytest.raises(PictureError, match=r"^lfw\.bin\[3\]: "):
        read_picture(Encoded("lfw.bin[3]", data))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_take_paths_and_bytes_together(workers, tmp_path):
    (tmp_path / "x.png").write_bytes(PICTURES[0])
    mixed = [str(tmp_path / "x.png"), Encoded("b[1]", b"no picture"), Encoded("b[2]", PICTURES[0])]
    bad = BadPictures(3, 1.0)
    ((kept, images),) = list(test_batches(mixed, SPEC, 4, workers, bad))
    assert kept.tolist() == [0, 2] and (images[0] == images[1]).all()
    assert bad.lines() == ["b[1]: not a picture in a known format"]
