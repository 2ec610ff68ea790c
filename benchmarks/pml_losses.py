"""The rows of docs/migration.md that name a loss of pytorch-metric-learning: the same number, or another?

python benchmarks/pml_losses.py

Each row is computed on the same random embeddings by both; "same" is a difference below 1e-4 of the value.
"""

import math
import sys
from pathlib import Path

import numpy as np
import paddle
import torch
from pytorch_metric_learning import distances, losses, miners, reducers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from metric_learning.losses import element_loss, pair_loss

CLASSES, EACH, DIM = 4, 4, 8
RANDOM = np.random.default_rng(0)
EMBEDDINGS = RANDOM.standard_normal((CLASSES * EACH, DIM)).astype("float32")
CENTRES = RANDOM.standard_normal((CLASSES, DIM)).astype("float32")

SQUARED = distances.LpDistance(power=2)
DOT = distances.DotProductSimilarity(normalize_embeddings=False)
MEAN = reducers.MeanReducer()


def mined(loss, miner):
    """Theirs, with a miner before it."""
    return lambda embeddings, labels: loss(embeddings, labels, miner(embeddings, labels))


def triplet(margin: float, reducer=None, smooth: bool = False):
    return losses.TripletMarginLoss(margin=margin, distance=SQUARED, reducer=reducer, smooth_loss=smooth)


HARD = miners.BatchHardMiner(distance=SQUARED)
MS = losses.MultiSimilarityLoss(2, 50, 0.5)
PAIRS = [  # name, pictures a class, ours, theirs
    ("TripletMarginLoss, BatchHardMiner", 4, ("triplet", {"mining": "batch_hard"}), mined(triplet(0.1, MEAN), HARD)),
    ("TripletMarginLoss, no miner", 4, ("triplet", {"mining": "batch_all"}), triplet(0.1)),
    ("smooth_loss", 4, ("triplet", {"mining": "batch_hard", "soft_margin": True}), mined(triplet(0, MEAN, True), HARD)),
    ("ContrastiveLoss", 4, ("contrastive", {"pos_margin": 0.0, "neg_margin": 1.0}), losses.ContrastiveLoss(0, 1)),
    ("MultiSimilarityLoss", 4, ("multi_similarity", {"epsilon": 3.0}), MS),
    ("with its miner", 4, ("multi_similarity", {"epsilon": 0.1}), mined(MS, miners.MultiSimilarityMiner(0.1))),
    ("CircleLoss", 4, ("circle", {"margin": 0.4, "gamma": 80.0}), losses.CircleLoss(0.4, 80)),
    ("SupConLoss", 4, ("supcon", {"temperature": 0.1}), losses.SupConLoss(temperature=0.1)),
    ("NTXentLoss, two a class", 2, ("supcon", {"temperature": 0.07}), losses.NTXentLoss(temperature=0.07)),
    ("NTXentLoss, four a class", 4, ("supcon", {"temperature": 0.07}), losses.NTXentLoss(temperature=0.07)),
    ("NPairsLoss, not normalised", 2, ("npairs", {"reg_lambda": 0.0}), losses.NPairsLoss(distance=DOT)),
]
SIZES = {"num_classes": CLASSES, "embedding_size": DIM}
ELEMENTS = [
    ("ArcFaceLoss", ("arcmargin", 0.5, 64.0), losses.ArcFaceLoss(margin=math.degrees(0.5), scale=64, **SIZES)),
    ("CosFaceLoss", ("amsoftmax", 0.35, 64.0), losses.CosFaceLoss(margin=0.35, scale=64, **SIZES)),
    ("NormalizedSoftmaxLoss", ("amsoftmax", 0.0, 20.0), losses.NormalizedSoftmaxLoss(temperature=0.05, **SIZES)),
]


def show(name: str, each: int, ours, theirs) -> None:
    rows = EMBEDDINGS[: CLASSES * each]
    labels = np.repeat(np.arange(CLASSES), each)
    one = float(ours(paddle.to_tensor(rows), paddle.to_tensor(labels)))
    other = theirs(torch.tensor(rows), torch.tensor(labels)).item()
    same = "same" if abs(one - other) < 1e-4 * max(1.0, abs(other)) else "another"
    print(f"{name:36} {one:12.5f} {other:12.5f}  {same}")


def main() -> None:
    paddle.set_device("cpu")
    print(f"{'pytorch-metric-learning':36} {'ours':>12} {'theirs':>12}")
    for name, each, (kind, settings), theirs in PAIRS:
        show(name, each, pair_loss(kind, **settings), theirs)
    for name, (kind, margin, scale), theirs in ELEMENTS:
        ours = element_loss(kind, CLASSES, DIM, margin=margin, scale=scale)
        ours.centers.weight.set_value(paddle.to_tensor(CENTRES))
        theirs.W.data = torch.tensor(CENTRES.T.copy())
        show(name, EACH, ours, theirs)


if __name__ == "__main__":
    main()
