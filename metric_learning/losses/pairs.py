"""What pair-wise losses share: masks by label, choice of pairs, and what happens when a batch has none.

A anchors are compared with R references, of which the first A are the anchors themselves. Within one batch that is all
there is, A = R = B; with a memory (memory.py) past embeddings follow. d holds squared Euclidean distances.
"""

import warnings
from typing import NamedTuple

import numpy as np
import paddle
from paddle import Tensor

from metric_learning.checks import UserError
from metric_learning.losses import fused_pairs as fused
from metric_learning.losses.base import Labels, Loss, labels_on_host
from metric_learning.losses.compared import Classes, Compared, Points
from metric_learning.ops import as_array, norms_of, squared_distances

# Its exponential is 0 beside any distance, and unlike -inf it leaves a row that has nothing else finite.
NOTHING = -1e30


class Pairs(NamedTuple):
    """d (A, R) squared distances; positive and negative (A, R) bool masks, by label, without self."""

    d: Tensor
    positive: Tensor
    negative: Tensor


class PairLoss(Loss):
    """embeddings (B, D) of any float type, labels (B,) integers, in any order -> scalar float32.

    A subclass writes `compute`, and `usable` if it needs more than an anchor with a positive and a negative. A batch it
    cannot use gives 0 with a graph (every gradient is 0), and a warning, once for each loss object. `by_label` is False
    where pairs come from the order of the batch instead of from its labels.

    figures: active_share (of the terms in the mean, those that still pull: hinge above 0, or, for smooth losses, a
    slope above half the steepest), positive_distance and negative_distance (mean d; missing if the batch is unusable),
    embedding_norm (mean |x|).

    On a CPU `compute` is slow. A loss that is the mean of a value of each anchor with both can have `rows` as well,
    from `cosines` or else from distances, or, if it looks at hardest pairs only, `hardest`, always from distances; both
    of embeddings that are `normalized` or not. What they are given and give is said in fused_pairs.py.
    """

    needs = "two classes, and two samples of one of them"
    by_label = True
    normalized = True
    cosines = False
    rows: fused.Rows | None = None
    hardest: fused.Hard | None = None

    def __init__(self) -> None:
        super().__init__()
        self._warned = False

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        names = labels_on_host(embeddings, labels)
        with paddle.amp.auto_cast(enable=False):
            return self.compare(embeddings.astype("float32"), names, len(names))

    def compare(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        """x (R, D) float32, names (R,): the references, of which the first `anchors` are the batch -> scalar."""
        usable = self.usable(names, anchors)
        if usable and self.by_label and (self.rows or self.hardest) and x.place.is_cpu_place():
            return self._fused(x, names, anchors)
        batch = x[:anchors]
        self._measured = {"embedding_norm": norms_of(batch.detach()).mean(), "active_share": paddle.zeros([])}
        if usable:
            return self.compute(x, names, anchors)
        self._warn_once(names[:anchors])
        return (batch * 0.0).sum()

    def _fused(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        """`compute` by `rows` or `hardest`, and the figures."""
        learns = paddle.is_grad_enabled() and not x.stop_gradient
        with np.errstate(all="ignore"):  # what is not finite shows in the loss, as it does in Paddle
            points = Points(as_array(x), self.normalized)
            compared = Compared(points, Classes(names, anchors), self.cosines)
            if self.hardest is not None:
                found = fused.hardest_pairs(compared, self.hardest, learns)
            else:
                assert self.rows is not None
                found = fused.all_rows(compared, self.rows, learns)
            near, far = compared.mean_distances()
        self._measured = {
            "active_share": np.float32(found.active_share),
            "positive_distance": np.float32(near),
            "negative_distance": np.float32(far),
            "embedding_norm": points.norms[:anchors].mean(),
        }
        return fused.with_gradient(x, found.value, found.slope)

    def compute(self, x: Tensor, names: Labels, anchors: int) -> Tensor:
        """The same, where `usable` says yes."""
        raise NotImplementedError

    def usable(self, names: Labels, anchors: int) -> bool:
        """Whether references with these labels (R,), the first `anchors` of them the batch, hold what is compared."""
        classes, place, counts = np.unique(names, return_inverse=True, return_counts=True)
        return len(classes) >= 2 and bool((counts[place.reshape(-1)[:anchors]] >= 2).any())

    def _warn_once(self, names: Labels) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"A batch of {len(names)} samples of {len(class_counts(names))} classes taught {type(self).__name__} "
                f"nothing: it needs {self.needs}. Draw several samples of several classes for each batch.",
                stacklevel=2,
            )

    def report(self, active_share: Tensor, positive_distance: Tensor, negative_distance: Tensor) -> None:
        """Keep these scalars for `figures`."""
        self._measured["active_share"] = active_share.detach()
        self._measured["positive_distance"] = positive_distance.detach()
        self._measured["negative_distance"] = negative_distance.detach()

    def report_pairs(self, active_share: Tensor, pairs: Pairs) -> None:
        """The same, with the distances averaged over all pairs."""
        d = pairs.d.detach()
        self.report(active_share, masked_mean(d, pairs.positive), masked_mean(d, pairs.negative))


def class_counts(names: Labels) -> Labels:
    """labels (B,) -> samples of each class that occurs, int64."""
    return np.unique(names, return_counts=True)[1]


def all_pairs(x: Tensor, names: Labels, anchors: int) -> Pairs:
    """x (R, D), labels (R,) -> all ordered pairs of an anchor, one of the first A, and another reference."""
    return Pairs(squared_distances(x[:anchors], x), *_masks(names, anchors))


def cosine_pairs(x: Tensor, names: Labels, anchors: int) -> tuple[Tensor, Pairs]:
    """The same of normalised x -> cosines (A, R), and the pairs, whose d is for figures and has no gradient."""
    cosine = paddle.matmul(x[:anchors], x, transpose_y=True)
    square = x.detach().square().sum(axis=1)  # 1, or 0 for an embedding that is 0
    d = paddle.clip(square[:anchors].unsqueeze(1) + square - 2.0 * cosine.detach(), min=0.0)
    return cosine, Pairs(d, *_masks(names, anchors))


def _masks(names: Labels, anchors: int) -> tuple[Tensor, Tensor]:
    same = names[:anchors, None] == names[None, :]
    positive = same & ~np.eye(anchors, len(names), dtype=bool)
    return paddle.to_tensor(positive), paddle.to_tensor(~same)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where the bool mask (same shape) holds; 0 with a graph where it never does."""
    weight = mask.astype("float32")
    return (values * weight).sum() / paddle.clip(weight.sum(), min=1.0)


def masked(values: Tensor, mask: Tensor, otherwise: float) -> Tensor:
    """The values where the mask holds, `otherwise` elsewhere."""
    # where() with a plain number gives float64 on Paddle 2.6.
    return paddle.where(mask, values, paddle.full_like(values, otherwise))


def log_sum_exp(values: Tensor, mask: Tensor) -> Tensor:
    """values (A, R), mask (A, R) -> log of the sum of exp over each row's masked entries (A,); very low if none."""
    return paddle.logsumexp(masked(values, mask, NOTHING), axis=1)


def farthest(d: Tensor, mask: Tensor) -> Tensor:
    """d (A, R), mask (A, R) -> each row's largest masked entry (A,); a row without any gives some entry of the row.

    Choosing an index and then reading the entry gives the gradient to one pair; that of max() goes to all tied ones.
    """
    index = masked(d.detach(), mask, -float("inf")).argmax(axis=1, keepdim=True)
    return paddle.take_along_axis(d, index, 1).squeeze(1)


def nearest(d: Tensor, mask: Tensor) -> Tensor:
    """d (A, R), mask (A, R) -> each row's smallest masked entry (A,); a row without any gives some entry of the row."""
    index = masked(d.detach(), mask, float("inf")).argmin(axis=1, keepdim=True)
    return paddle.take_along_axis(d, index, 1).squeeze(1)


def anchors_with_both(pairs: Pairs) -> Tensor:
    """Whether an anchor has a positive and a negative, (A,) bool."""
    return pairs.positive.any(axis=1).logical_and(pairs.negative.any(axis=1))


def misses(similarity: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Whether a negative is an anchor's best match, or as good as it: (A, R) and masks (A, R) -> (A,), 1 or 0."""
    best_own = masked(similarity.detach(), positive, -float("inf")).max(axis=1)
    best_other = masked(similarity.detach(), negative, -float("inf")).max(axis=1)
    return (best_other >= best_own).astype("float32")


def near_to_far(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Columns (A, R) of each anchor's positives, the nearest first, then of all else; how many positives, (A, 1)."""
    order = paddle.argsort(masked(pairs.d, pairs.positive, float("inf")), axis=1)
    return order, pairs.positive.astype("int64").sum(axis=1, keepdim=True)


def check_rows(names: Labels, roles: tuple[str, ...]) -> None:
    """Raise a UserError unless the labels (B,) come in groups of len(roles): anchor, positive, then other classes."""
    size = len(roles)
    if len(names) % size:
        raise UserError(
            f"mining 'given' needs a batch size divisible by {size} ({', '.join(roles)}); got {len(names)} samples."
        )
    for row, group in enumerate(names.reshape(-1, size).tolist()):
        if group[0] != group[1] or len(set(group)) != size - 1:
            raise UserError(
                f"mining 'given' needs rows of {', '.join(roles)}, the first two of one class, the rest of others; "
                f"samples {row * size}..{row * size + size - 1} have labels {group}. "
                "Use mining 'batch_hard' for batches in any order."
            )
