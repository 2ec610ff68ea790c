"""Element-wise loss: one sample at a time against class centres."""

import paddle
from paddle import Tensor

from metric_learning import dist
from metric_learning.checks import UserError, check_range
from metric_learning.losses.base import Loss, check_labels, labels_on_host
from metric_learning.losses.centers import Centers, Columns
from metric_learning.losses.margins import Logits, Margin
from metric_learning.ops import cosines, l2_normalize, norms_of, softmax_entropy

# Below this 1 - p is flat for the focal factor: a power below 1 has an infinite slope at 0.
SMALLEST_MISS = 1e-12
LARGEST_DROPOUT = 0.99


class ElementLoss(Loss):
    """embeddings (B, D) of any float type, labels (B,) int64 in 0..C-1 -> mean cross-entropy, scalar float32.

    extra (B,) or None: added to the margin of each sample, by a margin that takes it (`Margin.takes_extra`).

    Centres choose the columns, the margin turns cosines into logits, and the cross-entropy is plain or, with
    focal_gamma > 0, weighted per sample by (1 - p)^gamma before the mean (Lin et al., arXiv 1708.02002, equation 4).
    A margin's penalty (MagFace) is added to each sample, and the focal factor does not touch it. dropout, in training
    mode: that share of each embedding's entries is 0 for the centres, the rest scaled up; the length that a margin may
    read is that of the embedding itself.
    From the cosine on everything is float32, whatever the AMP level. A label outside 0..C-1 is a UserError.

    On several processes each holds a shard of the classes; all of them are given the same whole batch
    (dist.gather_with_gradient) and find the same loss.

    figures: accuracy (share whose nearest class, before the margin, is the true one), target_probability (mean, after
    the margin), target_cosine (mean; only where the margin wants cosines), embedding_norm (mean).
    """

    def __init__(self, centers: Centers, margin: Margin, focal_gamma: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__()
        check_range("focal_gamma", focal_gamma, 0.0)
        check_range("dropout", dropout, 0.0, LARGEST_DROPOUT)
        self.centers = centers
        self.margin = margin
        self.focal_gamma = focal_gamma
        self.dropout = dropout

    def forward(self, embeddings: Tensor, labels: Tensor, extra: Tensor | None = None) -> Tensor:
        return self.each(embeddings, labels, extra).mean()

    def each(self, embeddings: Tensor, labels: Tensor, extra: Tensor | None = None) -> Tensor:
        """The loss of every sample (B,), of which `forward` is the mean."""
        check_labels(labels_on_host(embeddings, labels), self.centers.num_classes)
        extra = _checked(extra, embeddings.shape[0])
        with paddle.amp.auto_cast(enable=False):
            x = embeddings.astype("float32")
            columns = self.centers(labels.astype("int64"))
            shared = dist.with_summed_gradient(x)  # this process's classes teach it a part of what it learns
            norms = norms_of(shared)
            cosine = self._cosine(self._dropped(shared), columns)
            own = columns.own(cosine)
            logits = self.margin(cosine, own, norms, extra)
            entropy = cross_entropy(logits, columns)
            self._measure(columns.nearest(cosine), own.detach(), norms.detach(), entropy.detach())
            return focal(entropy, self.focal_gamma) + self.margin.penalty(norms_of(x))

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


def _checked(extra: Tensor | None, count: int) -> Tensor | None:
    """extra (B,) as float32; a UserError if it is not one number a sample."""
    if extra is None:
        return None
    if list(extra.shape) != [count]:
        raise UserError(
            f"extra must be a margin for each of the {count} samples, ({count},); got {tuple(extra.shape)}."
        )
    return extra.astype("float32")


def focal(entropy: Tensor, gamma: float) -> Tensor:
    """entropy (B,), the cross-entropy -log p of each sample -> (1 - p)^gamma times it (B,)."""
    if gamma == 0.0:
        return entropy
    miss = paddle.clip(-paddle.expm1(-entropy), min=SMALLEST_MISS)
    return paddle.pow(miss, gamma) * entropy
