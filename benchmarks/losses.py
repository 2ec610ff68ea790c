"""Claim: a loss alone, forward and backward, is 3 times as fast as pytorch-metric-learning's (PML), in less memory.

python benchmarks/losses.py --output losses.json [--threads 1] [--rounds 7] [--only eml,arcmargin] [--batches 256,1024]

Embeddings (B, 512) with a gradient, 4 samples of each class in any order, as early in a training: cosines of 0.2 within
a class and of 0 between classes. arcmargin has 10,000 classes, whose centres have a gradient too. A run clears the
gradients, computes the loss and goes back. The sides take turns, each in a process of its own, of 4096 / B runs (one
is too short to be measured after a rest); seconds are those of a run. A line a row.

mb: how far a process rose, at its highest, above what it held after the imports and a batch of 8 (Linux). `value` is
the loss: where PML has the same formula (see README.md), both sides must agree to 1e-3.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from alternate import Prepare, Run, compare, serve, write

DIM, CLASSES, EACH = 512, 10000, 4
TINY = {"batch": 8, "classes": 16}
BATCHES = (256, 1024, 4096)
# loss -> what of PML stands beside it, and whether it is the same formula.
LOSSES = {
    "eml": ("MultiSimilarityLoss", False),
    "triplet": ("TripletMarginLoss on BatchHardMiner, squared distances", True),
    "quadruplet": ("TripletMarginLoss on BatchHardMiner, squared distances", False),
    "multi_similarity": ("MultiSimilarityLoss on MultiSimilarityMiner", True),
    "arcmargin": ("ArcFaceLoss", True),
}


def main() -> None:
    options = asked()
    rows = []
    for loss in options.only.split(","):
        for batch in map(int, options.batches.split(",")):
            rows.append(row(loss, batch, options))
            if options.output:
                write(options.output, "losses", options.threads, rows)


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default=",".join(LOSSES))
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    return parser.parse_args()


def row(loss: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """One loss at one size on both sides, printed."""
    peer, same = LOSSES[loss]
    case = {"loss": loss, "batch": batch, "classes": CLASSES}
    found = compare(__file__, tuple(SIDES), case, options.threads, options.rounds)
    failed = {side: result["error"] for side, result in found.items() if "error" in result}
    if failed:
        raise SystemExit(f"{loss} at {batch}: {failed}")
    for result in found.values():
        result |= {name: result[name] / steps_of(case) for name in ("seconds", "fastest")}
    ours, pml = found["ours"], found["pml"]
    ratio = pml["seconds"] / ours["seconds"]
    print(
        f"{loss:16} {batch:5}: ours {ours['seconds']:.4f} s {ours['mb']:5} MB, PML {pml['seconds']:.4f} s "
        f"{pml['mb']:5} MB, ratio {ratio:.2f}; loss {ours['value']:.6g} and {pml['value']:.6g}",
        flush=True,
    )
    if same and abs(ours["value"] - pml["value"]) > 1e-3 * abs(pml["value"]):
        raise SystemExit(f"{loss} at {batch}: the two sides computed different losses.")
    return case | {"dim": DIM, "pml": peer, "same": same, "ratio": round(ratio, 3), "sides": found}


def ours(case: dict[str, Any]) -> Run:
    from metric_learning import runtime

    runtime.prepare(threads=case["threads"])
    import paddle

    from metric_learning.losses import element_loss, pair_loss

    def stepper(loss: str, batch: int, classes: int) -> Callable[[], float]:
        x, names = (paddle.to_tensor(array) for array in data(batch))
        x.stop_gradient = False
        if loss == "arcmargin":
            given = element_loss(loss, classes, DIM)
            given.centers.weight.set_value(centres(classes))
        else:
            given = pair_loss(loss, **({"mining": "batch_hard"} if loss == "triplet" else {}))
        tensors = [x, *given.parameters()]

        def step() -> float:
            for tensor in tensors:
                tensor.clear_gradient(set_to_zero=False)
            value = given(x, names)
            value.backward()
            return float(value.item())

        return step

    return watched(stepper, case)


def pml(case: dict[str, Any]) -> Run:
    import torch

    torch.set_num_threads(case["threads"])

    def stepper(loss: str, batch: int, classes: int) -> Callable[[], float]:
        x, names = (torch.from_numpy(array) for array in data(batch))
        x.requires_grad_()
        given, tensors = made(loss, classes)

        def step() -> float:
            for tensor in [x, *tensors]:
                tensor.grad = None
            value = given(x, names)
            value.backward()
            return float(value.item())

        return step

    return watched(stepper, case)


def made(loss: str, classes: int) -> tuple[Callable[[Any, Any], Any], list[Any]]:
    """PML's loss and what is trained in it."""
    import math

    import torch
    from pytorch_metric_learning import distances, losses, miners, reducers

    if loss == "arcmargin":
        margin = losses.ArcFaceLoss(classes, DIM, margin=math.degrees(0.15), scale=80.0)
        margin.W.data = torch.from_numpy(centres(classes)).T.clone()
        return margin, list(margin.parameters())
    if loss == "eml":
        return losses.MultiSimilarityLoss(), []
    if loss == "multi_similarity":
        similar, mined = losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5), miners.MultiSimilarityMiner(0.1)
        return lambda x, y: similar(x, y, mined(x, y)), []
    squared = distances.LpDistance(normalize_embeddings=True, p=2, power=2)
    hard = losses.TripletMarginLoss(0.1, distance=squared, reducer=reducers.MeanReducer())
    miner = miners.BatchHardMiner(distance=squared)
    return lambda x, y: hard(x, y, miner(x, y)), []


SIDES: dict[str, Prepare] = {"ours": ours, "pml": pml}


def data(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (B, DIM) of length 1 or so, and labels (B,), below CLASSES and of any order."""
    rng = np.random.default_rng(0)
    names = rng.permutation(batch) // EACH
    middles = rng.normal(size=(batch // EACH, DIM))
    x = (middles[names] + 2.0 * rng.normal(size=(batch, DIM))) / np.sqrt(5.0 * DIM)
    return x.astype(np.float32), names.astype(np.int64)


def centres(classes: int) -> np.ndarray:
    return (np.random.default_rng(1).normal(size=(classes, DIM)) / np.sqrt(DIM)).astype(np.float32)


def watched(stepper: Callable[[str, int, int], Callable[[], float]], case: dict[str, Any]) -> Run:
    """A run of the case that tells the loss, and how far the memory has risen since a batch of 8."""
    tiny = stepper(case["loss"], TINY["batch"], TINY["classes"])
    for _ in range(2):
        tiny()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = held("VmRSS")
    step = stepper(case["loss"], case["batch"], case["classes"])

    def run() -> dict[str, float]:
        value = [step() for _ in range(steps_of(case))][-1]
        return {"value": value, "mb": round(held("VmHWM") - before)}

    return run


def steps_of(case: dict[str, Any]) -> int:
    """Runs in a turn."""
    return max(1, BATCHES[-1] // case["batch"])


def held(what: str) -> float:
    """MB: VmRSS, what this process holds now, or VmHWM, the most it has held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


if __name__ == "__main__" and not serve(SIDES, sys.argv[1:]):
    main()
