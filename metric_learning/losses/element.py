"""Element-wise loss: one sample at a time against class centres."""

from collections.abc import Sequence

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor

from metric_learning import dist
from metric_learning.checks import UserError, check_range
from metric_learning.losses import fused_softmax
from metric_learning.losses.base import Labels, Loss, check_labels, labels_on_host
from metric_learning.losses.centers import AllCenters, Centers, Columns
from metric_learning.losses.margins import Logits, Margin
from metric_learning.ops import cosines, l2_normalize, norms_of, softmax_entropy

# Below this 1 - p is flat for the focal factor: a power below 1 has an infinite slope at 0.
SMALLEST_MISS = 1e-12
LARGEST_DROPOUT = 0.99
LARGEST_SMOOTHING = 0.99


class ElementLoss(Loss):
    """embeddings (B, D) of any float type, labels (B,) int64 in 0..C-1 -> mean cross-entropy, scalar float32.

    extra (B,) or None: added to the margin of each sample, by a margin that takes it (`Margin.takes_extra`).

    Centres choose the columns, the margin turns cosines into logits, and the cross-entropy is plain or, with
    focal_gamma > 0, weighted per sample by (1 - p)^gamma before the mean (Lin et al., arXiv 1708.02002, equation 4).
    With label_smoothing eps > 0 the target is (1 - eps) on the true class and eps / C on all C of them (Szegedy et al.,
    arXiv 1512.00567, section 7), over the margin's logits, so the true class's is the one with the margin; p of the
    focal factor stays the true class's own. It needs all centres: else a UserError.
    A margin's penalty (MagFace) is added to each sample, and the focal factor does not touch it. dropout, in training
    mode: that share of each embedding's entries is 0 for the centres, the rest scaled up; the length that a margin may
    read is that of the embedding itself.
    class_weights (C,), each above 0: the mean over the batch is sum w_i l_i / sum w_i, w_i that of the sample's class
    and l_i all that the sample costs, its penalty included.
    From the cosine on everything is float32, whatever the AMP level. A label outside 0..C-1 is a UserError.

    On several processes each holds a shard of the classes; all of them are given the same whole batch
    (dist.gather_with_gradient) and find the same loss.

    figures: accuracy (share whose nearest class, before the margin, is the true one), target_probability (mean, after
    the margin), target_cosine (mean; only where the margin wants cosines), embedding_norm (mean).
    """

    def __init__(
        self,
        centers: Centers,
        margin: Margin,
        focal_gamma: float = 0.0,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_range("focal_gamma", focal_gamma, 0.0)
        check_range("dropout", dropout, 0.0, LARGEST_DROPOUT)
        check_range("label_smoothing", label_smoothing, 0.0, LARGEST_SMOOTHING)
        if label_smoothing and not isinstance(centers, AllCenters):
            raise UserError("--label_smoothing spreads over all classes, so it needs --centers=all.")
        self.centers = centers
        self.margin = margin
        self.focal_gamma = focal_gamma
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else _checked_weights(class_weights, centers.num_classes)

    def forward(self, embeddings: Tensor, labels: Tensor, extra: Tensor | None = None) -> Tensor:
        return self.each(embeddings, labels, extra).mean()

    def each(self, embeddings: Tensor, labels: Tensor, extra: Tensor | None = None) -> Tensor:
        """The loss of every sample (B,), times B w_i / sum w_i where classes have weights; `forward` is the mean."""
        names = labels_on_host(embeddings, labels)
        check_labels(names, self.centers.num_classes)
        if embeddings.shape[1] != self.centers.dim:
            raise UserError(f"This loss is for embeddings of size {self.centers.dim}; got {embeddings.shape[1]}.")
        extra = _checked(extra, embeddings.shape[0])
        with paddle.amp.auto_cast(enable=False):
            x = embeddings.astype("float32")
            columns = self.centers(labels.astype("int64"))
            shared = dist.with_summed_gradient(x)  # this process's classes teach it a part of what it learns
            norms = norms_of(shared)
            if self._fits_one_matrix(shared, columns):
                cost = entropy = self._fused(self._dropped(shared), norms, columns, extra)
            else:
                entropy, cost = self._composed(self._dropped(shared), norms, columns, extra)
            found = focal(entropy, self.focal_gamma, cost) + self.margin.penalty(norms_of(x))
            return found if self.class_weights is None else found * self._weights(names)

    def _fits_one_matrix(self, x: Tensor, columns: Columns) -> bool:
        """Whether the fast way for a CPU (fused_softmax.py) fits: a plain margin, one process, no label smoothing."""
        alone = columns.here is None and not columns.idle
        return alone and self.margin.plain and not self.label_smoothing and bool(x.place.is_cpu_place())

    def _fused(self, x: Tensor, norms: Tensor, columns: Columns, extra: Tensor | None) -> Tensor:
        """The cross-entropies (B,)."""
        weight, bias = columns.weight.astype("float32"), columns.bias
        bias = None if bias is None else bias.astype("float32")
        own, made = fused_softmax.scores(x, weight, bias, columns.target, self.margin.normalized)
        entropy = fused_softmax.entropies(own, self.margin.true(own, norms, extra), made, self.margin.scale)
        self._measure(paddle.to_tensor(made.nearest), own.detach(), norms.detach(), entropy.detach())
        return entropy

    def _composed(self, x: Tensor, norms: Tensor, columns: Columns, extra: Tensor | None) -> tuple[Tensor, Tensor]:
        """The cross-entropies (B,), and what a sample costs by them, which label smoothing changes."""
        cosine = self._cosine(x, columns)
        own = columns.own(cosine)
        logits = self.margin(cosine, own, norms, extra)
        entropy = cross_entropy(logits, columns)
        self._measure(columns.nearest(cosine), own.detach(), norms.detach(), entropy.detach())
        if not self.label_smoothing:
            return entropy, entropy
        return entropy, entropy + self.label_smoothing * above_mean(logits, columns, self.centers.num_classes)

    def _weights(self, names: Labels) -> Tensor:
        """names (B,), labels -> their classes' weights (B,), whose mean is 1."""
        assert self.class_weights is not None
        weights = self.class_weights[names]
        return paddle.to_tensor((weights / weights.mean()).astype(np.float32))

    def _dropped(self, x: Tensor) -> Tensor:
        """x (B, D) with a share of its entries 0, in training mode; which ones, Paddle's seeded generator says."""
        if self.dropout == 0.0 or not self.training:
            return x
        return paddle.nn.functional.dropout(x, self.dropout)

    def _cosine(self, x: Tensor, columns: Columns) -> Tensor:
        """x (B, D) -> cosines (B, C'), or the plain products where the margin wants those."""
        weight = columns.weight.astype("float32")
        if self.margin.normalized:
            return cosines(l2_normalize(x), weight)
        product = paddle.matmul(x, weight, transpose_y=True)
        return product if columns.bias is None else product + columns.bias.astype("float32")

    def _measure(self, nearest: Tensor, own: Tensor, norms: Tensor, entropy: Tensor) -> None:
        self._measured = {
            "accuracy": (own >= nearest).astype("float32").mean(),
            "target_probability": paddle.exp(-entropy).mean(),
            "embedding_norm": norms.mean(),
        }
        if self.margin.normalized:
            self._measured["target_cosine"] = own.mean()


def cross_entropy(logits: Logits, columns: Columns) -> Tensor:
    """Logits of this process's classes -> the cross-entropy (B,) over the classes of all processes, alike on each.

    Only three numbers a sample travel: the largest logit, the sum of exponentials, the true class's logit.
    """
    entries = columns.with_own(logits.others, logits.true)
    if columns.here is None:
        return softmax_entropy(entries, logits.true)
    top = dist.all_max(entries.max(axis=1))
    part = paddle.logsumexp(entries - top.unsqueeze(1), axis=1)
    # The true class counts once, on the process that has it, or its gradient would be there several times.
    return paddle.log(dist.sum_with_gradient(paddle.exp(part))) - (
        dist.sum_with_gradient(logits.true * columns.here) - top
    )


def above_mean(logits: Logits, columns: Columns, classes: int) -> Tensor:
    """Logits of this process's classes -> the true class's less the mean of all `classes` (B,), alike on each process.

    The cross-entropy to the target (1 - eps, and eps / C on all) is the plain one plus eps times this.
    """
    entries = columns.with_own(logits.others, logits.true)
    top = dist.all_max(entries.max(axis=1))
    mean = dist.sum_with_gradient((entries - top.unsqueeze(1)).sum(axis=1)) / classes
    true = logits.true if columns.here is None else dist.sum_with_gradient(logits.true * columns.here)
    return true - top - mean


def _checked_weights(weights: Sequence[float], count: int) -> NDArray[np.float64]:
    found = np.asarray(weights, np.float64)
    if found.shape != (count,) or not (np.isfinite(found) & (found > 0)).all():
        raise UserError(f"class_weights must be {count} finite numbers above 0, one for each class; got {weights}.")
    return found


def _checked(extra: Tensor | None, count: int) -> Tensor | None:
    """extra (B,) as float32; a UserError if it is not one number a sample."""
    if extra is None:
        return None
    if list(extra.shape) != [count]:
        raise UserError(
            f"extra must be a margin for each of the {count} samples, ({count},); got {tuple(extra.shape)}."
        )
    return extra.astype("float32")


def focal(entropy: Tensor, gamma: float, cost: Tensor | None = None) -> Tensor:
    """entropy (B,), the cross-entropy -log p of each sample -> (1 - p)^gamma times it, or times cost (B,)."""
    cost = entropy if cost is None else cost
    if gamma == 0.0:
        return cost
    miss = paddle.clip(-paddle.expm1(-entropy), min=SMALLEST_MISS)
    return paddle.pow(miss, gamma) * cost
