"""The fast ways through a network without gradient on a CPU: oneDNN primitives, or Paddle's inference engine."""

import contextlib
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from metric_learning.checks import UserError
from metric_learning.files import one_line
from metric_learning.onednn.folding import folded
from metric_learning.onednn.inference import FoldedNet, works
from metric_learning.onednn.library import OneDnnError
from metric_learning.runtime import cpu_flags, math_threads, silenced

Embed = Callable[[np.ndarray], np.ndarray]
Outputs = Callable[[np.ndarray], list[np.ndarray]]  # images (B, C, H, W) -> all that a network gives

_PROGRAM_ROOM = 2**30  # bytes: with more free than this, an error of Paddle's is not one of space
_SAME = 1e-4  # of the largest number of an embedding: a folded network is taken where it differs by less from eager
_AGREEMENT = 1e-3  # bfloat16 is taken where its cosines to float32 differ from 1 by less than this


def release_programs() -> None:
    """Paddle lets go of what it keeps of static programs that have run; they are prepared again when they next run.

    That is all results of a training step, and each new Predictor, which traces the network, makes Paddle 3.3 prepare
    the training program once more and keep the old one: 1.8 GB an evaluation for 32 pictures in MobileFaceNet.
    """
    clear = getattr(paddle.base.core, "clear_executor_cache", None)
    if clear is not None:
        clear()


class Predictor:
    """A network frozen for inference: images (B, C, H, W) float32 -> (B, D) float32, without gradient.

    On a CPU: oneDNN primitives with the normalisations folded into the convolutions; for a network that is not known
    there, Paddle's inference engine. In bfloat16 by the engine where the processor multiplies matrices in it and the
    first batch's embeddings agree with float32. On a GPU: the eager network. `way` says which one it became. What
    decides is the network, the processor and the first batch, never a clock: two runs give the same embeddings.
    """

    def __init__(self, net: nn.Layer, shape: tuple[int, int, int], precision: str = "auto") -> None:
        self.net, self.shape, self.precision = net, shape, precision
        self.way = ""
        self._embed: Embed | None = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if not len(images):
            return self(np.zeros((1, *self.shape), np.float32))[:0]
        if self._embed is None:
            self._embed = self._choose(images)
        return self._embed(images)

    def _choose(self, images: np.ndarray) -> Embed:
        if paddle.get_device() != "cpu":
            self.way = "eager, float32, GPU"
            return lambda batch: eager(self.net, batch)
        plain = self._float32()
        wanted = self.precision == "bfloat16" or (self.precision == "auto" and gains_by_bfloat16())
        if not wanted:
            return plain
        try:
            fast = _inference(self.net, self.shape, bfloat16=True)
            made = fast(images)
        except (ValueError, RuntimeError) as error:  # the engine has no bfloat16 kernel for something in this network
            if self.precision == "auto":
                return plain
            raise UserError(
                f"The inference engine can't compute this network in bfloat16: {one_line(error)[:160]}. "
                "Leave --precision out, or set it to float32."
            ) from error
        apart = 1.0 - _cosines(plain(images), made).min()
        if self.precision == "auto" and not apart < _AGREEMENT:
            return plain
        self.way = f"inference engine, oneDNN, bfloat16 (cosine to float32 at least {1.0 - apart:.5f})"
        return fast

    def _float32(self) -> Embed:
        """The folded network where it can be had and gives what the eager one gives for a picture."""
        probe = np.random.default_rng(0).standard_normal((1, *self.shape), dtype=np.float32)
        try:
            direct = _folded(self.net, self.shape)
            expected = eager(self.net, probe)
            made = direct(probe)
            if made.shape == expected.shape and np.abs(made - expected).max() < _SAME * np.abs(expected).max():
                self.way = "oneDNN, float32"
                return direct
        except OneDnnError:
            pass
        self.way = "inference engine, oneDNN, float32"
        return _inference(self.net, self.shape, bfloat16=False)


def gains_by_bfloat16() -> bool:
    """Whether the processor multiplies matrices in bfloat16 (AMX), which is several times faster than float32.

    AVX512-BF16 alone is not enough: oneDNN's convolutions took 1.4 times as long as those in float32 with it.
    """
    return "amx_bf16" in cpu_flags()[1]


def _folded(net: nn.Layer, shape: tuple[int, int, int]) -> Embed:
    """The network as oneDNN primitives; OneDnnError where it can't be had."""
    if not works():
        raise OneDnnError("this build's oneDNN is not known.")
    with warnings.catch_warnings(), silenced(), _evaluating(net):
        warnings.simplefilter("ignore")
        fast = FoldedNet(folded(net.forward, shape))
        fast(np.zeros((1, *shape), np.float32))
    return lambda images: fast(images).reshape(len(images), -1)


def eager(net: nn.Layer, images: np.ndarray) -> np.ndarray:
    """The network as it is, without gradient, in evaluation mode: the slow way that the others are checked against."""
    with _evaluating(net), paddle.no_grad():
        embeddings: np.ndarray = net(paddle.to_tensor(images)).numpy()
    return embeddings


@contextlib.contextmanager
def _evaluating(net: nn.Layer) -> Iterator[None]:
    """Evaluation mode inside, training mode again behind it if it was on."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        if training:
            net.train()


@contextlib.contextmanager
def _room_for_programs() -> Iterator[None]:
    """The network goes to the inference engine through a temporary folder; say so where that has no room."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if shutil.disk_usage(tempfile.gettempdir()).free > _PROGRAM_ROOM and not isinstance(error, OSError):
            raise
        raise UserError(
            f"Can't write the network for the inference engine to {tempfile.gettempdir()}: {one_line(error)[:160]}. "
            "Free some space there, or name another folder by TMPDIR."
        ) from error


def _inference(net: nn.Layer, shape: tuple[int, int, int], bfloat16: bool) -> Embed:
    with _room_for_programs(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), silenced():
        warnings.simplefilter("ignore")
        with _evaluating(net):
            paddle.jit.save(net, f"{folder}/net", [InputSpec([None, *shape], "float32", "images")])
        program = next(path for path in Path(folder).iterdir() if path.suffix in (".json", ".pdmodel"))
        run = load_program(program, bfloat16)
    return lambda images: run(images)[0]


def load_program(program: Path, bfloat16: bool = False) -> Outputs:
    """A network of paddle.jit.save (`program`, its weights beside it), run by the inference engine on the CPU."""
    threads = math_threads()
    config = paddle.inference.Config(str(program), str(program.with_suffix(".pdiparams")))
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(threads)
    config.enable_mkldnn()
    if bfloat16:
        config.enable_mkldnn_bfloat16()
    config.disable_glog_info()
    with silenced():
        predictor = paddle.inference.create_predictor(config)
    given = predictor.get_input_handle(predictor.get_input_names()[0])
    made = [predictor.get_output_handle(name) for name in predictor.get_output_names()]

    def run(images: np.ndarray) -> list[np.ndarray]:
        given.copy_from_cpu(np.ascontiguousarray(images))
        predictor.run()
        paddle.base.core.set_num_threads(threads)  # the engine leaves one thread behind: slower, and other last bits
        return [handle.copy_to_cpu() for handle in made]

    return run


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: np.ndarray = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return cosines
