"""Files made to do harm: to run code, to take all memory or hours, to write elsewhere; by the reader that gets them.

Each is a function, so that bombs are made one at a time. A name that begins with `read` may be read, in bounded
time and memory; all others must be refused.
"""

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fuzzing import mutations, seeds

MARK = "ran"  # the file that a hostile pickle would make, in the working folder
Made = Callable[[], bytes]


class _Calls:
    def __init__(self, what: Callable[..., Any], *arguments: Any) -> None:
        self.call = what, arguments

    def __reduce__(self) -> Any:
        return self.call


def _short(text: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(text)) + text


def _pickles() -> dict[str, Made]:
    """For every reader of pickles."""
    touch, opened = f"touch {MARK}", f"open({MARK!r}, 'w')"
    found: dict[str, Made] = {f"system, protocol {n}": _dumped(n, os.system, touch) for n in range(6)}
    found |= {f"eval, protocol {n}": _dumped(n, eval, opened) for n in (0, 2, 4)}
    return found | {
        "exec": _dumped(4, exec, opened),
        "open": _dumped(4, open, MARK, "w"),
        "a dotted name": lambda: (
            b"\x80\x04\x8c\x05numpy\x8c\x15ndarray.__reduce_ex__\x93" + _short(touch.encode()) + b"\x85R."
        ),
        "an old instance": lambda: b"(" + _short(touch.encode()) + b"ios\nsystem\n.",
        "an old object": lambda: b"(cos\nsystem\n" + _short(touch.encode()) + b"o.",
        "a new object": lambda: b"cos\nsystem\n" + _short(touch.encode()) + b"\x85\x81.",
        "from the memo": lambda: b"\x80\x04\x8c\x02os\x8c\x06system\x93\x94h\x00" + _short(touch.encode()) + b"\x85R.",
        "behind a frame": lambda: b"\x80\x04\x95\x05\0\0\0\0\0\0\0cos\nsystem\n" + _short(touch.encode()) + b"\x85R.",
        "attributes of a function": lambda: b"c_codecs\nencode\n}U\x0c__defaults__K\x01sb.",
        "an extension": lambda: b"\x82\x01.",
        "a far memo": lambda: b"}r\xff\xff\xff\x7f.",
        "a far memo in text": lambda: b"}p2000000000\n.",
        "huge bytes": lambda: b"\x8e" + (1 << 40).to_bytes(8, "little") + b".",
        "a huge bytearray": lambda: b"\x96" + (1 << 36).to_bytes(8, "little") + b".",
        "a huge frame": lambda: b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"N.",
        "a number of a million digits": lambda: b"I" + b"9" * 1_000_000 + b"\n.",
        "a deep tuple as a key": lambda: b"})" + b"\x85" * 300_000 + b"Ns.",
        "a shape of itself": lambda: b"cnumpy.core.numeric\n_frombuffer\n(C\0N" + _twice_itself() + b"tR.",
        "a type of itself": lambda: b"cnumpy\ndtype\n" + _twice_itself() + b"\x85R.",
        "a size of itself": lambda: b"ctorch._utils\n_rebuild_tensor_v2\n(NK\0" + _twice_itself() + b")tR.",
        "text of itself": lambda: b"c_codecs\nencode\n" + _twice_itself() + b"\x85R.",
        "keys that collide": _colliding,
        "lists without end": lambda: b"(" + b"]" * 6_000_000 + b"t.",
        "copies by a function": lambda: (
            b"X" + struct.pack("<i", 1 << 20) + b"x" * (1 << 20) + b"\x940(" + _copies() + b"t."
        ),
        "copies of an array": lambda: _arrays_of_one(20_000),
    }


def _dumped(protocol: int, *call: Any) -> Made:
    return lambda: pickle.dumps({"x": _Calls(*call)}, protocol)


def _colliding() -> bytes:
    """A dictionary of 60,000 numbers that Python hashes alike."""
    keys = (b"\x8a\x0c" + ((2**61 - 1) * k).to_bytes(12, "little") + b"N" for k in range(1, 60_000))
    return b"}(" + b"".join(keys) + b"u."


def _twice_itself() -> bytes:
    """A tuple of twice a tuple of twice a tuple, ...: to show it, or to hash it, takes 2^40 steps."""
    return b")" + b"q\0h\0\x86" * 40


def _copies() -> bytes:
    return b"c_codecs\nencode\n\x940" + b"h\x01h\x00\x85R" * 50_000


def _arrays_of_one(count: int) -> bytes:
    """{name: array} of so many arrays over the same megabyte."""
    whole = pickle.dumps({"a": np.zeros(1 << 20, np.uint8)}, 2)
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1\x85R"
    state = b"(K\x01J" + struct.pack("<i", 1 << 20) + b"\x85" + dtype + b"\x89h\x00tb"
    raw = b"B" + struct.pack("<i", 1 << 20) + bytes(1 << 20) + b"q\x000"
    assert len(whole) > 1 << 20
    return raw + b"}(" + b"".join(_short(str(k).encode()) + made + state for k in range(count)) + b"u."


def _torch_zips() -> dict[str, Made]:
    found: dict[str, Made] = {name: lambda make=make: _zip({"x/data.pkl": make()}) for name, make in _pickles().items()}
    return found | {
        "a bomb": lambda: _zip({"x/data.pkl": b"}.", "x/data/0": bytes(200 << 20)}, zipfile.ZIP_DEFLATED),
        "sizes that lie": lambda: _lying(seeds.torches("zip")[0]),
        "the same bytes a thousand times": _overlapping,
    }


def _zip(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _lying(data: bytes) -> bytes:
    start = data.index(b"PK\x01\x02")
    return data[: start + 20] + struct.pack("<II", 1 << 31, 1 << 31) + data[start + 28 :]


def _overlapping(
    name: str = "x/data/%d", size: int = 1 << 20, count: int = 1000, how: int = zipfile.ZIP_STORED
) -> bytes:
    """A zip whose directory names one stored member a thousand times."""
    whole = _zip({name % 0 if "%" in name else name: bytes(size)}, how)
    start = whole.index(b"PK\x01\x02")
    end = whole.index(b"PK\x05\x06")
    entry = whole[start:end]
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(entry) * count, start, 0)
    return whole[:start] + entry * count + tail


# ---- pictures


def _png(width: int, height: int, raw: bytes, *more: tuple[bytes, bytes]) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), *more, (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b"")]
    return mutations.png(parts)


def _jpeg(height: int, width: int) -> bytes:
    data = seeds.jpegs()[0]
    at = next(data.index(part) for part in mutations.segments(data) if part[1] == 0xC0)
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def _passes() -> bytes:
    """A large progressive JPEG whose last pass is there 20,000 times."""
    from PIL import Image

    data = seeds.saved(Image.new("L", (4000, 4000)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2][:40] * 20_000 + b"\xff\xd9"


def _gif() -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0)
        + bytes(6)
        + b",\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;"
    )


def _tiff(width: int, height: int, tile: int = 0) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1), (278, 4, height)]
    tags += [(273, 4, 200), (279, 4, 20)] if not tile else [(322, 4, tile), (323, 4, tile), (324, 4, 200), (325, 4, 20)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(tags))
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + body + bytes(4)
    return data.ljust(200, b"\0") + zlib.compress(bytes(100))


def _bomb() -> bytes:
    return zlib.compress(bytes(300 << 20), 9)


def _pictures() -> dict[str, dict[str, Made]]:
    mb = b"A" * (1 << 20)
    return {
        "JPEG": {
            "65,500 x 65,500 pixels": lambda: _jpeg(65500, 65500),
            "no height (DNL)": lambda: _jpeg(0, 24),
            "no width": lambda: _jpeg(24, 0),
            "read: more pixels than data": lambda: _jpeg(5000, 5000),
            "thousands of passes": _passes,
            "a header without end": lambda: b"\xff\xd8" + b"\xff" * 3_000_000,
            "a million segments": lambda: b"\xff\xd8" + b"\xff\xe0\0\x02" * 1_000_000 + b"\xff\xd9",
            "junk without end": lambda: b"\xff\xd8\xff\xe0\0\x02" + bytes(3_000_000) + seeds.jpegs()[0][2:],
        },
        "PNG": {
            "30,000 x 30,000 pixels": lambda: _png(30_000, 30_000, bytes(1000)),
            "2 billion pixels wide": lambda: _png(2**31 - 1, 1, bytes(10)),
            "read: 80 million pixels in 80 kB": lambda: _png(8000, 10_000, bytes(24_001) * 10_000),
            "read: text that grows": lambda: _png(1, 1, bytes(4), (b"zTXt", b"a\0\0" + _bomb())),
            "read: a profile that grows": lambda: _png(1, 1, bytes(4), (b"iCCP", b"a\0\0" + _bomb())),
            "read: pixels that grow": lambda: _png(1, 1, bytes(100 << 20)),
            "chunks without end": lambda: _png(1, 1, bytes(4), *[(b"vpAg", b"")] * 200_000),
            "texts without end": lambda: _png(1, 1, bytes(4), *[(b"tEXt", b"a\0" + mb)] * 80),
        },
        "GIF": {"65,535 x 65,535 pixels": _gif},
        "BMP": {
            "2 billion rows": lambda: (
                b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60_000, 60_000, 1, 24, *(0,) * 6)
            )
        },
        "PPM": {
            "9 billion pixels": lambda: b"P6 99999 99999 255\n",
            "a million digits": lambda: b"P6 " + b"9" * 1_000_000 + b" 1 255\n",
            "comments without end": lambda: b"P3 1000 1000 255\n" + b"#\n" * 3_000_000,
            "a comment without end": lambda: b"P6 #" + b"x" * 5_000_000,
        },
        "TIFF": {
            "65,000 x 65,000 pixels": lambda: _tiff(65_000, 65_000),
            "a tile larger than memory": lambda: _tiff(16, 16, 1 << 20),
        },
        "WEBP": {"16,383 x 16,383 pixels": _webp},
    }


def _webp() -> bytes:
    data = seeds.others()["WEBP"][2]
    return data.replace(data[24:30], (16382).to_bytes(3, "little") * 2, 1)


# ---- the rest


def _npz(name: str = "embeddings", content: bytes = b"", how: int = zipfile.ZIP_STORED) -> bytes:
    members = {
        f"{part}.npy": content if part == name else _npy(np.zeros(1, "U1")) for part in ("embeddings", "paths", "model")
    }
    return _zip(members, how)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array)
    return buffer.getvalue()


def _header(text: str) -> bytes:
    raw = text.encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(raw)) + raw


def _lettered(part: str) -> bytes:
    """A gallery with a text whose letters are numbers beyond all letters."""
    good = {"embeddings": np.zeros((1, 2), np.float32), "paths": np.array(["abc"]), "model": np.array("{}")}
    members = {f"{name}.npy": _npy(array) for name, array in good.items()}
    letter = struct.pack("<I", ord({"paths": "b", "model": "}"}[part]))
    return _zip(members | {f"{part}.npy": members[f"{part}.npy"].replace(letter, b"\xff\xff\xff\x7f")})


def _beside() -> bytes:
    """A gallery with another member that NumPy takes for the embeddings, and that grows."""
    buffer = io.BytesIO(seeds.embeddings())
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embeddings", bytes(600 << 20))
    return buffer.getvalue()


def _npzs() -> dict[str, Made]:
    plain = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n"
    return {
        "deflated": lambda: _npz(content=_npy(np.zeros((1000, 1000), np.float32)), how=zipfile.ZIP_DEFLATED),
        "a size that lies": lambda: _npz(content=_header(plain % ("<f4", "(1099511627776, 512)"))),
        "pickled objects": lambda: _npz(
            content=_header(plain % ("|O", "(1,)")) + pickle.dumps([_Calls(os.system, f"touch {MARK}")])
        ),
        "a header that is code": lambda: _npz(content=_header(f"open({MARK!r}, 'w')")),
        "a header of brackets": lambda: _npz(content=_header("(" * 9000)),
        "a header of signs": lambda: _npz(content=_header("{'shape': " + "-" * 9000 + "1}")),
        "a header without an end": lambda: _npz(content=_header("{'descr': '''")),
        "the same bytes a thousand times": lambda: _overlapping("embeddings.npy"),
        **{f"{part} of numbers that are no letters": lambda part=part: _lettered(part) for part in ("paths", "model")},
        "read: a bomb beside, without .npy": _beside,
    }


def _archives() -> dict[str, Made]:
    top, sop = "SOP/", {"SOP/Ebay_train.txt": seeds.SOP, "SOP/Ebay_test.txt": seeds.SOP}
    pictures = {f"{top}{name}.jpg": bytes(9) for name in ("a/1", "a/2", "b/3")}
    return {
        **{
            f"a member {name}": lambda name=name: _zip({**sop, **pictures, name: b"x"})
            for name in ("../evil.jpg", "/tmp/evil.jpg", "SOP/../../evil.jpg", "SOP/..\\..\\evil.jpg", "C:/evil.jpg")
        },
        "a link": lambda: _linked({**sop, **pictures}),
        "a bomb": lambda: _zip({**sop, **pictures, "SOP/c.jpg": bytes(200 << 20)}, zipfile.ZIP_DEFLATED),
        "a bomb of bzip2": lambda: _zip({**sop, **pictures, "SOP/c.jpg": bytes(60 << 20)}, zipfile.ZIP_BZIP2),
        "the same bytes a thousand times": lambda: _overlapping("SOP/Ebay_train.txt", how=zipfile.ZIP_DEFLATED),
        "a member without a name": lambda: _zip({**sop, **pictures, "x": b""}).replace(b"x", b"\0"),
        "a place before the file": lambda: _before({**sop, **pictures}),
        "read: a name twice": lambda: _zip_of([*sop.items(), *pictures.items(), ("SOP/a/1.jpg", b"2")]),
        "a file that is a folder": lambda: _zip_of([*sop.items(), *pictures.items(), ("SOP/a/1.jpg/x.jpg", b"2")]),
    }


def _before(members: dict[str, bytes]) -> bytes:
    """An archive whose directory says that it begins behind where it does: its members lie before the file."""
    whole = _zip(members)
    end = whole.index(b"PK\x05\x06")
    start = struct.unpack("<I", whole[end + 16 : end + 20])[0]
    return whole[: end + 16] + struct.pack("<I", start + 5000) + whole[end + 20 :]


def _zip_of(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _linked(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        info = zipfile.ZipInfo("SOP/link.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def _texts() -> dict[str, dict[str, Made]]:
    long = {"a line of 20 MB": lambda: b"x" * (20 << 20), "20 MB of zeros": lambda: bytes(20 << 20)}
    return {
        "SOP list": {
            **long,
            "read: a label of 5,000 digits": lambda: seeds.SOP + b"1 " + b"9" * 5000 + b" 1 c.jpg\n",
        },
        "csv path,label": {
            "200,000 columns": lambda: b"path,label" + b"".join(b",p%d" % k for k in range(200_000)) + b"\na,b\n",
            **long,
            "a cell of 20 MB": lambda: b"path,label\n" + b"x" * (20 << 20) + b",1\n",
        },
        "csv id,label": {"a cell of a megabyte": lambda: b"id,label\n" + b"x" * (1 << 20) + b",1\n"},
        "LFW View 2": {
            **long,
            "a first line after a form feed": lambda: b"\x0c10 300\nAnn 1 2\n",
            "a first line of 2,000 spaces": lambda: b"10" + b" " * 2000 + b"300 5\n",
            "more pairs than there are": lambda: b"999999999 999999999\nAnn 1 2\n",
        },
        "csv of pairs": {**long, "read: a name of 5,000 letters": lambda: b"a,b,same\n" + b"x" * 5000 + b",y,1\n"},
        "csv of questions": {"read: a name of 5,000 letters": lambda: b"a,b\n" + b"x" * 5000 + b",y\n"},
        "csv of templates": {
            "read: a name of 5,000 letters": lambda: b"path,template,media\n" + b"x" * 5000 + b",y,1\n"
        },
        "csv of landmarks": {**long, "a number of 5,000 digits": lambda: b"a" + b"," + b"9" * 5000 + b",1" * 9 + b"\n"},
        "csv of predictions": {
            **long,
            "not a number": lambda: b"path,label,predicted,p(a),p(b)\n1.jpg,a,a,nan,0.1\n",
            "a label that is no class": lambda: b"path,label,predicted,p(a),p(b)\n1.jpg,z,a,0.5,0.5\n",
            "no rows and no classes": lambda: b"path,label,predicted\n",
        },
        "config.json, classes.json": {"lists in lists": lambda: b"[" * 1_000_000, "a number": lambda: b"9" * 5000},
    }


def _parts(count: int) -> bytes:
    mark = [struct.pack("<II", seeds.MAGIC, kind << 29) for kind in (1, 2, 3)]
    return mark[0] + mark[1] * count + mark[2]


def _with_state(**said: Any) -> Made:
    return lambda: seeds.safetensors({"a": np.zeros(1, np.float32)}, {"state": {"step": 1, "best": [], **said}})


def _described(**changed: Any) -> Made:
    from fuzzing.readers import _described as whole

    def make() -> bytes:
        data = whole()[0]
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        header["__metadata__"] |= {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in changed.items()
        }
        new = json.dumps(header).encode()
        return len(new).to_bytes(8, "little") + new + data[8 + size :]

    return make


def hostile() -> dict[str, dict[str, Made]]:
    """reader -> what the file does -> its bytes."""
    pickles = _pickles()
    return {
        **_texts(),
        **_pictures(),
        ".pdparams": pickles,
        "InsightFace .bin": pickles,
        "torch, pickles": {
            name: lambda make=make: b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {})) + make()
            for name, make in pickles.items()
        },
        "torch, zip": _torch_zips(),
        "RecordIO .rec, .idx": {
            "a record of 200,000 parts": lambda: _parts(200_000),
            "a record that never ends": lambda: _parts(1000)[:-8],
            "a length beyond the file": lambda: struct.pack("<II", seeds.MAGIC, 0x1FFFFFFF) + bytes(100),
            "a billion labels": lambda: seeds.record(struct.pack("<IfQQ", 1 << 30, 0, 0, 0) + bytes(100)),
        },
        "embeddings .npz": _npzs(),
        "archive of SOP": _archives(),
        "safetensors": {
            "a header of 2^63 bytes": lambda: b"\xff" * 7 + b"\x7f{}",
            "a header of lists": lambda: struct.pack("<Q", 1 << 20) + b"[" * (1 << 20),
            "a type of tomorrow": lambda: _one_tensor(
                {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}, b"\0"
            ),
            "sides that overflow": lambda: _one_tensor(
                {"dtype": "U8", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 1]}, b"\0"
            ),
        },
        "spec, calibration, classes": {
            "an embedding of a billion numbers": _described(embedder=_spec(embedding_size=10**9)),
            "a size that is infinite": _described(embedder=_spec(embedding_size=float("inf"))),
            "pictures of a million rows": _described(embedder=_spec(shape=[3, 10**6, 10**6])),
            "a classifier without classes": _described(classifier={"cosine": True, "scale": 8.0}),
            "means of 400 digits": _described(group_means='{"a": [1' + "0" * 400 + "]}"),
            "a slope of 400 digits": _described(calibration='{"slope": 1' + "0" * 400 + "}"),
            "read: lists in lists": _described(about="[" * 100_000),
        },
        "checkpoint": {
            "a billion processes": _with_state(processes=10**9, sharded=["a"]),
            "a step of text": _with_state(step="1"),
            "arrays that are lists": _with_state(sharded=[["a"]]),
        },
    }


def _spec(**changed: Any) -> dict[str, Any]:
    from fuzzing.readers import _described as whole

    data = whole()[0]
    size = int.from_bytes(data[:8], "little")
    spec: dict[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["embedder"])
    spec["picture"] |= {name: value for name, value in changed.items() if name in spec["picture"]}
    return spec | {name: value for name, value in changed.items() if name in spec}


def _one_tensor(said: dict[str, Any], data: bytes) -> bytes:
    header = json.dumps({"a": said}).encode()
    return struct.pack("<Q", len(header)) + header + data
