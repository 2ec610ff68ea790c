"""Supervised contrastive loss: each positive against everything else."""

import paddle
from paddle import Tensor

from metric_learning.checks import check_range
from metric_learning.losses.base import Labels
from metric_learning.losses.pairs import NOTHING, PairLoss, anchors_with_both, cosine_pairs, masked, masked_mean, misses
from metric_learning.ops import l2_normalize, softmax_entropy


class SupConLoss(PairLoss):
    """Mean over positives of -log(exp(s_ap / t) / sum over all others of exp(s_a. / t)), s cosines, t the temperature.

    Khosla et al., arXiv 2004.11362, equation 2 (L_out: the mean is outside of the logarithm). Mean over the anchors
    that have a positive and a negative. temperature > 0. An anchor is active while another class has its best match.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        check_range("temperature", temperature, above=0.0)
        self.temperature = temperature

    def compute(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        cosine, pairs = cosine_pairs(l2_normalize(x), names, anchors)
        logits = cosine / self.temperature
        own = pairs.positive.astype("float32")
        wanted = (own * logits).sum(axis=1) / paddle.clip(own.sum(axis=1), min=1.0)
        entropy = softmax_entropy(masked(logits, pairs.positive.logical_or(pairs.negative), NOTHING), wanted)
        counted = anchors_with_both(pairs)
        self.report_pairs(masked_mean(misses(cosine, pairs.positive, pairs.negative), counted), pairs)
        return masked_mean(entropy, counted)
