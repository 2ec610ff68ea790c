"""Whole files of each format, small ones, made when they are asked for."""

import io
import json
import pickle
import struct
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch_file
from PIL import Image

SOP = b"image_id class_id super_class_id path\n1 1 1 a/1.jpg\n2 1 1 a/2.jpg\n3 2 1 b/3.jpg\n"
CSV = (
    b"path,label,group,split\na/1.jpg,a,x,train\na/2.jpg,a,y,val\nb/3.jpg,b,x,test\n",
    b'label,path\n"one, two",a/1.jpg\n2,b/3.jpg\n',
    b"path,label,race\r\na/1.jpg,a,Asian\r\nb/3.jpg,b,Indian\r\n",
)
BY_ID = (b"id,label,race\n1,0,Asian\n2,1,Indian\n3,1,Black\n", b"id,label\n1.jpg,a\n3.jpg,b\n")
FOUR = b"Ann\t1\t2\nBob\t1\t2\nAnn\t1\tBob\t1\nAnn\t2\tBob\t2\n"
VIEW_ONE, VIEW_TWO, RFW = b"2\n" + FOUR, b"2\t2\n" + FOUR * 2, FOUR * 5
PAIRS = (
    b"a,b,same,group\na/1.jpg,a/2.jpg,1,x\na/1.jpg,b/3.jpg,0,y\n",
    b"a,b,same\na/1.jpg,a/2.jpg,1\na/1.jpg,b/3.jpg,0\n",
)
QUESTIONS = (b"a,b\na/1.jpg,a/2.jpg\n", b"a,b,group\na/1.jpg,b/3.jpg,x\na/2.jpg,b/3.jpg,y\n")
TEMPLATES = (b"path,template,media\na/1.jpg,t1,m1\na/2.jpg,t1,m2\nb/3.jpg,t2,m1\n",)
LANDMARKS = (
    b"path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\na/1.jpg,3,4,9,4,6,6,4,9,8,9\nb/3.jpg,3.5,4,9,4,6,6,4,9,8,9.25\n",
    b"a/1.jpg,3,4,9,4,6,6,4,9,8,9\n",
)
PREDICTIONS = (
    b"path,label,predicted,p(a),p(b)\n1.jpg,a,a,0.9,0.1\n2.jpg,b,a,0.7,0.3\n",
    b"path,label,predicted,p(a)\n1,,a,1\n",
)


def pixels(height: int = 17, width: int = 24, channels: int = 3) -> np.ndarray:
    found = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return found if channels > 1 else found[..., 0]


def saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def jpegs() -> list[bytes]:
    colour, exif = Image.fromarray(pixels()), Image.Exif()
    exif[0x0112] = 6
    return [
        saved(colour, "JPEG"),
        saved(colour, "JPEG", progressive=True),
        saved(colour, "JPEG", exif=exif.tobytes(), subsampling=2),
        saved(colour.convert("L"), "JPEG"),
        saved(colour.convert("CMYK"), "JPEG"),
        saved(Image.fromarray(pixels(90, 130)), "JPEG", quality=30, restart_marker_blocks=2),
    ]


def pngs() -> list[bytes]:
    colour, rgba = Image.fromarray(pixels()), Image.fromarray(pixels(channels=4))
    palette = colour.quantize(16)
    return [
        saved(colour, "PNG"),
        saved(rgba, "PNG"),
        saved(palette, "PNG", transparency=3),
        saved(colour.convert("1"), "PNG"),
        saved(Image.fromarray(pixels(channels=1).astype(np.uint16) * 257), "PNG"),
        saved(colour, "PNG", save_all=True, append_images=[rgba.convert("RGB")]),
    ]


def others() -> dict[str, list[bytes]]:
    """Pictures of the other formats."""
    colour = Image.fromarray(pixels())
    gray, palette = colour.convert("L"), colour.quantize(16)
    return {
        "GIF": [saved(palette, "GIF"), saved(palette, "GIF", save_all=True, append_images=[palette.rotate(90)])],
        "BMP": [saved(image, "BMP") for image in (colour, gray, palette, colour.convert("1"))],
        "PPM": [saved(colour, "PPM"), saved(gray, "PPM"), b"P3 2 1 255 1 2 3 4 5 6\n", b"P1\n# x\n2 2\n1 0 0 1\n"],
        "TIFF": [
            saved(image, "TIFF", compression=how)
            for image, how in ((colour, None), (colour, "tiff_lzw"), (colour, "tiff_deflate"), (gray, "packbits"))
        ],
        "WEBP": [
            saved(colour, "WEBP"),
            saved(Image.fromarray(pixels(channels=4)), "WEBP", lossless=True),
            saved(colour, "WEBP", save_all=True, append_images=[colour.rotate(90)]),
        ],
    }


def bins() -> list[bytes]:
    pictures, same = [jpegs()[0], pngs()[3], jpegs()[3], pngs()[3]], [True, False]
    arrays = [np.frombuffer(data, np.uint8) for data in pictures]
    found = [pickle.dumps((pictures, same), protocol) for protocol in (0, 2, 4)]
    return [*found, pickle.dumps((arrays, np.array(same)), 2), pickle.dumps([arrays, list(np.array(same))], 5)]


def records() -> tuple[list[bytes], list[bytes]]:
    """(files, their indices): InsightFace's, with notes of identities; one with a split record; one without notes."""
    faces, odd = [jpegs()[0], pngs()[3]], struct.pack("<I", MAGIC)
    first = {0: _pack([3.0, 4.0], b""), 1: _pack([0.0], faces[0]), 2: _pack([1.0], faces[1]), 3: _pack([1.0, 2.0], b"")}
    second = {
        1: _pack(5.0, faces[1]),
        2: _pack(6.0, bytes(8) + odd + bytes(8) + odd + faces[1]),
        3: _pack(5.0, faces[0]),
    }
    files, indices = [], []
    for contents in (first, second):
        data, rows = b"", b""
        for key, content in contents.items():
            rows += f"{key}\t{len(data)}\n".encode()
            data += record(content)
        files.append(data)
        indices.append(rows)
    return files, indices


MAGIC = 0xCED7230A


def record(content: bytes) -> bytes:
    mark = struct.pack("<I", MAGIC)
    parts = content.split(mark)  # whoever makes the seeds puts the mark at multiples of 4 only
    found = b""
    for number, part in enumerate(parts):
        kind = 0 if len(parts) == 1 else 1 if not number else 3 if number == len(parts) - 1 else 2
        found += mark + struct.pack("<I", kind << 29 | len(part)) + part + bytes(-len(part) % 4)
    return found


def _pack(label: Any, picture: bytes) -> bytes:
    if isinstance(label, float):
        return struct.pack("<IfQQ", 0, label, 0, 0) + picture
    return struct.pack("<IfQQ", len(label), 0, 0, 0) + struct.pack(f"<{len(label)}f", *label) + picture


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "conv1.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "bn1.running_mean": np.zeros(4, np.float32),
        "steps": np.array([1, 2], np.int64),
        "half": np.ones((2, 2), np.float16),
    }


def torches(kind: str) -> list[bytes]:
    """Files of torch.save: `zip` or `pickles`."""
    state = torch_file.state_dict(tensors())
    nested = {"state_dict": state, "epoch": 3, "optimizer": {0: state}}
    return [
        written(lambda path, content=content: torch_file.WRITERS[kind](path, content)) for content in (state, nested)
    ]


def pdparams() -> list[bytes]:
    arrays = {name: (f"{name}_0", array) for name, array in tensors().items()}
    found = [pickle.dumps(arrays | {"StructuredToParameterName@@": {"a": "b"}}, protocol) for protocol in (2, 4)]
    return [*found, pickle.dumps(OrderedDict(tensors()), 0), pickle.dumps(tensors(), 5)]


def written(write: Any, name: str = "file") -> bytes:
    """The bytes of a file that is written to a path."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def safetensors(arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> bytes:
    """As `write_tensors` writes it, without the checksums: a stranger's has none, or right ones."""
    from metric_learning import checksums
    from metric_learning.files import write_tensors

    data = written(lambda path: write_tensors(path, arrays, metadata), "a.safetensors")
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    del header["__metadata__"][checksums.NAME]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def bfloat16() -> bytes:
    header = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\x80\x3f\x00\xc0"


def embeddings(stamped: bool = False) -> bytes:
    from metric_learning.gallery import write_embeddings

    rows, paths = np.arange(12, dtype=np.float32).reshape(3, 4), ["a.jpg", "b.jpg", "ü.jpg"]
    stamps = np.ones((3, 2), np.int64) if stamped else None
    return written(lambda path: write_embeddings(path, rows, paths, '{"digest": "x"}', stamps))


def archive() -> bytes:
    """Stanford Online Products in small."""
    buffer = io.BytesIO()
    top = "Stanford_Online_Products/"
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr(top + "Ebay_train.txt", SOP)
        opened.writestr(top + "Ebay_test.txt", SOP.replace(b"b/3", b"a/1"))
        for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
            opened.writestr(top + name, bytes(range(200)))
    return buffer.getvalue()
