"""The readers of files from strangers: how each is given damaged files, and what it may answer with."""

import json
import os
import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from fuzzing import mutations, seeds
from fuzzing.worker import ODD_NAME

Damage = Callable[[Random, bytes, list[bytes]], bytes]
MB = 1 << 20


class Reader(NamedTuple):
    """files: whole ones. damage: to one of them. read: a path -> nothing. name: what the file is called.

    memory: bytes that may be taken beyond what the process had; the reader of pictures holds them several times.
    """

    files: Callable[[], list[bytes]]
    damage: Damage
    read: Callable[[Path], Any]
    name: str = "file"
    memory: int = 300 * MB
    paddle: bool = False

    def make(self, rng: Random, folder: Path) -> Path:
        files = self.files()
        path = folder / self.name
        path.write_bytes(self.damage(rng, rng.choice(files), files))
        return path


# ---- lists


def _parts(found: dict[str, Any]) -> None:
    for samples in found.values():
        list(samples)


def _csv(path: Path) -> None:
    from metric_learning.data.sources import read_parts

    _parts(read_parts(path, "csv"))


def _sop(path: Path) -> None:
    from metric_learning.data.lists import read_list

    _parts(read_list(path)[1])


def _by_id(path: Path) -> None:
    from metric_learning.data.lists import CsvRules, read_csv

    pictures = path.parent / "pictures"
    pictures.mkdir()
    for number in (1, 2, 3):
        (pictures / f"{number}.jpg").touch()
    _parts(read_csv(path, CsvRules(pictures, skip_missing=len(path.read_bytes()) % 2 == 0)))


def _pairs(path: Path) -> None:
    from metric_learning.data.pair_sources import read_pairs

    list(read_pairs(str(path), str(path.parent)).items)


def _questions(path: Path) -> None:
    from metric_learning.data.questions import read_questions

    read_questions(str(path), str(path.parent))


def _templates(path: Path) -> None:
    from metric_learning.data.pair_lists import read_templates

    read_templates(path, str(path.parent))


def _landmarks(path: Path) -> None:
    from metric_learning.data.landmarks import listed_points, read_landmarks

    listed_points(path, path.parent, [str(path.parent / name) for name in list(read_landmarks(path))[:3]])


def _predictions(path: Path) -> None:
    from metric_learning.data.predictions import read_predictions

    found = read_predictions(path)
    assert found.probabilities.shape == (len(found.paths), len(found.classes))


def _texts(*files: bytes) -> Callable[[], list[bytes]]:
    return lambda: list(files)


# ---- folders


class Tree(NamedTuple):
    """A folder of folders with odd names, links in a circle, links to nowhere, pipes and empty files."""

    read: Callable[[Path], Any]
    memory: int = 300 * MB
    paddle: bool = False
    name: str = "tree"

    def files(self) -> list[bytes]:
        return []

    def make(self, rng: Random, folder: Path) -> Path:
        root = folder / self.name
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        places = [root]
        for name in ("Asian/a", "Asian/b", "Indian/c", "Indian/d") if rng.random() < 0.5 else ():
            (root / name).mkdir(parents=True)
            (root / name / "1.jpg").touch()
            places += [root / name] * rng.randrange(2)
        for _ in range(rng.randrange(1, 14)):
            name = rng.choice(
                (
                    b"a",
                    b"Asian",
                    b"Indian",
                    b".x",
                    b"__MACOSX",
                    b"\xff\xfe",
                    ODD_NAME.encode(),
                    "狗".encode(),
                    b" ",
                    b"x" * 255,
                )
            )
            name += rng.choice((b"", b"", b".jpg", b".PNG", b".csv", b"1", b".rec"))
            path = os.path.join(os.fsencode(rng.choice(places)), name[-255:])
            try:
                how = rng.randrange(8)
                if how < 3:
                    os.mkdir(path)
                    places.append(Path(os.fsdecode(path)))
                elif how < 5:
                    _new(path + b".jpg", rng.randbytes(rng.randrange(3)))
                elif how == 5:
                    os.symlink(rng.choice((b".", b"..", b"nowhere", path, os.fsencode(root))), path)
                elif how == 6:
                    os.mkfifo(path)
                else:
                    _new(path, b"path,label\n")
            except OSError:
                continue
        return root


def _new(path: bytes, data: bytes) -> None:
    with open(path, "xb") as file:  # to write into a pipe that is there would wait for ever
        file.write(data)


def _tree(path: Path) -> None:
    from metric_learning.data.sources import SOURCES, read_parts, recognise

    kind = recognise(path)
    _parts(read_parts(path, kind))
    assert kind in SOURCES


def _groups(path: Path) -> None:
    from metric_learning.data.prepare import Amount, split_identities, write_list
    from metric_learning.data.sources import read_parts

    samples = read_parts(path, "groups")["all"]
    write_list(split_identities(samples, Amount()), path, path.parent / "output")


# ---- pictures and their containers


def picture(path: Any) -> None:
    """Every way in which a picture is decoded: whole, smaller, its first rows, and through the transforms."""
    from metric_learning.data.pictures import PictureError, open_picture, read_picture
    from metric_learning.data.transforms import PictureSpec, TestTransform, TrainTransform

    spec = PictureSpec((3, 16, 16))
    failed: list[PictureError] = []
    for way in (read_picture, open_picture):
        try:
            found = way(path)
        except PictureError as error:
            failed.append(error)
            continue
        if isinstance(found, np.ndarray):
            assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3 and found.size
            TestTransform(spec)(found)
            continue
        for by, bottom in ((1, None), (2, None), (4, 7), (8, None), (1, 5)):
            try:
                found.pixels(by, bottom)
            except PictureError as error:
                failed.append(error)
        try:
            TrainTransform(spec)(found, np.random.default_rng(0))
        except PictureError as error:
            failed.append(error)
    if failed:
        raise failed[0]


def _bin(path: Path) -> None:
    from metric_learning.data.pair_sources import read_pairs

    for item in read_pairs(str(path), None).items:
        picture(item)


class Records(NamedTuple):
    """A RecordIO file, its index, or both, damaged."""

    memory: int = 300 * MB
    paddle: bool = False
    name: str = "train.rec"

    def files(self) -> list[bytes]:
        return _records()[0]

    def make(self, rng: Random, folder: Path) -> Path:
        files, indices = _records()
        which = rng.randrange(len(files))
        data, index = files[which], indices[which]
        what = rng.randrange(4)
        if what != 1:
            data = mutations.damaged(rng, data, files)
        if what != 0:
            index = mutations.reworded(rng, index, indices)
        (folder / self.name).write_bytes(data)
        (folder / "train.idx").unlink(missing_ok=True)
        if what != 2:
            (folder / "train.idx").write_bytes(index)
        return folder / self.name

    def read(self, path: Path) -> None:
        from metric_learning.data.record_lists import last_bytes, read_recordio, sizes_of

        samples = read_recordio(path)["all"]
        sizes = sizes_of(samples.paths)
        if len(sizes) < 1000:
            last_bytes(samples.paths.take(np.flatnonzero(sizes >= 0)), 16)
        for sample in samples[:3]:
            picture(sample.path)


@cache
def _records() -> tuple[list[bytes], list[bytes]]:
    return seeds.records()


# ---- weights


def _torch(path: Path) -> None:
    from metric_learning.torch_file import read_torch

    for array in read_torch(path).values():
        array.sum()


def _pdparams(path: Path) -> None:
    from metric_learning.pickled_arrays import read_pdparams

    for array in read_pdparams(path).values():
        array.sum()


def _weights(path: Path) -> None:
    """Tensors, and whose they are."""
    from metric_learning.weights import foreign_spec, read_arrays

    read_arrays(path)
    foreign_spec(path)


def _metadata(path: Path) -> None:
    from metric_learning import embedder

    if (spec := embedder.saved_spec(path)) is None:
        return
    found = embedder.saved_calibration(path), embedder.saved_group_means(path), embedder.saved_classes(path)
    assert embedder.EmbedderSpec.from_dict(spec.to_dict()) == spec
    if found[0] is not None:
        assert (found[0].similarity([-1.0, 0.0, 1.0]) >= 0).all()


def _described() -> list[bytes]:
    spec = {
        "model": "SmallCNN",
        "embedding_size": 4,
        "embedding_norm": False,
        "picture": {
            "shape": [3, 16, 16],
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "color_order": "RGB",
            "test_crop": 0.875,
        },
    }
    point = {"threshold": 0.3, "far": 0.001, "positives": 10, "negatives": 1000}
    calibration = {
        "slope": 9.5,
        "point": point,
        "groups": {"x": point},
        "fitted": {"pairs": "all", "date": "2026-01-01"},
    }
    means = {"x": [0.1, 0.2, 0.3, 0.4], "y": [0.0, 0.0, 0.5, 0.1]}
    classifier = {"cosine": True, "scale": 8.0, "classes": ["a", "b"]}
    arrays = {"classifier.weight": np.ones((2, 4), np.float32), "neck.0.bias": np.zeros(4, np.float32)}
    known = {"embedder": spec, "calibration": calibration, "group_means": means, "classifier": classifier}
    return [seeds.safetensors(arrays, known | {"about": {"step": 3}})]


def _edited_metadata(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """The metadata of a safetensors file, which are JSON in JSON."""
    if rng.random() < 0.2:
        return mutations.retensored(rng, data, others)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    name = rng.choice(list(header["__metadata__"]))
    text = json.dumps(mutations.edited(rng, json.loads(header["__metadata__"][name])))
    if rng.random() < 0.1:
        text = mutations.reworded(rng, text.encode(), [b"[]"]).decode("utf-8", "replace")
    header["__metadata__"][name] = text
    new = json.dumps(header).encode()
    return len(new).to_bytes(8, "little") + new + data[8 + size :]


# ---- runs


def _config(path: Path) -> None:
    from metric_learning.config import ElemOptions, from_dict
    from metric_learning.runs import Run

    run = Run(path.parent)
    saved = run.config()
    from_dict(ElemOptions, saved)
    run.classes()


class Configs(NamedTuple):
    """config.json and classes.json of a run."""

    memory: int = 300 * MB
    paddle: bool = True
    name: str = "config.json"
    read: Callable[[Path], Any] = _config

    def files(self) -> list[bytes]:
        return [b"{}"]

    def make(self, rng: Random, folder: Path) -> Path:
        from metric_learning.config import ElemOptions

        config: Any = {"command": "train_elem", **ElemOptions(loss_name="softmax").to_dict()}
        classes: Any = {"train": ["a", "b"], "val": ["c"], "test": []}
        texts = [json.dumps(mutations.edited(rng, config)), json.dumps(mutations.edited(rng, classes))]
        if rng.random() < 0.3:
            texts[0] = json.dumps(config)
        data = [text.encode() for text in texts]
        if rng.random() < 0.2:
            data[0] = mutations.reworded(rng, data[0], data)
        (folder / self.name).write_bytes(data[0])
        (folder / "classes.json").write_bytes(data[1])
        return folder / self.name


@cache
def _training() -> Any:
    import paddle
    from paddle import nn

    from metric_learning.checkpoint import State
    from metric_learning.optimizer import Optimizer

    network, loss = nn.Linear(3, 2), nn.Linear(2, 2)
    optimizer = Optimizer("momentum", network, loss)
    optimizer.set_lr(0.1)
    loss(network(paddle.ones([1, 3]))).sum().backward()
    optimizer.step()
    return State(network, loss, optimizer, step=1)


def _checkpoints() -> list[bytes]:
    state = _training()
    arrays, _ = state._arrays()
    said = {"step": 1, "best": [0.5], "scores": [0.25, 0.5], "processes": 1, "sharded": [], "scale": [1.0, 0]}
    return [seeds.safetensors(arrays, {"embedder": {}, "state": said})]


def _restore(path: Path) -> None:
    _training().restore(path)


def _unpack(path: Path) -> None:
    from metric_learning.data import sop

    place = path.parent / "unpacked"
    sop._unpack(path, place, None)


TEXT = mutations.reworded
PICTURES = 2200 * MB  # 89 million pixels, three or four times at once


def _kept(name: str) -> Callable[[], list[bytes]]:
    return lambda: seeds.others()[name]


READERS: dict[str, Any] = {
    "SOP list": Reader(_texts(seeds.SOP), TEXT, _sop, "Ebay_train.txt"),
    "csv path,label": Reader(_texts(*seeds.CSV), TEXT, _csv, "list.csv"),
    "csv id,label": Reader(_texts(*seeds.BY_ID), TEXT, _by_id, "list.csv"),
    "folders": Tree(_tree),
    "race folders": Tree(_groups),
    "LFW View 1": Reader(_texts(seeds.VIEW_ONE), TEXT, _pairs, "pairsDevTest.txt"),
    "LFW View 2": Reader(_texts(seeds.VIEW_TWO), TEXT, _pairs, "pairs.txt"),
    "RFW": Reader(_texts(seeds.RFW), TEXT, _pairs, "Asian_pairs.txt"),
    "csv of pairs": Reader(_texts(*seeds.PAIRS), TEXT, _pairs, "pairs.csv"),
    "csv of questions": Reader(_texts(*seeds.QUESTIONS), TEXT, _questions, "questions.csv"),
    "csv of templates": Reader(_texts(*seeds.TEMPLATES), TEXT, _templates, "templates.csv"),
    "csv of landmarks": Reader(_texts(*seeds.LANDMARKS), TEXT, _landmarks, "landmarks.csv"),
    "csv of predictions": Reader(_texts(*seeds.PREDICTIONS), TEXT, _predictions, "val_predictions.csv"),
    "JPEG": Reader(cache(seeds.jpegs), mutations.resegmented, picture, "a.jpg", PICTURES),
    "PNG": Reader(cache(seeds.pngs), mutations.rechunked, picture, "a.png", PICTURES),
    **{
        kind: Reader(cache(_kept(kind)), mutations.damaged, picture, f"a.{kind.lower()}", PICTURES)
        for kind in ("GIF", "BMP", "PPM", "TIFF", "WEBP")
    },
    "InsightFace .bin": Reader(cache(seeds.bins), mutations.repickled, _bin, "lfw.bin", 900 * MB),
    "RecordIO .rec, .idx": Records(),
    "torch, zip": Reader(cache(lambda: seeds.torches("zip")), mutations.rezipped, _torch, "a.pt"),
    "torch, pickles": Reader(cache(lambda: seeds.torches("pickles")), mutations.damaged, _torch, "a.pth", 900 * MB),
    ".pdparams": Reader(cache(seeds.pdparams), mutations.repickled, _pdparams, "a.pdparams", 900 * MB),
    "embeddings .npz": Reader(
        cache(lambda: [seeds.embeddings(), seeds.embeddings(stamped=True)]),
        mutations.rezipped,
        lambda path: __import__("metric_learning.gallery", fromlist="x").Gallery.read(path),
        "embeddings.npz",
    ),
    "archive of SOP": Reader(cache(lambda: [seeds.archive()]), mutations.rezipped, _unpack, "archive.zip"),
    "safetensors": Reader(
        cache(lambda: [seeds.safetensors(seeds.tensors(), {"about": {"step": 3}}), seeds.bfloat16()]),
        mutations.retensored,
        _weights,
        "a.safetensors",
        paddle=True,
    ),
    "spec, calibration, classes": Reader(cache(_described), _edited_metadata, _metadata, "a.safetensors", paddle=True),
    "config.json, classes.json": Configs(),
    "checkpoint": Reader(cache(_checkpoints), _edited_metadata, _restore, "step-00000001.safetensors", paddle=True),
}


# ---- readers that do what none may do, to see that it is noticed


def _raise(path: Path) -> None:
    raise ValueError("not a refusal")


def _run(path: Path) -> None:
    os.system("true")


def _write(path: Path) -> None:
    Path("ran").write_text("")


def _fill(path: Path) -> None:
    np.ones(1 << 25).sum()


TRIALS = {
    name: Reader(_texts(b""), TEXT, read, memory=100 * MB)
    for name, read in {
        "crashed": _raise,
        "died": lambda path: os.abort(),
        "ran": _run,
        "wrote": _write,
        "grew": _fill,
        "took long": lambda path: time.sleep(1.5),
        "said too much": lambda path: _refuse("one\ntwo"),
        "refused": lambda path: _refuse("no"),
        "read": lambda path: None,
    }.items()
}


def _refuse(text: str) -> None:
    from metric_learning.checks import UserError

    raise UserError(text)
