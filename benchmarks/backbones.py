"""Claim: the table of docs/backbones.md: what each backbone costs, and how fast it is on this machine.

python benchmarks/backbones.py [--models IR50 ResNet18] [--size 112] [--batch 8] [--steps 3]
    [--threads 1] [--update docs/backbones.md]

Prints JSON, a row a model: parameters that learn (millions), multiply-adds (billions) of one picture at the size that
the network is usual with and at --size, feature size, pictures/s of a training step (forward, backward, momentum; by
oneDNN where this Paddle has it) and of the inference engine in float32, both at --size, and the training time of a
picture over ResNet18's. Times are the fastest of the steps: the machine may be shared.
--update also puts the table between the marks `<!-- backbones -->` and `<!-- end -->` of a page.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from plan import put_between

from metric_learning import runtime
from metric_learning.config.names import MODELS

USUAL = {"IR": 112, "MobileFaceNet": 112, "VarGFaceNet": 112, "SmallCNN": 64, "DeeperCNN": 64}  # the others: 224
YARDSTICK = "ResNet18"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    for name, default in (("size", 112), ("batch", 8), ("steps", 3), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--update", help="page to put the table into")
    options = parser.parse_args()
    runtime.prepare(threads=options.threads, onednn=True)
    rows = []
    for name in dict.fromkeys([YARDSTICK, *options.models]):
        rows.append(measured(name, options))
        rows[-1]["train_time_over_resnet18"] = round(rows[0]["train_per_s"] / rows[-1]["train_per_s"], 2)
        print(json.dumps(rows[-1]), flush=True)
    print(json.dumps(machine(options)))
    if options.update:
        update(Path(options.update), rows, options)


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    import paddle

    from metric_learning.backbones import backbone

    paddle.set_device("cpu")
    usual = next((size for family, size in USUAL.items() if name.startswith(family)), 224)
    heavy = multiply_adds(backbone(name, (3, usual, usual)), usual)
    net = backbone(name, (3, options.size, options.size))
    learning = [value for value in net.parameters() if not value.stop_gradient]
    return {
        "model": name,
        "parameters_m": round(sum(math.prod(value.shape) for value in learning) / 1e6, 2),
        "usual_size": usual,
        "macs_g": round(heavy / 1e9, 2),
        "macs_g_here": round(multiply_adds(net, options.size) / 1e9, 2),
        "feature_size": net.feature_size,
        "train_per_s": round(options.batch / training_seconds(net, options), 1),
        "infer_per_s": round(options.batch / inference_seconds(net, options), 1),
    }


def multiply_adds(net: Any, size: int) -> int:
    """Of convolutions, linear layers and attention's two products, for one picture; the rest is counted as nothing."""
    import paddle

    from metric_learning.backbones.vit import Attention

    counts = []

    def convolution(layer: Any, given: Any, made: Any) -> None:
        counts.append(math.prod(made.shape[1:]) * math.prod(layer.weight.shape[1:]))

    def linear(layer: Any, given: Any, made: Any) -> None:
        counts.append(math.prod(made.shape[1:-1]) * math.prod(layer.weight.shape))

    def attention(layer: Any, given: Any, made: Any) -> None:
        counts.append(2 * made.shape[1] ** 2 * made.shape[2])

    kinds = ((paddle.nn.Conv2D, convolution), (paddle.nn.Linear, linear), (Attention, attention))
    hooks = [
        layer.register_forward_post_hook(count)
        for layer in net.sublayers()
        for kind, count in kinds
        if isinstance(layer, kind)
    ]
    net.eval()
    with paddle.no_grad():
        net(paddle.zeros([1, 3, size, size]))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def training_seconds(net: Any, options: argparse.Namespace) -> float:
    import paddle

    from metric_learning.onednn.forward import training_forward

    net.train()
    forward = training_forward(net, 3, onednn=True)
    optimizer = paddle.optimizer.Momentum(0.001, parameters=net.parameters())
    images = paddle.to_tensor(pictures(options))

    def step() -> None:
        loss = (forward(images) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        loss.item()

    return fastest(step, options.steps)


def inference_seconds(net: Any, options: argparse.Namespace) -> float:
    from metric_learning.engine import Predictor

    predictor = Predictor(net, (3, options.size, options.size), "float32")
    images = pictures(options)
    return fastest(lambda: predictor(images), 2 * options.steps)


def pictures(options: argparse.Namespace) -> Any:
    import numpy as np

    return np.random.default_rng(0).standard_normal((options.batch, 3, options.size, options.size), dtype=np.float32)


def fastest(step: Any, count: int) -> float:
    """Seconds of the fastest of `count` steps, after one that builds the graph."""
    step()
    found = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return min(found)


def machine(options: argparse.Namespace) -> dict[str, Any]:
    load = Path("/proc/loadavg")
    return {
        "paddle": runtime.paddle_version()[0],
        "onednn_in_use": runtime.onednn_works(),
        "cpu": runtime.cpu_flags()[0],
        "threads": runtime.math_threads(),
        "size": options.size,
        "batch": options.batch,
        "load": load.read_text().split()[0] if load.exists() else None,
    }


def update(page: Path, rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    side, about = options.size, machine(options)
    head = ["model", "parameters, M", "MACs, G", f"MACs at {side}, G", "feature size", "train, pictures/s"]
    head += ["inference, pictures/s", f"train time / {YARDSTICK}"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        macs = f"{row['macs_g']:.2f} at {row['usual_size']}"
        cells = [row["model"], f"{row['parameters_m']:.2f}", macs, f"{row['macs_g_here']:.2f}", row["feature_size"]]
        cells += [row["train_per_s"], row["infer_per_s"], f"{row['train_time_over_resnet18']:.2f}"]
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    lines += [
        "",
        f"Measured with pictures of {side}x{side}, batch {options.batch}, {about['paddle']}, "
        f"{about['threads']} thread{'s' * (about['threads'] != 1)} of {about['cpu'] or 'a CPU'}, load {about['load']}.",
    ]
    put_between(page, "backbones", "\n".join(lines))


if __name__ == "__main__":
    main()
