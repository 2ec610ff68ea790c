"""N-pairs loss: one anchor of each class against the positives of all."""

import numpy as np
import paddle
from paddle import Tensor

from metric_learning.checks import check_range
from metric_learning.losses.base import Labels
from metric_learning.losses.pairs import PairLoss, class_counts, masked, masked_mean
from metric_learning.ops import softmax_entropy, squared_distances


class NpairsLoss(PairLoss):
    """Cross-entropy of each class's anchor over the positives of all classes, plus 0.5 reg_lambda mean |x|^2.

    Sohn, NIPS 2016, "Improved deep metric learning with multi-class N-pair loss objective", equation 7 with the
    regulariser of section 3.2.2. Logits are anchor . positive, embeddings as they are, not normalised.

    The first sample of a class in the batch is its anchor, all its others are positives; with more than one the target
    is uniform over them, as in PaddleCV. A class with one sample takes no part, nor in the regulariser, which is the
    mean over the samples used. reg_lambda >= 0. An anchor is active while another class has its best match.
    """

    needs = "two classes with two samples each"

    def __init__(self, reg_lambda: float = 0.01) -> None:
        super().__init__()
        check_range("npairs_reg_lambda", reg_lambda, 0.0)
        self.reg_lambda = reg_lambda

    def usable(self, names: Labels) -> bool:
        return int((class_counts(names) >= 2).sum()) >= 2

    def compute(self, x: Tensor, names: Labels) -> Tensor:
        at_anchors, at_positives = anchors_and_positives(names)
        anchors = paddle.index_select(x, paddle.to_tensor(at_anchors))
        positives = paddle.index_select(x, paddle.to_tensor(at_positives))
        own = paddle.to_tensor(names[at_anchors][:, None] == names[at_positives][None, :])
        logits = paddle.matmul(anchors, positives, transpose_y=True)
        wanted = own.astype("float32") / own.astype("float32").sum(axis=1, keepdim=True)
        entropy = softmax_entropy(logits, (wanted * logits).sum(axis=1))
        self._report(anchors.detach(), positives.detach(), logits.detach(), own)
        used = paddle.concat([anchors, positives])
        return entropy.mean() + 0.5 * self.reg_lambda * used.square().sum(axis=1).mean()

    def _report(self, anchors: Tensor, positives: Tensor, logits: Tensor, own: Tensor) -> None:
        best_own = masked(logits, own, -float("inf")).max(axis=1)
        best_other = masked(logits, own.logical_not(), -float("inf")).max(axis=1)
        d = squared_distances(anchors, positives)
        active = (best_other >= best_own).astype("float32").mean()
        self.report(active, masked_mean(d, own), masked_mean(d, own.logical_not()))


def anchors_and_positives(names: Labels) -> tuple[Labels, Labels]:
    """labels (B,) -> indices of the first sample of each class that has two or more, and of the others of these."""
    _, first, place, counts = np.unique(names, return_index=True, return_inverse=True, return_counts=True)
    several = counts >= 2
    others = np.arange(len(names)) != first[place]
    return first[several].astype(np.int64), np.flatnonzero(several[place] & others).astype(np.int64)
