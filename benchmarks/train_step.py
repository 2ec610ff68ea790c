"""Claim: on a CPU, oneDNN convolutions make a training step of Paddle 3.3 faster than its eager convolutions.

python benchmarks/train_step.py [--model ResNet18] [--size 64] [--batch 32]

Prints JSON: seconds a step (median of alternating steps, after warm-up) for both ways, their ratio, versions, machine.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from metric_learning import runtime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ResNet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    runtime.prepare(onednn=True)

    import numpy as np
    import paddle

    from metric_learning.backbones import backbone
    from metric_learning.onednn.forward import training_forward

    paddle.set_device("cpu")
    images = np.random.default_rng(0).standard_normal((options.batch, 3, options.size, options.size), dtype=np.float32)

    def stepper(onednn: bool):
        paddle.seed(0)
        net = backbone(options.model, images.shape[1:])
        forward = training_forward(net, 3, onednn)
        optimizer = paddle.optimizer.Momentum(0.001, parameters=net.parameters())

        def step() -> float:
            start = time.perf_counter()
            loss = (forward(paddle.to_tensor(images)) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            loss.item()
            return time.perf_counter() - start

        return step

    ways = {"eager": stepper(False), "onednn": stepper(True)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.steps + 3):
        for name, step in ways.items():
            spent = step()
            if number >= 3:
                seconds[name].append(spent)
    medians = {name: statistics.median(spent) for name, spent in seconds.items()}
    result = {
        "model": options.model,
        "size": options.size,
        "batch": options.batch,
        "seconds_a_step": {name: round(value, 4) for name, value in medians.items()},
        "pictures_per_s": {name: round(options.batch / value, 1) for name, value in medians.items()},
        "eager_over_onednn": round(medians["eager"] / medians["onednn"], 2),
        "paddle": runtime.paddle_version()[0],
        "onednn_in_use": runtime.onednn_works(),
        "cpu": runtime.cpu_flags()[0],
        "load": Path("/proc/loadavg").read_text().split()[0] if Path("/proc/loadavg").exists() else None,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
