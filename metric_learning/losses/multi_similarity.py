"""Multi-similarity loss: pairs are mined against each other, then weighed by how they stand among the rest."""

import numpy as np
from paddle import Tensor
from paddle.nn import functional as F

from metric_learning.checks import check_range
from metric_learning.losses.base import Labels
from metric_learning.losses.compared import Floats, Marks, Piece
from metric_learning.losses.fused_pairs import sigmoid, softplus
from metric_learning.losses.pairs import (
    PairLoss,
    Pairs,
    anchors_with_both,
    cosine_pairs,
    log_sum_exp,
    masked,
    masked_mean,
)
from metric_learning.ops import l2_normalize


class MultiSimilarityLoss(PairLoss):
    """1/alpha log(1 + sum_p exp(-alpha (s_ap - base))) + 1/beta log(1 + sum_n exp(beta (s_an - base))), s cosines.

    Wang et al., arXiv 1904.06627, equation 15, over the pairs that its mining keeps: a negative that is nearer than the
    farthest positive, a positive that is farther than the nearest negative, both with epsilon to spare. Mean over the
    anchors that have a positive and a negative; one whose pairs are all left out adds 0.

    alpha, beta > 0; base in 0..1 and epsilon >= 0 are cosines; an epsilon above 2 keeps every pair. beta is 50 as in
    the paper; the authors' code has 40. An anchor is active while one of its two sums is above 1, half of the steepest
    slope.
    """

    cosines = True

    def __init__(self, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, epsilon: float = 0.1) -> None:
        super().__init__()
        check_range("alpha", alpha, above=0.0)
        check_range("beta", beta, above=0.0)
        check_range("base", base, 0.0, 1.0)
        check_range("epsilon", epsilon, 0.0)
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.epsilon = epsilon

    def compute(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        cosine, pairs = cosine_pairs(l2_normalize(x), names, anchors)
        positive, negative = mined(cosine.detach(), pairs, self.epsilon)
        near = log_sum_exp(-self.alpha * (cosine - self.base), positive)
        far = log_sum_exp(self.beta * (cosine - self.base), negative)
        counted = anchors_with_both(pairs)
        active = (near.detach() > 0.0).logical_or(far.detach() > 0.0)
        self.report_pairs(masked_mean(active.astype("float32"), counted), pairs)
        return masked_mean(F.softplus(near) / self.alpha + F.softplus(far) / self.beta, counted)

    def rows(self, piece: Piece) -> tuple[Floats, Marks]:
        lowest, highest = piece.near.min(axis=1), piece.far.max(axis=1)
        kept = piece.near - np.float32(self.epsilon) < highest[:, None]
        near, pull = _one_side(piece.near, lowest, kept, -self.alpha, self.base)
        kept = piece.far > (lowest - np.float32(self.epsilon))[:, None]
        far, push = _one_side(piece.far, highest, kept, self.beta, self.base)
        piece.near[:] *= -pull[:, None]
        piece.far[:] *= push[:, None]
        return softplus(near) / self.alpha + softplus(far) / self.beta, (near > 0.0) | (far > 0.0)


def _one_side(values: Floats, top: Floats, kept: Marks, factor: float, base: float) -> tuple[Floats, Floats]:
    """values (t, n) become exp(factor (s - top)) of the pairs that are kept -> log of the sum of exp(factor (s - base))
    over these, and what makes a row the slope of softplus of that, over the factor; (t,) both."""
    values -= top[:, None]
    values *= np.float32(factor)
    np.exp(values, out=values)
    values *= kept
    total = values.sum(axis=1)
    summed = np.float32(factor) * (top - np.float32(base)) + np.log(total)
    total[total == 0.0] = 1.0  # the hardest pair is the last to go, so any other sum is at least 1
    return summed, sigmoid(summed) / total


def mined(cosine: Tensor, pairs: Pairs, epsilon: float) -> tuple[Tensor, Tensor]:
    """cosine (A, R) -> masks (A, R) of the positive and negative pairs that are kept."""
    farthest_own = masked(cosine, pairs.positive, float("inf")).min(axis=1, keepdim=True)
    nearest_other = masked(cosine, pairs.negative, -float("inf")).max(axis=1, keepdim=True)
    positive = pairs.positive.logical_and(cosine - epsilon < nearest_other)
    return positive, pairs.negative.logical_and(cosine + epsilon > farthest_own)
