"""Claim: embedding is faster by this toolkit's way than by ONNX Runtime, and gives the same embeddings.

python benchmarks/inference.py [--models IR50 ResNet18] [--size 112] [--batch 32] [--threads 1] [--rounds 5]
    [--sides eager ours ours_float32 engine engine_bfloat16 onnxruntime onnxruntime_int8 opencv] [--output JSON]

The same network (fixed weights, running statistics of a random batch) in one process a side, taking turns: eager
Paddle, the Predictor as infer.py and eval.py use it, the same held to float32, Paddle's inference engine by itself in
float32 and in bfloat16, ONNX Runtime in float32 on what paddle2onnx makes of the weights, the same in 8 bits, and (on
demand) OpenCV's dnn.
Prints a line a backbone: pictures/s, ratios to ONNX Runtime, the smallest cosine of an embedding to eager's, and the
same behind the mean of eager's embeddings ("centred"): an untrained network gives every picture nearly the same
embedding, so that the plain cosine says little of what is lost.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alternate import Prepare, Run, compare, serve, write

from metric_learning import runtime
from metric_learning.config.names import MODELS

PEER = "onnxruntime"
USUAL = ("eager", "ours", "ours_float32", "engine", "engine_bfloat16", PEER, "onnxruntime_int8")
OPSET = 17


def main() -> None:
    if serve(SIDES, sys.argv[1:]):
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=USUAL)
    for name, default in (("size", 112), ("batch", 32), ("threads", 1), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--output", help="JSON file to write")
    options = parser.parse_args()
    rows = []
    for model in options.models:
        rows.append(row(model, options))
        print(line(rows[-1]), flush=True)
        if options.output:  # after each row: a sweep may be stopped
            write(options.output, "inference", options.threads, rows)


def row(model: str, options: argparse.Namespace) -> dict[str, Any]:
    case = {"model": model, "size": options.size, "batch": options.batch, "warm_up": 1}
    with tempfile.TemporaryDirectory() as folder:
        expected = str(Path(folder) / "eager.npy")
        sides = ["eager", *(side for side in options.sides if side != "eager")]  # the others compare with the first
        found = compare(__file__, sides, case | {"expected": expected}, options.threads, options.rounds)
    return {"case": {key: case[key] for key in ("model", "size", "batch")}, "sides": found}


def line(row: dict[str, Any]) -> str:
    sides, case = row["sides"], row["case"]
    peer = sides.get(PEER, {}).get("seconds")
    said = [f"{case['model']} {case['size']} px, batch {case['batch']}:"]
    for name, found in sides.items():
        if "error" in found:
            said.append(f"{name} can't ({found['error'][:60]})")
            continue
        ratio = f" = {peer / found['seconds']:.2f}" if peer and name != PEER else ""
        centred = f", centred {found['centred']:.5f}" if "centred" in found else ""
        said.append(f"{name} {case['batch'] / found['seconds']:.0f}/s{ratio} (cosine {found['cosine']:.6f}{centred})")
    return " | ".join(said)


def prepared(case: dict[str, Any]) -> tuple[Any, Any]:
    """The network, in evaluation mode, and the pictures: the same in every process."""
    runtime.prepare(threads=case["threads"])
    import numpy as np
    import paddle

    from metric_learning.data.transforms import PictureSpec
    from metric_learning.embedder import Embedder, EmbedderSpec

    paddle.set_device("cpu")
    paddle.seed(0)
    shape = (3, case["size"], case["size"])
    net = Embedder(EmbedderSpec(case["model"], 0, PictureSpec(shape)))
    for layer in net.sublayers():
        if hasattr(layer, "_momentum"):
            layer._momentum = 0.0  # running statistics become those of the next batch: maps neither fade nor overflow
    generator = np.random.default_rng(0)
    net.train()
    with paddle.no_grad():
        net(paddle.to_tensor(pictures(generator, 16, shape)))
    net.eval()
    return net, pictures(generator, case["batch"], shape)


def pictures(generator: Any, count: int, shape: tuple[int, ...]) -> Any:
    """(count, *shape) float32: coarse spots and some noise, each picture with a contrast and brightness of its own."""
    import numpy as np

    coarse = generator.standard_normal((count, shape[0], -(-shape[1] // 16), -(-shape[2] // 16)))
    spots = coarse.repeat(16, axis=2).repeat(16, axis=3)[..., : shape[1], : shape[2]]
    contrast, brightness = generator.uniform(0.3, 1.5, (count, 1, 1, 1)), generator.normal(0, 0.5, (count, 1, 1, 1))
    noisy = spots + 0.3 * generator.standard_normal((count, *shape))
    return np.ascontiguousarray(contrast * noisy + brightness, np.float32)


def judged(case: dict[str, Any], embed: Any, images: Any) -> Run:
    """A run that says how its embeddings agree with those that eager has left in a file."""
    import numpy as np

    made, path = np.asarray(embed(images)), Path(case["expected"])
    if not path.exists():
        np.save(path, made)
    expected = np.load(path)
    found = {"cosine": smallest_cosine(made, expected), "way": getattr(embed, "way", "")}
    if len(made) > 1:
        middle = expected.mean(axis=0)
        found["centred"] = smallest_cosine(made - middle, expected - middle)

    def run() -> dict[str, Any]:
        embed(images)
        return found

    return run


def smallest_cosine(a: Any, b: Any) -> float:
    import numpy as np

    return float(((a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


def eager_side(case: dict[str, Any]) -> Run:
    net, images = prepared(case)
    from metric_learning.engine import eager

    return judged(case, lambda batch: eager(net, batch), images)


def predictor_side(precision: str) -> Prepare:
    def prepare(case: dict[str, Any]) -> Run:
        net, images = prepared(case)
        from metric_learning.engine import Predictor

        return judged(case, Predictor(net, images.shape[1:], precision), images)

    return prepare


def engine_side(bfloat16: bool) -> Prepare:
    def prepare(case: dict[str, Any]) -> Run:
        net, images = prepared(case)
        from metric_learning.engine import _inference

        return judged(case, _inference(net, images.shape[1:], bfloat16), images)

    return prepare


def onnx_file(net: Any, shape: tuple[int, ...], folder: str) -> str:
    import paddle
    from paddle.static import InputSpec

    with runtime.silenced():
        spec = [InputSpec([None, *shape], "float32", "images")]
        paddle.onnx.export(net, f"{folder}/net", input_spec=spec, opset_version=OPSET)
    return f"{folder}/net.onnx"


def onnxruntime_side(case: dict[str, Any]) -> Run:
    net, images = prepared(case)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = case["threads"], 1
    with tempfile.TemporaryDirectory() as folder:
        path = onnx_file(net, images.shape[1:], folder)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name
    return judged(case, lambda batch: session.run(None, {given: batch})[0], images)


def onnxruntime_int8_side(case: dict[str, Any]) -> Run:
    """Weights and maps in 8 bits, ranges of maps from 64 other pictures: onnxruntime.quantization as documented."""
    net, images = prepared(case)
    import logging

    import numpy as np
    import onnxruntime
    from onnxruntime import quantization

    logging.disable(logging.WARNING)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = case["threads"], 1
    with tempfile.TemporaryDirectory() as folder:
        path, prepared_path, small = (
            onnx_file(net, images.shape[1:], folder),
            f"{folder}/pre.onnx",
            f"{folder}/int8.onnx",
        )
        quantization.shape_inference.quant_pre_process(path, prepared_path, skip_symbolic_shape=True)
        given = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).get_inputs()[0].name

        class Calibration(quantization.CalibrationDataReader):
            batches = iter(np.array_split(pictures(np.random.default_rng(1), 64, images.shape[1:]), 4))

            def get_next(self) -> dict[str, Any] | None:
                batch = next(self.batches, None)
                return None if batch is None else {given: batch}

        quantization.quantize_static(prepared_path, small, Calibration(), per_channel=True)
        session = onnxruntime.InferenceSession(small, options, providers=["CPUExecutionProvider"])
    return judged(case, lambda batch: session.run(None, {given: batch})[0], images)


def opencv_side(case: dict[str, Any]) -> Run:
    net, images = prepared(case)
    import cv2

    cv2.setNumThreads(case["threads"])
    with tempfile.TemporaryDirectory() as folder:
        reader = cv2.dnn.readNetFromONNX(onnx_file(net, images.shape[1:], folder))

    def embed(batch: Any) -> Any:
        reader.setInput(batch)
        return reader.forward()

    return judged(case, embed, images)


SIDES: dict[str, Prepare] = {
    "eager": eager_side,
    "ours": predictor_side("auto"),
    "ours_float32": predictor_side("float32"),
    "engine": engine_side(bfloat16=False),
    "engine_bfloat16": engine_side(bfloat16=True),
    PEER: onnxruntime_side,
    "onnxruntime_int8": onnxruntime_int8_side,
    "opencv": opencv_side,
}


if __name__ == "__main__":
    main()
