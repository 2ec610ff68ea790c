"""Weights of others into an Embedder."""

import functools
import hashlib
import json
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import paddle
import pytest
from small_runs import equal_arrays, images, new_embedder
from torch_file import state_dict, write_zip

from metric_learning import weights
from metric_learning.backbones.resnet import DEPTHS
from metric_learning.checks import UserError
from metric_learning.config.names import MODELS
from metric_learning.data.transforms import PictureSpec
from metric_learning.embedder import Embedder, EmbedderSpec, save_embedder
from metric_learning.files import write_tensors
from metric_learning.formats import FORMATS, recognise, torch_names
from metric_learning.weights import foreign_spec, imagenet_file, load_weights, read_arrays

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
@pytest.mark.slow
def test_paddlecv_names_cover_the_whole_backbone(depth):
    wanted = {f"backbone.{name}" for name in vision(depth).state_dict() if not name.startswith("fc.")}
    pairs = paddlecv_names(depth)
    given = {theirs: np.zeros(1) for theirs, _ in pairs} | {"fc_0.w_0": np.zeros(1), "fc_0.b_0": np.zeros(1)}
    found = recognise(torch_names(given | {"conv1_weights": np.zeros((1, 1, 1, 1))}))
    assert found is not None and found.model == f"ResNet{depth}" and set(found.heads) == {"fc_0.w_0", "fc_0.b_0"}
    assert {f"backbone.{name}" for name in found.arrays} == set(torch_names(dict.fromkeys(wanted, np.zeros(1))))


def test_a_paddlecv_file_gives_the_features_of_its_network(tmp_path):
    theirs = vision(50)
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    stored = {a: paddle.to_tensor(state[b]) for a, b in paddlecv_names(50)} | {"fc_0.w_0": paddle.ones([2048, 3])}
    paddle.save(stored, str(tmp_path / "cv.pdparams"))
    embedder = cached(50)
    said = load_weights(embedder, tmp_path / "cv.pdparams")
    start = f"Weights from {tmp_path / 'cv.pdparams'}"
    assert said == f"{start}; its classifier is left out (fc_0.w_0); the layers behind the backbone (8-d) start anew."
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
@pytest.mark.sweep
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
    assert "1 missing in the file (neck.0.bias)" in refused(cached(18), tmp_path / "c.safetensors")


def test_a_neck_that_is_not_asked_for_is_left_out_and_said(tmp_path):
    save_embedder(tmp_path / "a.safetensors", cached(18), {})
    said = load_weights(cached(18, 0), tmp_path / "a.safetensors")
    assert said.endswith("its layers behind the backbone are left out.")


def test_files_that_are_no_weights(tmp_path):
    for name in ("none.safetensors", "none.pdparams", "none"):
        with pytest.raises(UserError, match="no such file"):
            read_arrays(tmp_path / name)
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(UserError, match=r"must end in one of \.safetensors, \.pdparams, \.pt, \.pth"):
        read_arrays(tmp_path / "a.onnx")


# ---- every foreign format: our arrays -> its names -> a file -> loaded -> the same outputs

MODEL_OF = {  # a small model of each
    "arcface_torch or PLSC IResNet": ("IR18", (3, 112, 112)),
    "arcface_torch or PLSC mbf": ("MobileFaceNetX2", (3, 112, 112)),
    "foamliu MobileFaceNet": ("MobileFaceNetReLU6", (3, 112, 112)),
    "torchvision or paddle.vision ResNet": ("ResNet18", (3, 64, 64)),
    "PaddleCV ResNet": ("ResNet50", (3, 64, 64)),
    "paddle.vision MobileNetV1": ("MobileNetV1", (3, 64, 64)),
    "torchvision or paddle.vision MobileNetV2": ("MobileNetV2", (3, 64, 64)),
    "torchvision MobileNetV3": ("MobileNetV3Small", (3, 64, 64)),
    "paddle.vision MobileNetV3": ("MobileNetV3Large", (3, 64, 64)),
    "torchvision or paddle.vision VGG16 with batch normalisation": ("VGG16BN", (3, 32, 32)),
    "torchvision or paddle.vision VGG16": ("VGG16", (3, 32, 32)),
    "timm or DeiT ViT-S/16": ("ViTS16", (3, 32, 32)),
}
BF16 = np.array([0x3F80, 0xC020], "<u2")  # 1, -2.5
HEAD = {
    "MobileFaceNetX2": "head",
    "VGG16": "classifier.6",
    "VGG16BN": "classifier.6",
    "MobileNetV2": "classifier.1",
    "ViTS16": "head",
}
FORMAT = {form.name: form for form in FORMATS}


def foreign_names(name: str, embedder: Embedder) -> dict[str, str]:
    """Our name -> the source's (in PyTorch's way), written down independently of what reads them."""
    ours = [key.removeprefix("backbone.") for key in embedder.state_dict()]
    names = {key: key.replace("._mean", ".running_mean").replace("._variance", ".running_var") for key in ours}
    names = {key: new.replace("._weight", ".weight") for key, new in names.items()}
    if name == "PaddleCV ResNet":
        theirs = {b: a for a, b in paddlecv_names(50)}
        return {key: theirs[key] for key in names}
    if name != "torchvision MobileNetV3":
        return names
    blocks = 1 + max(int(key.split(".")[1]) for key in ours if key.startswith("blocks."))
    made = {}
    for key, new in names.items():
        first, *rest = new.split(".")
        if first == "blocks":
            parts = list(dict.fromkeys(k.split(".")[2] for k in ours if k.startswith(f"blocks.{rest[0]}.")))
            new = ".".join([f"features.{int(rest[0]) + 1}.block.{parts.index(rest[1])}", *rest[2:]])
        else:
            new = ".".join([f"features.{0 if first == 'conv' else blocks + 1}", *rest])
        made[key] = new
    return made


def random_embedder(model: str, shape: tuple[int, int, int], seed: int) -> Embedder:
    paddle.seed(seed)
    embedder = Embedder(EmbedderSpec(model, 0, PictureSpec(shape, test_crop=1.0)))
    rng = np.random.default_rng(seed)
    for value in embedder.state_dict().values():
        if value.ndim == 1:  # scales, biases, statistics, slopes: no two alike
            value.set_value(rng.uniform(0.5, 1.5, value.shape).astype(np.float32))
    embedder.eval()
    return embedder


def foreign_arrays(name: str, embedder: Embedder, torch: bool = True) -> dict[str, np.ndarray]:
    linear = {f"{n}.weight" for n, layer in embedder.named_sublayers() if isinstance(layer, paddle.nn.Linear)}
    arrays = embedder.arrays()
    names = foreign_names(name, embedder)
    made = {}
    for ours, theirs in names.items():
        value = arrays[f"backbone.{ours}"]
        made[theirs] = value.T if torch and f"backbone.{ours}" in linear else value
    head = HEAD.get(embedder.spec.model, "fc" if "IR" not in embedder.spec.model else "head")
    if name != "PaddleCV ResNet":
        made[f"{head}.weight"] = np.zeros((10, 4), np.float32)
        if any(theirs.endswith("running_mean") for theirs in made):
            made["bn1.num_batches_tracked"] = np.array(3)
    return made


def test_every_format_has_a_round_trip():
    assert MODEL_OF.keys() == FORMAT.keys()


quick = {"MobileFaceNetReLU6", "MobileNetV1", "MobileNetV2", "MobileNetV3Small"}
big = {name for name, (model, _) in MODEL_OF.items() if model not in quick}
formats = [pytest.param(name, marks=pytest.mark.slow) if name in big else name for name in MODEL_OF]


@pytest.mark.parametrize("name", formats)
def test_a_file_of_every_format_gives_the_same_outputs(tmp_path, name):
    model, shape = MODEL_OF[name]
    source = random_embedder(model, shape, 1)
    arrays = {f"module.{key}": value for key, value in foreign_arrays(name, source).items()}
    path = tmp_path / "a.pth"
    write_zip(path, {"epoch": 1, "state_dict": state_dict(arrays)})
    spec, said = foreign_spec(path)
    assert (spec.model, spec.embedding_size, said, spec.picture) == (model, 0, name, FORMAT[name].picture)
    target = random_embedder(model, shape, 2)
    said = load_weights(target, path)
    assert "\n" not in said and (name == "PaddleCV ResNet" or "its classifier is left out" in said)
    given = paddle.to_tensor(images(2, shape))
    with paddle.no_grad():
        np.testing.assert_allclose(target(given).numpy(), source(given).numpy(), rtol=1e-5, atol=1e-5)
    equal_arrays(source.arrays(), target.arrays())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arcface_torch or PLSC IResNet", "timm or DeiT ViT-S/16"])
def test_files_of_paddle_are_not_transposed(tmp_path, name):
    model, shape = MODEL_OF[name]
    source = random_embedder(model, shape, 1)
    paddle.save({n.removeprefix("backbone."): v for n, v in source.state_dict().items()}, str(tmp_path / "a.pdparams"))
    target = random_embedder(model, shape, 2)
    load_weights(target, tmp_path / "a.pdparams")
    equal_arrays(source.arrays(), target.arrays())


@functools.cache
def small_face() -> tuple[Embedder, dict[str, np.ndarray]]:
    source = random_embedder("MobileFaceNetReLU6", (3, 112, 112), 1)
    return source, foreign_arrays("foamliu MobileFaceNet", source)


def face_file(path: Path, **changed) -> Path:
    arrays = small_face()[1] | changed
    write_zip(path, state_dict({name: value for name, value in arrays.items() if value is not None}))
    return path


def test_a_partial_match_is_an_error_that_says_what_does_not_fit(tmp_path):
    path = face_file(
        tmp_path / "a.pt",
        **{"conv3.bias": None, "conv3.weight": np.zeros((128, 512, 2, 1), np.float32), "more.weight": np.ones(3)},
    )
    said = refused(random_embedder("MobileFaceNetReLU6", (3, 112, 112), 2), path)
    for words in (
        "1 missing in the file (backbone.conv3.bias)",
        "1 unexpected in the file (backbone.more.weight)",
        "1 of another shape (backbone.conv3.weight is [128, 512, 2, 1], not [128, 512, 1, 1])",
        "--partial_weights=True",
    ):
        assert words in said


def test_partial_weights_take_what_fits_and_say_so(tmp_path):
    source, _ = small_face()
    path = face_file(tmp_path / "a.pt", **{"conv3.bias": None, "more.weight": np.ones(3, np.float32)})
    target = random_embedder("MobileFaceNetReLU6", (3, 112, 112), 2)
    before = target.arrays()
    said = load_weights(target, path, partial=True)
    assert "WARNING: only" in said and "backbone.conv3.bias" in said
    after = target.arrays()
    np.testing.assert_array_equal(after["backbone.conv3.bias"], before["backbone.conv3.bias"])
    np.testing.assert_array_equal(after["backbone.conv3.weight"], source.arrays()["backbone.conv3.weight"])
    write_zip(path, state_dict({"nothing.of.it": np.ones(3, np.float32)}))
    with pytest.raises(UserError, match="Nothing of it fits"):
        load_weights(target, path, partial=True)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = face_file(tmp_path / "a.pt", **{"conv3.bias": np.full(128, np.nan, np.float32)})
    assert "backbone.conv3.bias holds numbers that are not finite" in refused(small_face()[0], path)


def test_half_precision_and_bfloat16_of_safetensors(tmp_path):
    arrays = {"a": np.arange(4, dtype=np.float16), "b": np.arange(3, dtype=np.int64)}
    header, data = {}, b""
    for name, kind, value in (("a", "F16", arrays["a"]), ("b", "I64", arrays["b"]), ("c", "BF16", BF16)):
        where = [len(data), len(data) + value.nbytes]
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": where}
        data += value.tobytes()
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    found = read_arrays(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(found["c"], np.array([1.0, -2.5], np.float32))
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)


def test_linear_layers_of_each_framework():
    """PyTorch keeps (outputs, inputs), Paddle the reverse; a square one is told by names or neighbours."""
    net = Embedder.__new__(Embedder)
    paddle.nn.Layer.__init__(net)
    net.backbone = paddle.nn.Sequential(paddle.nn.Linear(4, 4), paddle.nn.Linear(4, 6))
    square, wide = np.ones((4, 4)), np.ones((4, 6))
    ours = {"backbone.0.weight": square, "backbone.1.weight": wide}
    theirs = {"backbone.0.weight": square, "backbone.1.weight": wide.T}
    assert weights._by_torch(theirs, net, theirs) and not weights._by_torch(ours, net, ours)
    assert weights._by_torch({"bn.running_var": square}, net, ours)
    assert not weights._by_torch({"bn._variance": square}, net, theirs)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.backbone."])
def test_prefixes_and_heads_beside_the_backbone(prefix):
    arrays = {f"{prefix}{name}": value for name, value in small_face()[1].items()}
    found = recognise(torch_names(arrays | ({"loss.weight": np.ones(3)} if prefix == "model." else {})))
    assert found is not None and found.model == "MobileFaceNetReLU6"


def test_sizes_of_a_known_network_that_are_no_model():
    names = [f"layer{s}.{b}.conv1.weight" for s in range(1, 5) for b in range(6)]
    arrays = dict.fromkeys([*names, *FORMAT["arcface_torch or PLSC IResNet"].marks], np.zeros(1))
    with pytest.raises(UserError, match=r"\(6, 6, 6, 6\) blocks, which is none of IR18"):
        recognise(arrays)


def test_a_family_stands_for_its_kinds():
    assert weights.same_family("MobileFaceNet", "MobileFaceNetReLU6") and weights.same_family("IR50", "IR50")
    assert not weights.same_family("IR18", "IR50") and not weights.same_family("MobileFaceNetX2", "MobileFaceNet")
    assert {model for kinds in weights.FAMILIES.items() for model in (kinds[0], *kinds[1])} <= set(MODELS)


def test_the_real_file_is_recognised():
    path = Path(os.environ.get("METRIC_LEARNING_DATA", Path(__file__).parents[2] / "shared/data"))
    path = path / "weights/mobilefacenet.pt"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    spec, _ = foreign_spec(path)
    assert spec.model == "MobileFaceNetReLU6" and spec.picture.shape == (3, 112, 112)
    assert load_weights(Embedder(spec), path) == f"Weights from {path}."


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
