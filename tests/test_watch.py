"""What VisualDL shows of a run: bounded samples, sheets of pictures, the file, its pages; a training's progress."""

import contextlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import cli_cases
import numpy as np
import paddle
import pytest
from cli_cases import working_in

from metric_learning import records, watch
from metric_learning.data.transforms import PictureSpec, to_batch
from metric_learning.log import RunLog

ROOT = Path(__file__).resolve().parents[1]


# ---- bounded samples


def test_samples_are_evenly_spaced_and_bounded():
    assert watch.sampled(np.arange(10).reshape(2, 5)).tolist() == list(range(10))
    assert watch.sampled(np.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert len(watch.sampled(np.zeros((1000, 999), np.float32))) <= watch.SAMPLED
    assert watch.sampled(np.empty(0)).shape == (0,)


def test_weights_are_grouped_by_part_with_as_many_words_as_fit():
    few = [f"net.layer{k}.{i}.weight" for k in range(4) for i in range(3)]
    assert list(watch.grouped(few)) == few
    many = [f"net.layer{k}.{i}.weight" for k in range(4) for i in range(9)] + ["neck.0.weight"]
    assert list(watch.grouped(many)) == [*(f"net.layer{k}" for k in range(4)), "neck.0"]
    assert watch.grouped([f"{k}.w" for k in range(40)]) == {"all": [f"{k}.w" for k in range(40)]}
    assert watch.grouped([]) == {}


def test_samples_of_weights_leave_biases_out():
    layers = paddle.nn.Sequential(paddle.nn.Linear(3, 2), paddle.nn.BatchNorm1D(2), paddle.nn.Linear(2, 2))
    found = watch.weights_of(layers)
    assert list(found) == ["0.weight", "2.weight"]
    np.testing.assert_array_equal(found["0.weight"], layers[0].weight.numpy().reshape(-1))


def test_shown_pictures_are_whole_classes_up_to_a_number():
    labels = np.array([2, 0, 1, 0, 2, 1])
    assert watch.shown_rows(labels).tolist() == [1, 3, 2, 5, 0, 4]
    many = np.arange(6000) % 600
    rows = watch.shown_rows(many)
    assert len(rows) == watch.EMBEDDED and set(np.unique(many[rows], return_counts=True)[1]) == {10}
    assert len(watch.shown_rows(np.zeros(6000, int))) == watch.EMBEDDED


def test_cosines_within_and_between_classes_are_those_of_the_pairs():
    embeddings, labels = (
        np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32),
        np.array([0, 1, 0, 2, 1, 0, 2]),
    )
    found = watch.lying(embeddings, labels)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(7) for j in range(i + 1, 7)]
    for name, same in (("positive_similarity", True), ("negative_similarity", False)):
        expected = [units[i] @ units[j] for i, j in pairs if (labels[i] == labels[j]) == same]
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
    np.testing.assert_allclose(found["embedding_norm"], np.linalg.norm(embeddings, axis=1))


@pytest.mark.parametrize("size", [5, 12])
def test_what_is_projected_keeps_the_distances_of_directions(size):
    embeddings = np.random.default_rng(0).normal(size=(9, size)).astype(np.float32) + 3.0
    found = watch.projected(embeddings)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    assert found.shape == (9, min(9, size)) and found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=1e-6)
    assert (np.diff((found**2).sum(axis=0)) <= 1e-6).all()
    for i in range(9):
        np.testing.assert_allclose(
            np.linalg.norm(found - found[i], axis=1), np.linalg.norm(units - units[i], axis=1), atol=1e-5
        )
    assert watch.projected(np.ones((60, 70), np.float32)).shape == (60, watch.DIRECTIONS)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_a_sheet_shows_what_the_network_gets(order):
    spec = PictureSpec((3, 6, 8), color_order=order)
    pictures = list(np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), np.uint8))
    sheet = watch.grid(to_batch(pictures, spec), spec)
    assert sheet.shape == (12, 32, 3) and sheet.dtype == np.uint8
    np.testing.assert_array_equal(sheet[:6, 8:16], pictures[1])
    np.testing.assert_array_equal(sheet[6:, :8], pictures[4])
    assert (sheet[6:, 8:] == 255).all()


def test_a_sheet_of_gray_and_large_pictures():
    spec = PictureSpec((1, 512, 256))
    sheet = watch.grid(to_batch([np.full((512, 256, 1), 77, np.uint8)] * 2, spec), spec)
    assert sheet.shape == (128, 128, 3) and (sheet == 77).all()


# ---- the file


def names_and_steps(place: Path) -> list[tuple[str, int]]:
    from visualdl.proto.record_pb2 import Record

    (file,) = place.glob("*vdlrecords*")
    values = [Record.FromString(record).values[0] for record in records.records(file)]
    return [(value.tag, value.id) for value in values if value.tag != "meta_data_tag"]


def test_a_resumed_run_keeps_its_curves_up_to_its_step(tmp_path, capsys):
    with RunLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.scalars("train", {"50 % loss": 1.0}, step)
    (file,) = (tmp_path / "visualdl").glob("*")
    file.write_bytes(file.read_bytes() + b"\x99\0\0\0\0\0\0\0torn")  # of a session that was killed
    with RunLog(tmp_path, 2) as log:
        log.scalars("train", {"50 % loss": 2.0}, 3)
    assert names_and_steps(tmp_path / "visualdl") == [("train/50 _ loss", step) for step in (1, 2, 3)]
    assert capsys.readouterr().out == ""


def test_a_damaged_file_stops_no_training(tmp_path):
    place = tmp_path / "visualdl"
    place.mkdir()
    (place / "vdlrecords.0000000001.log").write_bytes(records.LENGTH.pack(4) + b"\xff\xff\xff\xff" + b"\xff" * 9)
    with RunLog(tmp_path, 5) as log:
        log.scalars("train", {"loss": 1.0}, 6)
    assert names_and_steps(place) == [("train/loss", 6)]


def test_names_that_are_no_text_and_numbers_that_are_none_are_harmless(tmp_path):
    with RunLog(tmp_path) as log:
        log.embeddings("val", "a", np.ones((2, 3), np.float32), {"class": ["x\udcff", "y"], "picture": ["\udc80", "b"]})
        narrow = np.float32([1.0, np.nextafter(np.float32(1), np.float32(2)), 1.0])
        log.histograms("val", {"narrow": narrow, "tiny": np.float32([0.0, 1e-45])}, 1)
        log.histograms("val", {"nan": np.array([1.0, np.nan]), "none": np.empty(0), "one": np.ones(3)}, 1)
    assert names_and_steps(tmp_path / "visualdl") == [
        (f"val/{name}", step) for name, step in (("a", 0), ("narrow", 1), ("tiny", 1), ("one", 1))
    ]


# ---- a training, from outside


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with data; what a short training says to a pipe."""
    with working_in(tmp_path_factory.mktemp("watched")) as here:
        cli_cases.races(Path("data"))
        done = subprocess.run(command(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return here, done


def command() -> list[str]:
    options = [*cli_cases.SMALL, "--data_dir=data", "--train_batch_size=8", "--samples_each_class=2"]
    return [sys.executable, str(ROOT / "train_pair.py"), *options, "--loss_name=contrastive"]


@pytest.mark.slow
def test_to_a_pipe_a_training_writes_plain_lines(trained):
    _, done = trained
    assert "\r" not in done.stdout + done.stderr and "\x1b" not in done.stdout + done.stderr
    assert "Training" not in done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("step 1/2, "))
    for part in ("lr ", "loss ", "active_share ", "steps/s", "pictures/s", "% waiting for data", "left"):
        assert part in line


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX's")
def test_on_a_terminal_a_training_shows_a_bar(trained):
    import fcntl
    import pty
    import termios

    here, _ = trained
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    longer = [*command(), "--total_iter_num=20", "--test_iter_step=20", "--model_save_dir=terminal"]
    process = subprocess.Popen(longer, cwd=here, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(ours, 65536):
            said += part
    assert process.wait() == 0
    bars = [bar for bar in re.split(r"[\r\n]", said.decode()) if "Training:" in bar]
    shown = next((bar for bar in bars if "active" in bar), "")
    for part in ("/20 ", "loss ", "lr ", "waiting "):
        assert part in shown, bars
    assert re.search(r"\d\d:\d\d<\d\d:\d\d, +[\d.]+(step/s|s/step)", shown)  # time taken < time left, rate


@pytest.fixture
def page(trained):
    """The address of a `visualdl --logdir output` that runs."""
    here, _ = trained
    program = shutil.which("visualdl", path=str(Path(sys.executable).parent)) or shutil.which("visualdl")
    assert program
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [program, "--logdir", "output", "--host", "127.0.0.1", "--port", str(port)],
        cwd=here,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={k: v for k, v in os.environ.items() if "proxy" not in k.lower()},
    )
    address = f"http://127.0.0.1:{port}/app"
    try:
        for _ in range(120):
            with contextlib.suppress(OSError):
                fetched(f"{address}/index")
                break
            assert process.poll() is None
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def fetched(address: str) -> bytes:
    request = urllib.request.Request(address, headers={"Accept-Language": "en"})  # without, VisualDL's page fails
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        found: bytes = answer.read()
        return found


@pytest.mark.slow
def test_the_pages_of_visualdl_hold_all_that_a_run_shows(page):
    def asked(place: str, **query: str):
        answer = json.loads(fetched(f"{page}/api/{place}?{urllib.parse.urlencode(query)}"))
        assert answer["status"] == 0, answer
        return answer["data"]

    assert b"VisualDL" in fetched(f"{page}/index")
    (run,) = asked("runs")
    assert run.startswith("pair-contrastive-")
    scalars, histograms, images = (set(asked(f"{kind}/tags")["tags"][0]) for kind in ("scalar", "histogram", "image"))
    assert {"train/loss", "train/lr", "train/active_share", "train_speed/steps_per_s", "val/recall@1"} <= scalars
    lying = {"val/embedding_norm", "val/positive_similarity", "val/negative_similarity"}
    assert lying | {"weights/backbone.stages.0.0.weight", "weights/neck.0.weight"} <= histograms
    assert images == {"train/augmented"}
    assert len(asked("scalar/list", run=run, tag="train/loss")) == 2
    (_, _, first), (_, step, _) = asked("histogram/list", run=run, tag="val/positive_similarity")
    assert step == 2 and sum(count for _, _, count in first) == 2 * 10  # pairs of 5 in each of 2 classes
    assert fetched(f"{page}/api/image/image?{urllib.parse.urlencode({'run': run, 'tag': 'train/augmented'})}&index=0")
    projected = asked("embedding/list")
    assert [(each["name"].rpartition("/")[2], each["shape"]) for each in projected] == [
        ("step_000000", [10, 8]),
        ("step_000002", [10, 8]),
    ]
    words = fetched(f"{page}/api/embedding/metadata?{urllib.parse.urlencode({'name': projected[0]['name']})}").decode()
    assert words.splitlines()[0].split("\t") == ["class", "group", "picture"] and len(words.splitlines()) == 11
