"""Weights of others into an Embedder."""

import functools
import hashlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import paddle
import pytest
from small_runs import equal_arrays, images, new_embedder

from metric_learning import weights
from metric_learning.backbones.resnet import DEPTHS
from metric_learning.checks import UserError
from metric_learning.embedder import Embedder, save_embedder
from metric_learning.files import write_tensors
from metric_learning.weights import imagenet_file, load_weights, read_arrays

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def paddlecv_names(depth: int) -> list[tuple[str, str]]:
    """(name in PaddleCV's metric_learning, name in paddle.vision) of every array, written down independently."""
    pairs = []

    def conv(theirs: str, ours: str) -> None:
        pairs.append((f"{theirs}_weights", f"{ours}.weight"))

    def norm(theirs: str, ours: str) -> None:
        parts = {"scale": "weight", "offset": "bias", "mean": "_mean", "variance": "_variance"}
        pairs.extend((f"{theirs}_{a}", f"{ours}.{b}") for a, b in parts.items())

    conv("conv1", "conv1")
    norm("bn_conv1", "bn1")
    letters = "abcdefgh"
    for stage, count in enumerate(BLOCKS[depth]):
        for block in range(count):
            many = depth in (101, 152) and stage == 2
            mark = ("a" if block == 0 else f"b{block}") if many else letters[block]
            theirs, ours = f"{stage + 2}{mark}", f"layer{stage + 1}.{block}"
            for number, branch in enumerate("abc"[: 2 if depth < 50 else 3], start=1):
                conv(f"res{theirs}_branch2{branch}", f"{ours}.conv{number}")
                norm(f"bn{theirs}_branch2{branch}", f"{ours}.bn{number}")
            if block == 0 and (stage > 0 or depth >= 50):
                conv(f"res{theirs}_branch1", f"{ours}.downsample.0")
                norm(f"bn{theirs}_branch1", f"{ours}.downsample.1")
    return pairs


@functools.cache
def vision(depth: int) -> paddle.nn.Layer:
    paddle.seed(depth)
    return getattr(paddle.vision.models, f"resnet{depth}")(num_classes=10)


@functools.cache
def cached(depth: int, size: int = 8) -> Embedder:
    return new_embedder(model=f"ResNet{depth}", size=size)


@pytest.mark.parametrize("depth", [d if d in (50, 101) else pytest.param(d, marks=pytest.mark.slow) for d in DEPTHS])
def test_paddlecv_names_cover_the_whole_backbone(depth):
    wanted = {f"backbone.{name}" for name in vision(depth).state_dict() if not name.startswith("fc.")}
    pairs = paddlecv_names(depth)
    given = {theirs: np.zeros(1) for theirs, _ in pairs} | {"fc_0.w_0": np.zeros(1), "fc_0.b_0": np.zeros(1)}
    renamed = weights._from_paddlecv(given)
    assert renamed.keys() == {f"backbone.{ours}" for _, ours in pairs} == wanted


def test_a_paddlecv_file_gives_the_features_of_its_network(tmp_path):
    theirs = vision(50)
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    stored = {a: paddle.to_tensor(state[b]) for a, b in paddlecv_names(50)} | {"fc_0.w_0": paddle.ones([2048, 3])}
    paddle.save(stored, str(tmp_path / "cv.pdparams"))
    embedder = cached(50)
    said = load_weights(embedder, tmp_path / "cv.pdparams")
    assert said == f"Weights from {tmp_path / 'cv.pdparams'}; the layers behind the backbone (8-d) start anew."
    same_features(embedder, theirs)


def same_features(embedder, theirs) -> None:
    embedder.eval()
    theirs.eval()
    given = paddle.to_tensor(images(2))
    pooled = paddle.nn.Sequential(*[layer for name, layer in theirs.named_children() if name != "fc"])
    with paddle.no_grad():
        expected = pooled(given).numpy().reshape(2, -1)
        np.testing.assert_allclose(embedder.backbone(given).numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [18, 50])
def test_a_paddle_vision_file_fills_the_backbone(tmp_path, depth):
    paddle.save(vision(depth).state_dict(), str(tmp_path / "a.pdparams"))
    embedder = cached(depth)
    for parameter in embedder.backbone.parameters():
        parameter.set_value(paddle.zeros_like(parameter))
    neck = embedder.arrays()["neck.0.weight"]
    said = load_weights(embedder, tmp_path / "a.pdparams")
    assert said.endswith("the layers behind the backbone (8-d) start anew.") and "\n" not in said
    np.testing.assert_array_equal(embedder.arrays()["neck.0.weight"], neck)
    same_features(embedder, vision(depth))


def test_own_weights_and_checkpoints_come_whole(tmp_path):
    one = new_embedder(1, model="ResNet18", norm=True)
    save_embedder(tmp_path / "a.safetensors", one, {})
    checkpoint = {f"embedder.{name}": value for name, value in one.arrays().items()}
    checkpoint |= {"loss.weight": np.ones(3), "optimizer.0.velocity_0": np.ones(3)}
    write_tensors(tmp_path / "b.safetensors", checkpoint, {})
    for name in "ab":
        other = new_embedder(2, model="ResNet18", norm=True)
        assert "anew" not in load_weights(other, tmp_path / f"{name}.safetensors")
        equal_arrays(one.arrays(), other.arrays())


def refused(embedder, path: Path) -> str:
    before = embedder.arrays()
    with pytest.raises(UserError) as caught:
        load_weights(embedder, path)
    said = str(caught.value)
    assert "\n" not in said and str(path) in said
    equal_arrays(before, embedder.arrays())
    return said


@pytest.mark.parametrize(("written", "asked"), [(18, 50), (50, 18), (34, 18), (101, 50)])
def test_weights_of_another_depth_are_refused(tmp_path, written, asked):
    """A deeper network of the same kind holds all names and shapes that a shallower one asks for."""
    paddle.save(vision(written).state_dict(), str(tmp_path / "a.pdparams"))
    said = refused(cached(asked), tmp_path / "a.pdparams")
    assert "weights of another model" in said and "--model" in said


def test_weights_of_other_kinds_are_refused(tmp_path):
    paddle.save({"features.0.0.weight": paddle.ones([32, 3, 3, 3])}, str(tmp_path / "a.pdparams"))
    assert "another model" in refused(cached(18), tmp_path / "a.pdparams")
    whole = cached(18).arrays()
    for changed, said in (
        ({"neck.0.weight": np.ones((512, 9), np.float32)}, "--embedding_size"),
        ({"backbone.conv1.weight": np.ones((64, 1, 7, 7), np.float32)}, "another model"),
    ):
        write_tensors(tmp_path / "b.safetensors", whole | changed, {})
        assert said in refused(cached(18), tmp_path / "b.safetensors")
    del whole["neck.0.bias"]
    write_tensors(tmp_path / "c.safetensors", whole, {})
    assert "neck.0.bias is missing" in refused(cached(18), tmp_path / "c.safetensors")


def test_a_neck_that_is_not_asked_for_is_left_out_and_said(tmp_path):
    save_embedder(tmp_path / "a.safetensors", cached(18), {})
    said = load_weights(cached(18, 0), tmp_path / "a.safetensors")
    assert said.endswith("its layers behind the backbone are left out.")


def test_files_that_are_no_weights(tmp_path):
    for name in ("none.safetensors", "none.pdparams", "none"):
        with pytest.raises(UserError, match="no such file"):
            read_arrays(tmp_path / name)
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"must end in \.safetensors or \.pdparams"):
        read_arrays(tmp_path / "a.pth")


# ---- ImageNet's weights


class Server(BaseHTTPRequestHandler):
    content = b"weights"

    def do_GET(self):
        if self.path.startswith("/none"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content) + ("short" in self.path)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Sets the address of the ResNet18 weights; gives the folder that they go to."""
    from paddle.utils import download
    from paddle.vision.models import resnet

    monkeypatch.setattr(download, "WEIGHTS_HOME", str(tmp_path / "home"))

    def address(url: str, checksum: str = hashlib.md5(b"weights").hexdigest()) -> Path:
        monkeypatch.setitem(resnet.model_urls, "resnet18", (url, checksum))
        return tmp_path / "home"

    return address


def test_imagenet_weights_are_fetched_once(server, place, capsys):
    home = place(f"{server}/resnet18.pdparams")
    assert imagenet_file("ResNet18") == home / "resnet18.pdparams"
    assert "Downloading" in capsys.readouterr().out
    assert (home / "resnet18.pdparams").read_bytes() == b"weights"
    assert imagenet_file("ResNet18") == home / "resnet18.pdparams"
    assert not capsys.readouterr().out
    (home / "resnet18.pdparams").write_bytes(b"half")
    imagenet_file("ResNet18")
    assert (home / "resnet18.pdparams").read_bytes() == b"weights"


def no_imagenet(home: Path, timeout: float = 20.0) -> str:
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        imagenet_file("ResNet18", timeout)
    assert time.monotonic() - start < 5
    said = str(caught.value)
    assert "\n" not in said and "ImageNet weights of ResNet18" in said and "--pretrained_model" in said
    assert not home.exists() or not list(home.iterdir())
    return said


def test_without_a_network_it_says_so_at_once(server, place):
    assert "Not Found" in no_imagenet(place(f"{server}/none"))
    assert "not that file" in no_imagenet(place(f"{server}/other", "0" * 32))
    no_imagenet(place(f"{server}/short"))
    no_imagenet(place("http://127.0.0.1:9/refused"))
    no_imagenet(place("http://name.invalid/unknown"))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "timed out" in no_imagenet(place(f"http://127.0.0.1:{silent.getsockname()[1]}/silent"), 0.2)


def test_a_model_without_imagenet_weights_lists_those_that_have_some():
    with pytest.raises(UserError, match=r"MobileNetV9; there are for .*resnet18"):
        imagenet_file("MobileNetV9")
