"""Contrastive loss: positives nearer than one margin, negatives farther than another."""

from paddle import Tensor
from paddle.nn import functional as F

from metric_learning.checks import check_range
from metric_learning.losses.base import Labels
from metric_learning.losses.pairs import PairLoss, all_pairs, masked_mean
from metric_learning.ops import l2_normalize, root_of


class ContrastiveLoss(PairLoss):
    """Mean of relu(r_ap - pos_margin) + mean of relu(neg_margin - r_an), r the distance of normalised embeddings.

    Each mean is over the pairs whose term is above 0, so that the many negatives that are far enough do not thin out
    the few that are not; 0 where there is none. A pair counts by itself: a sample without a positive has negatives.

    The idea is that of Hadsell et al., CVPR 2006, "Dimensionality reduction by learning an invariant mapping", equation
    4; they square both terms and do not normalise. This is the field's later form, without the squares, as
    pytorch-metric-learning has it. Both margins >= 0, in distance, which is in 0..2 (not squared).
    active_share is the share of all pairs with a term above 0.
    """

    def __init__(self, pos_margin: float = 0.0, neg_margin: float = 0.5) -> None:
        super().__init__()
        check_range("pos_margin", pos_margin, 0.0)
        check_range("neg_margin", neg_margin, 0.0)
        self.pos_margin = pos_margin
        self.neg_margin = neg_margin

    def compute(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        pairs = all_pairs(l2_normalize(x), names, anchors)
        distance = root_of(pairs.d)
        pull, push = F.relu(distance - self.pos_margin), F.relu(self.neg_margin - distance)
        pulled = pairs.positive.logical_and(pull > 0.0)
        pushed = pairs.negative.logical_and(push > 0.0)
        active = pulled.logical_or(pushed).astype("float32")
        self.report_pairs(masked_mean(active, pairs.positive.logical_or(pairs.negative)), pairs)
        return masked_mean(pull, pulled) + masked_mean(push, pushed)
