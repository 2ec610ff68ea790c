"""Recall@k made smooth: ranks are sums of sigmoids.

The gradient is found as in batch_all.py: with w (A, R) the slope of the loss in each cosine, sum(w cosine) has the
gradient of the loss. So ranks and slopes are summed without a graph, one positive of each anchor at a time, in A R
memory.
"""

from collections.abc import Sequence

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from metric_learning.checks import UserError, check_range
from metric_learning.losses.base import Labels
from metric_learning.losses.pairs import PairLoss, anchors_with_both, cosine_pairs, masked_mean, misses, near_to_far
from metric_learning.ops import l2_normalize


class RecallAtKLoss(PairLoss):
    """1 - mean over ks of min(k, sum_p sigmoid((k - rank_p) / tau1)) / min(k, P), of an anchor with P positives.

    rank_p = 1 + sum over z other than p of sigmoid((s_az - s_ap) / tau2), s cosines. Patel et al., arXiv 2108.11179,
    section 3.1, without its mixup; the two min() are those of the authors' code, so that an anchor with more than k
    positives can reach 1. Their code ranks an anchor among its own results, which makes every rank 1 worse; here it is
    left out. Mean over the anchors that have a positive and a negative. Never 0: sigmoid(0) is 1/2.

    ks rising, at least 1; tau1 (in ranks), tau2 (in cosine) > 0. Memory is A R, time A R K, K the largest class count.
    An anchor is active while another class has its best match.
    """

    def __init__(self, ks: Sequence[int] = (1, 2, 4, 8, 16), tau1: float = 1.0, tau2: float = 0.01) -> None:
        super().__init__()
        if not ks or min(ks) < 1 or list(ks) != sorted(set(ks)):
            raise UserError(f"ks of recall_at_k must be rising and at least 1, such as 1,2,4; got {tuple(ks)}.")
        check_range("tau1", tau1, above=0.0)
        check_range("tau2", tau2, above=0.0)
        self.ks = tuple(ks)
        self.tau1 = tau1
        self.tau2 = tau2

    def compute(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        cosine, pairs = cosine_pairs(l2_normalize(x), names, anchors)
        counted = anchors_with_both(pairs)
        with paddle.no_grad():
            order, counts = near_to_far(pairs)
            most = int(counts.max().item())
            columns, there = order[:, :most], (paddle.arange(most) < counts).astype("float32")
            scaled = cosine / self.tau2
            others = pairs.positive.logical_or(pairs.negative).astype("float32")
            recall, slope = self._recall(smooth_ranks(scaled, others, columns), there)
            share = counted.astype("float32") / paddle.clip(counted.astype("float32").sum(), min=1.0)
            slope = -slope * share.unsqueeze(1) / self.tau2
            weight = rank_slopes(scaled, others, columns, slope)
        self.report_pairs(masked_mean(misses(cosine, pairs.positive, pairs.negative), counted), pairs)
        pull = (weight * cosine).sum()
        return masked_mean(1.0 - recall, counted) + pull - pull.detach()

    def _recall(self, ranks: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Ranks (A, K) of positives and which of them there are -> recall (A,) and its slope in each rank (A, K)."""
        counts = there.sum(axis=1, keepdim=True)
        recall, slope = paddle.zeros([ranks.shape[0]]), paddle.zeros_like(ranks)
        for k in self.ks:
            within = F.sigmoid((k - ranks) / self.tau1)
            found = (within * there).sum(axis=1, keepdim=True)
            weight = 1.0 / (len(self.ks) * paddle.clip(counts, min=1.0, max=float(k)))
            recall = recall + (weight * paddle.clip(found, max=float(k))).squeeze(1)
            missing = weight * (found < k).astype("float32")
            slope = slope - missing * there * within * F.sigmoid((ranks - k) / self.tau1) / self.tau1
        return recall, slope


def smooth_ranks(scaled: Tensor, others: Tensor, columns: Tensor) -> Tensor:
    """Cosines / tau2 (A, R), 1 for all but the anchor itself (A, R), columns (A, K) of positives -> ranks (A, K)."""
    ranks = []
    for k in range(columns.shape[1]):
        above = F.sigmoid(scaled - paddle.take_along_axis(scaled, columns[:, k : k + 1], 1))
        # 1 + all but the positive itself, which counts as sigmoid(0).
        ranks.append(0.5 + (above * others).sum(axis=1))
    return paddle.stack(ranks, axis=1)


def rank_slopes(scaled: Tensor, others: Tensor, columns: Tensor, slope: Tensor) -> Tensor:
    """The same, and the slope (A, K) of something in each rank -> its slope (A, R) in each entry of `scaled`."""
    weight = paddle.zeros_like(scaled)
    for k in range(columns.shape[1]):
        column = columns[:, k : k + 1]
        gap = scaled - paddle.take_along_axis(scaled, column, 1)
        # sigmoid(-gap) instead of 1 - sigmoid(gap), which rounds to 0 early.
        push = F.sigmoid(gap) * F.sigmoid(-gap) * others * slope[:, k : k + 1]
        weight = weight + push
        there = paddle.take_along_axis(weight, column, 1) - push.sum(axis=1, keepdim=True)
        weight = paddle.put_along_axis(weight, column, there, 1)
    return weight
