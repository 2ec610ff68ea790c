"""Quadruplet losses: the batch-wide hardest pairs (MSML, PaddleCV's form), and the full form with four samples."""

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from metric_learning.checks import check_choice, check_range
from metric_learning.losses.base import Labels
from metric_learning.losses.compared import Floats
from metric_learning.losses.fused_pairs import Hardest
from metric_learning.losses.pairs import (
    PairLoss,
    all_pairs,
    anchors_with_both,
    check_rows,
    class_counts,
    farthest,
    masked,
    masked_mean,
    nearest,
)
from metric_learning.ops import l2_normalize

MININGS = ("batch_hard", "given")


class QuadrupletLoss(PairLoss):
    """relu(largest d_pos - smallest d_neg + margin), both over all pairs of the batch, of normalised embeddings.

    Xiao et al. (MSML), arXiv 1710.00478, equation 6, with squared distances; it is what PaddleCV calls quadruplet.
    margin >= 0, in squared distance, which is in 0..4. active_share is 0 or 1.
    """

    def __init__(self, margin: float = 0.1) -> None:
        super().__init__()
        check_range("margin", margin, 0.0)
        self.margin = margin

    def compute(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        pairs = all_pairs(l2_normalize(x), names, anchors)
        flat = pairs.d.reshape([1, -1])
        gap = farthest(flat, pairs.positive.reshape([1, -1])) - nearest(flat, pairs.negative.reshape([1, -1]))
        loss = F.relu(gap + self.margin).sum()
        self.report_pairs((loss > 0.0).astype("float32"), pairs)
        return loss

    def hardest(self, pairs: Hardest) -> tuple[float, float, Floats, Floats]:
        farthest, nearest = int(pairs.d_ap.argmax()), int(pairs.d_an.argmin())
        value = np.maximum(pairs.d_ap[farthest] - pairs.d_an[nearest] + np.float32(self.margin), 0.0)
        slope_ap, slope_an = np.zeros((2, len(pairs.d_ap)), np.float32)
        slope_ap[farthest], slope_an[nearest] = (1.0, -1.0) if value != 0.0 else (0.0, 0.0)
        return float(value), float(value > 0.0), slope_ap, slope_an


class QuadrupletFullLoss(PairLoss):
    """Mean over anchors of relu(d_ap - d_an1 + margin) + relu(d_ap - d_n1n2 + second_margin), on normalised embeddings.

    a and p are of one class, n1 and n2 of two others. Chen et al., 1704.01719, equation 4, with squared distances.

    mining
      batch_hard  each anchor's farthest positive and nearest negative; n1, n2 of the second term are the nearest two
                  samples of two different classes, neither of them the anchor's (so n1 need not be the first term's);
                  n1 is of the batch, also where a memory gives n2
      given       rows 4i..4i+3 are a, p, n1, n2; anything else is a UserError
    margin, second_margin >= 0, in squared distance, which is in 0..4. active_share is of both terms together.
    """

    needs = "three classes, and two samples of one of them"

    def __init__(self, margin: float = 0.1, second_margin: float = 0.05, mining: str = "batch_hard") -> None:
        super().__init__()
        check_range("margin", margin, 0.0)
        check_range("second_margin", second_margin, 0.0)
        self.margin = margin
        self.second_margin = second_margin
        self.mining = check_choice("mining", mining, MININGS)
        self.by_label = mining != "given"

    def usable(self, names: Labels, anchors: int) -> bool:
        if not self.by_label:
            check_rows(names, ("anchor", "positive", "negative", "second negative"))
            return True
        classes, in_batch = len(class_counts(names)), len(class_counts(names[:anchors]))
        return super().usable(names, anchors) and classes >= 3 and in_batch >= 2

    def compute(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        x = l2_normalize(x)
        return self._batch_hard(x, names, anchors) if self.by_label else self._given(x)

    def _given(self, x: Tensor) -> Tensor:
        rows = x.reshape([-1, 4, x.shape[1]])
        d_ap, d_an, d_nn = ((rows[:, i] - rows[:, j]).square().sum(axis=1) for i, j in ((0, 1), (0, 2), (2, 3)))
        terms = self._terms(d_ap, d_an, d_nn)
        self.report((terms.detach() > 0.0).astype("float32").mean(), d_ap.mean(), d_an.mean())
        return terms.sum(axis=0).mean()

    def _batch_hard(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        pairs = all_pairs(x, names, anchors)
        terms = self._terms(
            farthest(pairs.d, pairs.positive), nearest(pairs.d, pairs.negative), nearest_strangers(pairs.d, names)
        )
        counted = anchors_with_both(pairs)
        active = (terms.detach() > 0.0).astype("float32").mean(axis=0)
        self.report_pairs(masked_mean(active, counted), pairs)
        return masked_mean(terms.sum(axis=0), counted)

    def _terms(self, d_ap: Tensor, d_an: Tensor, d_nn: Tensor) -> Tensor:
        """Distances (A,) of each anchor's pairs -> the two terms (2, A)."""
        return paddle.stack([F.relu(d_ap - d_an + self.margin), F.relu(d_ap - d_nn + self.second_margin)])


def nearest_strangers(d: Tensor, names: Labels) -> Tensor:
    """d (A, R), labels (R,) -> each anchor's smallest d between two classes that are not its own, (A,).

    Takes three classes, two of them among the anchors. The nearest pair of two classes serves every anchor but those of
    its own two classes; for each of these the nearest pair without that class is found. Three searches instead of one
    for each class.
    """
    anchors: int = d.shape[0]
    closest = _closest(d, names, None)
    result = closest[0].expand([anchors])
    for own in closest[1]:
        without = _closest(d, names, own)[0].expand([anchors])
        result = paddle.where(paddle.to_tensor(names[:anchors] == own), without, result)
    return result


def _closest(d: Tensor, names: Labels, without: int | None) -> tuple[Tensor, tuple[int, int]]:
    """The smallest d (1,) between samples of two classes, `without` not among them, and the two classes."""
    rows = names[: d.shape[0]]
    apart = rows[:, None] != names[None, :]
    if without is not None:
        apart &= (rows[:, None] != without) & (names[None, :] != without)
    flat, mask = d.reshape([-1]), paddle.to_tensor(apart.reshape(-1))
    index = int(masked(flat.detach(), mask, float("inf")).argmin().item())
    row, column = divmod(index, len(names))
    return flat[index : index + 1], (int(names[row]), int(names[column]))
