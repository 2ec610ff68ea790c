"""N-pairs loss: one anchor of each class against the positives of all."""

import numpy as np
import paddle
from paddle import Tensor

from metric_learning.checks import check_range
from metric_learning.losses.base import Labels
from metric_learning.losses.pairs import PairLoss, class_counts, masked_mean, misses
from metric_learning.ops import softmax_entropy, squared_distances


class NpairsLoss(PairLoss):
    """Cross-entropy of each class's anchor over the positives of all classes, plus 0.5 reg_lambda mean |x|^2.

    Sohn, NIPS 2016, "Improved deep metric learning with multi-class N-pair loss objective", equation 7 with the
    regulariser of section 3.2.2. Logits are anchor . positive, embeddings as they are, not normalised.

    The first sample of a class in the batch is its anchor, all its others are positives; with more than one the target
    is uniform over them, as in PaddleCV. A class with one sample takes no part, nor in the regulariser, which is the
    mean over the samples used. reg_lambda >= 0. An anchor is active while another class has its best match.

    With a memory, all that it holds are positives too, of their own class or of others; the regulariser is the batch's.
    """

    needs = "two classes with two samples each"

    def __init__(self, reg_lambda: float = 0.01) -> None:
        super().__init__()
        check_range("npairs_reg_lambda", reg_lambda, 0.0)
        self.reg_lambda = reg_lambda

    def usable(self, names: Labels, anchors: int) -> bool:
        at_anchors, at_positives = anchors_and_positives(names, anchors)
        return len(at_anchors) >= 1 and len(class_counts(names[at_positives])) >= 2

    def compute(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        at_anchors, at_positives = anchors_and_positives(names, anchors)
        firsts = paddle.index_select(x, paddle.to_tensor(at_anchors))
        positives = paddle.index_select(x, paddle.to_tensor(at_positives))
        own = paddle.to_tensor(names[at_anchors][:, None] == names[at_positives][None, :])
        logits = paddle.matmul(firsts, positives, transpose_y=True)
        wanted = own.astype("float32") / own.astype("float32").sum(axis=1, keepdim=True)
        entropy = softmax_entropy(logits, (wanted * logits).sum(axis=1))
        other = own.logical_not()
        d = squared_distances(firsts.detach(), positives.detach())
        self.report(misses(logits, own, other).mean(), masked_mean(d, own), masked_mean(d, other))
        used = paddle.concat([firsts, positives[: int((at_positives < anchors).sum())]])
        return entropy.mean() + 0.5 * self.reg_lambda * used.square().sum(axis=1).mean()


def anchors_and_positives(names: Labels, anchors: int) -> tuple[Labels, Labels]:
    """labels (R,), the first `anchors` the batch's -> indices of each class's anchor, and of all positives.

    Positives are all but the first sample of each class of the batch; anchors are these first samples, where their
    class has a positive.
    """
    classes, first = np.unique(names[:anchors], return_index=True)
    positives = np.setdiff1d(np.arange(len(names)), first)
    return first[np.isin(classes, names[positives])].astype(np.int64), positives.astype(np.int64)
