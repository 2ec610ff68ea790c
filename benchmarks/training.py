"""Claim: a training step (forward, loss, backward, update) takes no more time than torch's of the same network.

python benchmarks/training.py --output training.json [--threads 2] [--rounds 5] [--only ResNet50-224]
    [--sides ours,torch]

Each side is a process of its own that stays; those of one type take turns. Random pictures, SGD with momentum 0.9 and
an L2 penalty, softmax over 1,000 classes. Sides: ours, float32 and bfloat16 (--amp=bfloat16); Paddle's eager network;
torch's network in float32 and bfloat16 (autocast), each in both of torch's layouts. Ratios are to the faster layout of
the same type. The networks of all sides must have equally many parameters.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from alternate import Prepare, Run, compare, serve, write

CLASSES = 1000
CASES = {
    "ResNet50-224": {"model": "ResNet50", "size": 224, "batch": 16},
    "ResNet50-112": {"model": "ResNet50", "size": 112, "batch": 32},
    "IR18-112": {"model": "IR18", "size": 112, "batch": 32},
    "MobileFaceNet-112": {"model": "MobileFaceNet", "size": 112, "batch": 64},
    "demo": {"model": "ResNet18", "size": 56, "batch": 64},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--sides", default=",".join(SIDES))
    options = parser.parse_args()
    rows = []
    for name in options.only.split(","):
        rows.append(row(name, options))
        if options.output:
            write(options.output, "training", options.threads, rows)


def row(name: str, options: argparse.Namespace) -> dict[str, Any]:
    case = CASES[name]
    sides: dict[str, Any] = {}
    for half in (
        False,
        True,
    ):  # one type after the other: all sides at once would need more memory than many machines have
        names = [side for side in options.sides.split(",") if ("bfloat16" in side) == half]
        sides |= compare(__file__, names, case, options.threads, options.rounds)
    made: dict[str, Any] = {"case": name, **case, "per_s": {}, "peak_mb": {}, "sides": sides}
    for side, found in sides.items():
        made["per_s"][side] = None if "error" in found else round(case["batch"] / found["seconds"], 2)
        made["peak_mb"][side] = found.get("peak_mb")
    counts = {found["parameters"] for found in sides.values() if "parameters" in found}
    if len(counts) != 1:
        raise SystemExit(f"{name}: the networks of the sides are not the same: {counts} parameters.")
    for kind in ("", "_bfloat16"):
        ours, peers = (
            made["per_s"].get(f"ours{kind}"),
            [made["per_s"].get(f"torch{kind}{way}") for way in ("", "_last")],
        )
        if ours and any(peers):
            made[f"ratio{kind}"] = round(ours / max(filter(None, peers)), 3)
    print(name, {key: value for key, value in made.items() if key not in ("case", "sides")}, flush=True)
    return made


def ours(case: dict[str, Any], onednn: bool = True, bfloat16: bool = False) -> Run:
    from metric_learning import runtime

    runtime.prepare(threads=case["threads"], onednn=onednn)
    runtime.keep_freed_memory()
    import paddle

    from metric_learning.data.transforms import PictureSpec
    from metric_learning.embedder import Embedder, EmbedderSpec
    from metric_learning.losses import element_loss
    from metric_learning.onednn.forward import training_forward
    from metric_learning.optimizer import Optimizer

    paddle.set_device("cpu")
    images, labels = data(case)
    net = Embedder(EmbedderSpec(case["model"], 0, PictureSpec((3, case["size"], case["size"]))))
    net.train()
    loss = element_loss("softmax", CLASSES, net.size)
    forward = training_forward(net, 3, onednn, bfloat16)
    optimizer = Optimizer("momentum", net, loss, weight_decay=5e-4)
    optimizer.set_lr(0.001)

    def step() -> dict[str, Any]:
        value = loss(forward(paddle.to_tensor(images)), paddle.to_tensor(labels))
        value.backward()
        optimizer.step()
        return {"loss": float(value.item()), "parameters": count}

    count = sum(int(value.size) for value in net.parameters() if not value.stop_gradient)
    count += net.size if case["model"].startswith("IR") else 0  # a scale that does not learn here
    return step


def torchs(case: dict[str, Any], last: bool = False, bfloat16: bool = False) -> Run:
    import torch

    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    net, width = twin(case["model"])
    head = torch.nn.Linear(width, CLASSES)
    how = torch.channels_last if last else torch.contiguous_format
    net = net.to(memory_format=how)
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], 0.001, momentum=0.9, weight_decay=5e-4)
    pictures, labels = data(case)
    count = sum(value.numel() for value in net.parameters())

    def step() -> dict[str, Any]:
        images = torch.from_numpy(pictures).to(memory_format=how)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            features = net(images)
        value = torch.nn.functional.cross_entropy(head(features.float()), torch.from_numpy(labels))
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": value.item(), "parameters": count}

    return step


def twin(model: str) -> tuple[Any, int]:
    """torch's network of that name, and how many features it gives."""
    import torch_faces
    import torch_resnet

    makers = {
        "ResNet18": lambda: (torch_resnet.ResNet(18), 512),
        "ResNet50": lambda: (torch_resnet.ResNet(50), 2048),
        "IR18": lambda: (torch_faces.IResNet("r18"), 512),
        "MobileFaceNet": lambda: (torch_faces.MobileFaceNet(relu6=False), 128),
    }
    return makers[model]()


def data(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = case["batch"], 3, case["size"], case["size"]
    return rng.standard_normal(shape, dtype=np.float32), rng.integers(0, CLASSES, case["batch"])


SIDES: dict[str, Prepare] = {
    "ours": ours,
    "ours_bfloat16": lambda case: ours(case, bfloat16=True),
    "eager": lambda case: ours(case, onednn=False),
    "torch": torchs,
    "torch_last": lambda case: torchs(case, last=True),
    "torch_bfloat16": lambda case: torchs(case, bfloat16=True),
    "torch_bfloat16_last": lambda case: torchs(case, last=True, bfloat16=True),
}


if __name__ == "__main__" and not serve(SIDES, sys.argv[1:]):
    main()
