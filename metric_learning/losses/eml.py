"""EML, PaddleCV's loss: a smooth hardest positive against a smooth hardest negative."""

import math

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from metric_learning.checks import check_range
from metric_learning.losses.base import Labels
from metric_learning.losses.compared import Floats, Marks, Piece
from metric_learning.losses.fused_pairs import exponentials, sigmoid, softplus
from metric_learning.losses.pairs import PairLoss, all_pairs, anchors_with_both, log_sum_exp, masked_mean


class EmlLoss(PairLoss):
    """softplus(log beta + u) / log(1 + beta), u = logmeanexp(d over positives) + logmeanexp(-d over negatives).

    Mean over the anchors that have both. Embeddings as they are, not normalised; an anchor is not its own positive.

    PaddleCV's emlloss, which splits u and goes linear above 20 to keep exp() finite; this form equals it and needs no
    split. The idea is that of Law et al., arXiv 1212.6094. beta > 0.
    """

    normalized = False

    def __init__(self, beta: float = 1e5) -> None:
        super().__init__()
        check_range("beta", beta, above=0.0)
        self.beta = beta

    def compute(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        pairs = all_pairs(x, names, anchors)
        u = log_mean_exp(pairs.d, pairs.positive) + log_mean_exp(-pairs.d, pairs.negative)
        bend = u + math.log(self.beta)
        counted = anchors_with_both(pairs)
        self.report_pairs(masked_mean((bend.detach() > 0.0).astype("float32"), counted), pairs)
        return masked_mean(F.softplus(bend), counted) / math.log1p(self.beta)

    def rows(self, piece: Piece) -> tuple[Floats, Marks]:
        near, near_share = exponentials(piece.near)
        far, far_share = exponentials(piece.far, -1.0)
        u = near - np.log(piece.positives) + far - np.log(piece.negatives)
        bend, steepest = u + np.float32(math.log(self.beta)), np.float32(1.0 / math.log1p(self.beta))
        pull = sigmoid(bend) * steepest
        piece.near[:] *= (pull * near_share)[:, None]
        piece.far[:] *= (-pull * far_share)[:, None]
        return softplus(bend) * steepest, bend > 0.0


def log_mean_exp(values: Tensor, mask: Tensor) -> Tensor:
    """values (A, R), mask (A, R) -> log of the mean of exp over each row's masked entries (A,); very low if none."""
    count = paddle.clip(mask.astype("float32").sum(axis=1), min=1.0)
    return log_sum_exp(values, mask) - paddle.log(count)
