"""Circle loss: every similarity is pulled to its own optimum, the harder the farther it is from it."""

from paddle import Tensor
from paddle.nn import functional as F

from metric_learning.checks import check_range
from metric_learning.losses.base import Labels
from metric_learning.losses.pairs import PairLoss, anchors_with_both, cosine_pairs, log_sum_exp, masked_mean
from metric_learning.ops import l2_normalize


class CircleLoss(PairLoss):
    """log(1 + sum_n exp(gamma a_n (s_n - m)) sum_p exp(-gamma a_p (s_p - (1 - m)))), s cosines.

    Sun et al., arXiv 2002.10857, equation 6 with the one margin m of section 3.2. a_n = relu(s_n + m) and
    a_p = relu(1 + m - s_p) are weights that no gradient goes through, so the gradient is not the slope of the value.
    Mean over the anchors that have a positive and a negative.

    margin m in 0..1, gamma > 0. The defaults are the paper's for fine-grained retrieval; for faces it has m 0.25 and
    gamma 256. An anchor is active while its exponent is above 0.
    """

    def __init__(self, margin: float = 0.4, gamma: float = 80.0) -> None:
        super().__init__()
        check_range("margin of circle", margin, 0.0, 1.0)
        check_range("gamma", gamma, above=0.0)
        self.margin = margin
        self.gamma = gamma

    def compute(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        cosine, pairs = cosine_pairs(l2_normalize(x), names, anchors)
        fixed, m = cosine.detach(), self.margin
        near = -self.gamma * F.relu(1.0 + m - fixed) * (cosine - (1.0 - m))
        far = self.gamma * F.relu(fixed + m) * (cosine - m)
        exponent = log_sum_exp(near, pairs.positive) + log_sum_exp(far, pairs.negative)
        counted = anchors_with_both(pairs)
        self.report_pairs(masked_mean((exponent.detach() > 0.0).astype("float32"), counted), pairs)
        return masked_mean(F.softplus(exponent), counted)
