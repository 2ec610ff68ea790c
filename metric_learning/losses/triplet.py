"""Triplet loss, with the four usual ways to choose the triplets."""

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from metric_learning.checks import check_choice, check_range
from metric_learning.losses.base import Labels
from metric_learning.losses.batch_all import all_triplets
from metric_learning.losses.compared import Floats
from metric_learning.losses.fused_pairs import Hardest, sigmoid, softplus
from metric_learning.losses.pairs import (
    PairLoss,
    Pairs,
    all_pairs,
    anchors_with_both,
    check_rows,
    farthest,
    masked,
    masked_mean,
    nearest,
)
from metric_learning.ops import l2_normalize

MININGS = ("given", "batch_hard", "semi_hard", "batch_all")


class TripletLoss(PairLoss):
    """Mean of relu(d_ap - d_an + margin) over triplets of normalised embeddings: Schroff et al., 1503.03832, eq. 3.

    mining
      given       rows 3i, 3i+1, 3i+2 are anchor, positive, negative; anything else is a UserError
      batch_hard  each anchor's farthest positive and nearest negative (Hermans et al., 1703.07737, equation 5);
                  mean over the anchors
      semi_hard   for each (a, p) the nearest negative that is farther than p, or, if there is none, the farthest
                  negative (as TensorFlow does; 1503.03832, equation 4, leaves that case open); mean over the pairs
      batch_all   every triplet; mean over those with a loss above 0 (1703.07737, section 2)
    soft_margin   softplus(d_ap - d_an) instead, without the margin (1703.07737, section 2); batch_all then averages
                  over all triplets, as no term is 0

    margin >= 0, in squared distance, which is in 0..4. d is squared as in 1503.03832; 1703.07737 uses the root.
    Memory is A R. Time is A R log R, but A R K (K the largest class count) for batch_all with the soft margin.
    """

    def __init__(self, margin: float = 0.1, mining: str = "given", soft_margin: bool = False) -> None:
        super().__init__()
        check_range("margin", margin, 0.0)
        self.margin = margin
        self.mining = check_choice("mining", mining, MININGS)
        self.by_label = mining != "given"
        self.soft_margin = soft_margin
        self.hardest = self._hardest if mining == "batch_hard" else None

    def usable(self, names: Labels, anchors: int) -> bool:
        if not self.by_label:
            check_rows(names, ("anchor", "positive", "negative"))
            return True
        return super().usable(names, anchors)

    def compute(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        x = l2_normalize(x)
        if not self.by_label:
            return self._given(x)
        pairs = all_pairs(x, names, anchors)
        if self.mining == "batch_all":
            loss, active_share = all_triplets(pairs, None if self.soft_margin else self.margin)
        else:
            gap, counted = batch_hard(pairs) if self.mining == "batch_hard" else semi_hard(pairs)
            loss = masked_mean(self._penalty(gap), counted)
            active_share = masked_mean(self._active(gap), counted)
        self.report_pairs(active_share, pairs)
        return loss

    def _given(self, x: Tensor) -> Tensor:
        rows = x.reshape([-1, 3, x.shape[1]])
        d_ap = (rows[:, 0] - rows[:, 1]).square().sum(axis=1)
        d_an = (rows[:, 0] - rows[:, 2]).square().sum(axis=1)
        self.report(self._active(d_ap - d_an).mean(), d_ap.mean(), d_an.mean())
        return self._penalty(d_ap - d_an).mean()

    def _penalty(self, gap: Tensor) -> Tensor:
        """gap = d_ap - d_an, any shape -> the loss of each triplet."""
        return F.softplus(gap) if self.soft_margin else F.relu(gap + self.margin)

    def _active(self, gap: Tensor) -> Tensor:
        """gap = d_ap - d_an, any shape -> 1 where the triplet still pulls, else 0."""
        return (gap.detach() > (0.0 if self.soft_margin else -self.margin)).astype("float32")

    def _hardest(self, pairs: Hardest) -> tuple[float, float, Floats, Floats]:
        # Without a positive, or a negative, the gap is -inf: no penalty and no slope.
        bend = pairs.d_ap - pairs.d_an + np.float32(0.0 if self.soft_margin else self.margin)
        penalty = softplus(bend) if self.soft_margin else np.maximum(bend, 0.0)
        slope = (sigmoid(bend) if self.soft_margin else (bend > 0.0).astype(np.float32)) / np.float32(pairs.both)
        return float(penalty.sum(dtype=np.float64)) / pairs.both, float((bend > 0.0).sum()) / pairs.both, slope, -slope


def batch_hard(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """d_ap - d_an (A,) of the hardest positive and negative, and which anchors (A,) have both."""
    gap = farthest(pairs.d, pairs.positive) - nearest(pairs.d, pairs.negative)
    return gap, anchors_with_both(pairs)


def semi_hard(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """d_ap - d_an (A, R) of each pair's semi-hard negative, and which entries (A, R) are positive pairs with one."""
    counted = pairs.positive.logical_and(pairs.negative.any(axis=1, keepdim=True))
    with paddle.no_grad():
        chosen = semi_hard_index(pairs)
    return pairs.d - paddle.take_along_axis(pairs.d, chosen, 1), counted


def semi_hard_index(pairs: Pairs) -> Tensor:
    """For each entry of d (A, R) the column of the nearest negative that is farther, else of the farthest; (A, R).

    A row's negatives are sorted once and then searched, which needs no (A, R, R) comparison.
    """
    to_negative = masked(pairs.d, pairs.negative, float("inf"))
    order = paddle.argsort(to_negative, axis=1)
    # The number of negatives that are as near or nearer is the place of the first one that is farther.
    place = paddle.searchsorted(paddle.take_along_axis(to_negative, order, 1), pairs.d, right=True)
    last = pairs.negative.astype("int64").sum(axis=1, keepdim=True) - 1
    return paddle.take_along_axis(order, paddle.clip(paddle.minimum(place, last), min=0), 1)
