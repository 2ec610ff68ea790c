"""The fast ways through a network give what the eager network gives, and leave no trace behind."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from small_runs import Training, equal_arrays, images, new_embedder, write_pictures

from metric_learning import engine
from metric_learning.checks import UserError
from metric_learning.engine import Predictor, eager
from metric_learning.onednn import forward as onednn
from metric_learning.onednn.forward import training_forward
from metric_learning.onednn.inference import works
from metric_learning.onednn.library import OneDnnError
from metric_learning.runtime import onednn_works

pytestmark = pytest.mark.filterwarnings("ignore:When training")
needs_onednn = pytest.mark.skipif(not onednn_works(), reason="this build trains through eager convolutions")


def gradients(net, forward, batch: np.ndarray):
    """(output, gradient of each parameter) of a fixed weighting of the outputs."""
    out = forward(paddle.to_tensor(batch))
    (out * paddle.to_tensor(images(len(batch), out.shape[1:], seed=9))).sum().backward()
    found = {name: p.grad.numpy() for name, p in net.named_parameters() if not p.stop_gradient}
    net.clear_gradients()
    return out.numpy(), found


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(a).max()))


# ---- training through oneDNN


def smooth(net):
    """Without kinks: at those of ReLU and maximum the last bit of the output decides on a share of the gradient."""
    net.backbone.maxpool = paddle.nn.AvgPool2D(3, 2, 1)
    for _, layer in net.named_sublayers():
        if hasattr(layer, "relu"):
            layer.relu = paddle.nn.Silu()
    return net


def test_where_it_is_not_right_the_network_itself_is_taken(monkeypatch):
    net = new_embedder()
    assert training_forward(net, 3, onednn=False) is net
    monkeypatch.setattr(onednn, "onednn_works", lambda: False)
    assert training_forward(net, 3, onednn=True) is net


def test_only_builds_whose_gradients_are_right_take_it():
    assert onednn_works() == (tuple(int(part) for part in paddle.__version__.split(".")[:2]) >= (3, 3))


@needs_onednn
@pytest.mark.slow
def test_onednn_training_equals_eager_in_all_it_does():
    """Outputs, gradients, running statistics, in training and evaluation, for new shapes, after each change of mode."""
    plain, fast = (smooth(new_embedder(model="ResNet18", norm=True)) for _ in range(2))
    equal_arrays(plain.arrays(), fast.arrays())
    forward = training_forward(fast, 3, onednn=True)
    assert forward is not fast
    for count, side, training in ((4, 64, True), (4, 64, False), (6, 48, True), (2, 24, False)):
        for net in (plain, fast):
            net.train() if training else net.eval()
        batch = images(count, (3, side, side), seed=count)
        expected, wanted = gradients(plain, plain, batch)
        found, made = gradients(fast, forward, batch)
        close(expected, found)
        assert wanted.keys() == made.keys()
        for name in wanted:
            apart = np.linalg.norm(wanted[name] - made[name])
            assert apart <= 1e-4 * max(np.linalg.norm(wanted[name]), 1.0), (name, apart)
        arrays, others = plain.arrays(), fast.arrays()
        for name, value in arrays.items():
            close(value, others[name])
    assert fast.arrays()["backbone.bn1._mean"].any()


@needs_onednn
def test_the_convolutions_really_are_onednn():
    seen = []
    block = paddle.base.framework.Block
    plain = block.append_op

    def spy(self, *args, **kwargs):
        if kwargs.get("type") == "conv2d":
            seen.append(kwargs["attrs"].get("use_mkldnn"))
        return plain(self, *args, **kwargs)

    block.append_op = spy
    try:
        net = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.ReLU(), paddle.nn.Conv2D(4, 4, 3))
        training_forward(net, 3, onednn=True)(paddle.to_tensor(images()))
    finally:
        block.append_op = plain
    assert len(seen) >= 2 and all(seen)
    assert block.append_op is plain


@needs_onednn
def test_a_failing_forward_puts_paddle_back():
    plain = paddle.base.framework.Block.append_op
    net = new_embedder()
    forward = training_forward(net, 3, onednn=True)
    with pytest.raises(Exception, match=r".+"):
        forward(paddle.to_tensor(np.ones(3, np.float32)))
    assert paddle.base.framework.Block.append_op is plain


@needs_onednn
def test_two_networks_do_not_mix():
    a, b = new_embedder(1), new_embedder(2)
    forward_a, forward_b = training_forward(a, 3, True), training_forward(b, 3, True)
    given = paddle.to_tensor(images())
    for net in (a, b):
        net.eval()
    for _ in range(2):
        close(a(given).numpy(), forward_a(given).numpy())
        close(b(given).numpy(), forward_b(given).numpy())


# ---- embedding


def moved(net):
    """With running statistics that are not those of a new network."""
    net.train()
    with paddle.no_grad():
        net(paddle.to_tensor(images(8, net.spec.picture.shape, seed=3)))
    return net


FEW = ("ResNet18", "ResNet50")


@pytest.mark.parametrize("name", FEW)  # of the others tests/test_backbones.py asks the same
@pytest.mark.parametrize("training", [True, False])
def test_the_predictor_equals_the_eager_network(name, training):
    if training and name != "ResNet18":
        pytest.skip("once is enough")
    net = moved(new_embedder(model=name, norm=name == "ResNet18"))
    net.train() if training else net.eval()
    before = net.arrays()
    predictor = Predictor(net, (3, 32, 32), "float32")
    for count in (3, 1, 5):  # the batch size is free
        batch = images(count, seed=count)
        expected = eager(net, batch)
        found = predictor(batch)
        assert found.dtype == np.float32 and found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert "float32" in predictor.way
    assert all(layer.training == training for layer in net.sublayers(include_self=True))
    equal_arrays(before, net.arrays())


def test_gray_pictures_and_views_go_through_the_predictor():
    net = moved(new_embedder(shape=(1, 32, 24)))
    predictor = Predictor(net, (1, 32, 24), "float32")
    batch = images(2, (1, 32, 24))
    expected = predictor(batch)
    close(eager(net, batch), expected)
    np.testing.assert_array_equal(predictor(batch[..., ::-1][..., ::-1]), expected)
    assert not np.allclose(predictor(batch[..., ::-1]), expected)


def test_no_pictures_are_no_embeddings():
    embedder = new_embedder()
    for batch in (np.zeros((0, *embedder.spec.picture.shape), np.float32), images(2)[:0]):
        assert Predictor(embedder, embedder.spec.picture.shape)(batch).shape == (0, embedder.size)


def test_a_predictor_keeps_the_weights_of_its_first_batch():
    net = moved(new_embedder())
    predictor = Predictor(net, (3, 32, 32), "float32")
    before = predictor(images())
    net.neck[0].bias.set_value(net.neck[0].bias + 1.0)
    np.testing.assert_array_equal(predictor(images()), before)
    close(Predictor(net, (3, 32, 32), "float32")(images()), before + 1.0)


@pytest.fixture
def only_the_engine(monkeypatch):
    def refuse(*_):
        raise OneDnnError("not here")

    monkeypatch.setattr(engine, "_folded", refuse)


@pytest.mark.usefixtures("only_the_engine")
def test_bfloat16_is_taken_only_where_it_agrees(monkeypatch):
    net = new_embedder()
    made = []

    def inference(_, __, bfloat16):
        made.append(bfloat16)
        return (lambda batch: np.ones((len(batch), 2))) if not bfloat16 else fast

    monkeypatch.setattr(engine, "_inference", inference)
    monkeypatch.setattr(engine, "gains_by_bfloat16", lambda: True)
    for fast_gives, way in (
        (np.ones((2, 2)), "bfloat16"),
        (np.array([[1, 1.02], [1, 1]]), "bfloat16"),
        (np.array([[1, 1.2], [1, 1]]), "float32"),
        (np.zeros((2, 2)), "float32"),
        (np.full((2, 2), np.nan), "float32"),
    ):
        fast = lambda batch, gives=fast_gives: gives  # noqa: E731
        predictor = Predictor(net, (3, 32, 32))
        predictor(images())
        assert way in predictor.way.split("(")[0], (fast_gives, predictor.way)
    monkeypatch.setattr(engine, "gains_by_bfloat16", lambda: False)
    made.clear()
    predictor = Predictor(net, (3, 32, 32))
    predictor(images())
    assert made == [False] and "float32" in predictor.way


@pytest.mark.usefixtures("only_the_engine")
def test_a_network_without_bfloat16_kernels_is_computed_in_float32(monkeypatch):
    """MobileFaceNet on a processor with bfloat16: the engine refuses at the first batch."""
    plain = engine._inference

    def refused(batch: np.ndarray) -> np.ndarray:
        raise ValueError("(InvalidArgument) elementwise_add: bfloat16\n [Hint: ...]")

    monkeypatch.setattr(
        engine, "_inference", lambda net, shape, bfloat16: refused if bfloat16 else plain(net, shape, False)
    )
    monkeypatch.setattr(engine, "gains_by_bfloat16", lambda: True)
    net, batch = new_embedder(), images(2)
    net.eval()
    predictor = Predictor(net, net.spec.picture.shape)
    close(predictor(batch), eager(net, batch))
    assert predictor.way == "inference engine, oneDNN, float32"
    with pytest.raises(UserError, match=r"^[^\n]*bfloat16[^\n]*--precision[^\n]*$"):
        Predictor(net, net.spec.picture.shape, "bfloat16")(batch)


@pytest.mark.parametrize(
    ("flags", "gains"), [((), False), (("avx512_bf16",), False), (("avx512_bf16", "amx_bf16"), True)]
)
def test_the_processor_decides_on_bfloat16_and_no_clock(monkeypatch, flags, gains):
    monkeypatch.setattr(engine, "cpu_flags", lambda: ("GenuineIntel", frozenset(flags)))
    assert engine.gains_by_bfloat16() == gains


@pytest.mark.skipif(not works(), reason="this build's oneDNN is not known")
def test_a_known_network_is_computed_by_primitives():
    predictor = Predictor(moved(new_embedder()), (3, 32, 32), "float32")
    predictor(images(2))
    assert predictor.way == "oneDNN, float32"


@pytest.mark.parametrize("wrong", [1.01, np.nan])
def test_a_folded_network_that_differs_is_not_taken(monkeypatch, wrong):
    net = moved(new_embedder())
    monkeypatch.setattr(engine, "_folded", lambda *_: lambda batch: eager(net, batch) * np.float32(wrong))
    predictor = Predictor(net, (3, 32, 32), "float32")
    close(predictor(images(2)), eager(net, images(2)))
    assert predictor.way == "inference engine, oneDNN, float32"


def test_the_engine_says_nothing(capfd):
    net = new_embedder()
    Predictor(net, net.spec.picture.shape, "auto")(images(2))
    print("still there")
    assert capfd.readouterr() == ("still there\n", "")


def test_the_eager_way_restores_the_mode_also_after_an_error():
    net = new_embedder()
    net.train()
    with pytest.raises(Exception, match=r".+"):
        eager(net, np.ones(3, np.float32))
    assert net.training and net.backbone.layers[1].training
    net.eval()
    eager(net, images())
    assert not net.training


@pytest.mark.usefixtures("only_the_engine")
def test_a_network_that_cannot_be_saved_is_left_in_its_mode(monkeypatch):
    net = new_embedder()
    net.train()

    def refuse(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr(paddle.jit, "save", refuse)
    with pytest.raises(UserError, match=r"no space.*TMPDIR"):
        Predictor(net, (3, 32, 32))(images())
    assert net.training and net.backbone.layers[1].training


THREADS = """
import sys, hashlib, warnings
sys.path[:0] = ["tests"]
from metric_learning import runtime
runtime.prepare(2, onednn=False)
warnings.simplefilter("ignore")
import paddle, numpy as np
from small_runs import new_embedder, images
from metric_learning.engine import Predictor
paddle.set_device("cpu")

def gradients():
    paddle.seed(0)
    conv = paddle.nn.Conv2D(16, 32, 3)
    conv(paddle.to_tensor(images(8, (16, 40, 40)))).square().sum().backward()
    big = paddle.to_tensor(images(512, (300,)))
    return hashlib.md5(conv.weight.grad.numpy().tobytes() + paddle.matmul(big, big, transpose_x=True).numpy().tobytes())

before = gradients().hexdigest()
Predictor(new_embedder(), (3, 32, 32), "float32")(images())
after = gradients().hexdigest()
paddle.base.core.set_num_threads(1)
print(before == after, before == gradients().hexdigest())
"""


def test_the_predictor_leaves_the_number_of_threads_alone():
    """Its engine leaves one behind; sums over a batch have other last bits then, and a resumed run would differ."""
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "FLAGS_enable_pir_api"):
        environment.pop(name, None)
    root = Path(engine.__file__).parents[1]
    found = subprocess.run(
        [sys.executable, "-c", THREADS], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    same, same_on_one = found.stdout.split()[-2:]
    assert same == "True"
    if same_on_one == "True":
        pytest.skip("one thread and two give the same bits here, so this shows nothing")


@needs_onednn
@pytest.mark.slow
def test_evaluations_between_steps_leave_no_memory_behind(tmp_path):
    """Each evaluation once cost as much memory as a training step, for good."""
    in_use = bytes_in_use()
    training = Training(write_pictures(tmp_path / "pictures", side=32), tmp_path / "run", onednn=True)
    held = []

    def evaluate():
        Predictor(training.state.embedder, (3, 32, 32))(np.zeros((4, 3, 32, 32), np.float32))
        held.append(in_use())
        return {"val": 0.0}

    training.judge = evaluate
    training.go(12, save=100, test=1)
    each = (held[-1] - held[3]) / (len(held) - 4)
    assert each < 450_000, held  # bytes; 0.2 million are the traced program, 0.8 million were with a step's results


def bytes_in_use():
    """A function that says how many bytes of glibc's heap are in use."""
    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    kind = type("Mallinfo", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names]})
    try:
        asked = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        pytest.skip("this C library does not say what is in use")
    asked.restype = kind
    return lambda: asked().uordblks
