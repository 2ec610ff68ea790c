"""The mean over all triplets of a batch, without ever holding them.

The sum over triplets of a function of d_ap - d_an has the gradient of sum(w d), where w (A, R) says how often, or how
strongly, each pair takes part. So w is found without a graph and the loss is written as sum(w d): exact, A R memory.
"""

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from metric_learning.losses.pairs import Pairs, masked, near_to_far


def all_triplets(pairs: Pairs, margin: float | None) -> tuple[Tensor, Tensor]:
    """Loss (scalar) and the share of active triplets; margin None is the soft margin. The rule is in TripletLoss."""
    return soft_triplets(pairs) if margin is None else active_triplets(pairs, margin)


def active_triplets(pairs: Pairs, margin: float) -> tuple[Tensor, Tensor]:
    """Mean of d_ap - d_an + margin over the triplets where it is above 0; 0 with a graph if there is none."""
    with paddle.no_grad():
        weight = active_weight(pairs, margin)
        active = masked(weight, pairs.positive, 0.0).sum()
        some = paddle.clip(active, max=1.0)
        weight = weight / paddle.clip(active, min=1.0)
    return (weight * pairs.d).sum() + margin * some, active / triplet_count(pairs)


def active_weight(pairs: Pairs, margin: float) -> Tensor:
    """w (A, R): the number of active triplets of each positive pair, and minus that of each negative pair.

    Sorting each row turns "how many negatives are nearer than d_ap + margin" into a search.
    """
    reach = pairs.d + margin
    negatives = paddle.sort(masked(pairs.d, pairs.negative, float("inf")), axis=1)
    reached = paddle.searchsorted(negatives, reach).astype("float32")
    # Both counts compare the same rounded d_ap + margin with d_an, so they agree on every triplet.
    reaches = paddle.sort(masked(reach, pairs.positive, float("inf")), axis=1)
    short = paddle.searchsorted(reaches, pairs.d, right=True).astype("float32")
    reaching = pairs.positive.astype("float32").sum(axis=1, keepdim=True) - short
    return masked(reached, pairs.positive, 0.0) - masked(reaching, pairs.negative, 0.0)


def soft_triplets(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Mean of softplus(d_ap - d_an) over all triplets, and the share with d_ap > d_an."""
    with paddle.no_grad():
        count = triplet_count(pairs)
        weight, total, wrong = soft_weight(pairs)
        weight = weight / count
    slope = (weight * pairs.d).sum()
    # The value comes from the sum found without a graph, the gradient from the slope, whose own value cancels.
    return total / count + slope - slope.detach(), wrong / count


def soft_weight(pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """w (A, R) of sigmoids, the sum of softplus(d_ap - d_an), and the number of triplets with d_ap > d_an.

    One round for each anchor's first positive, one for its second, and so on: A R memory a round, as many rounds as the
    largest class has other samples.
    """
    d, negative = pairs.d, pairs.negative.astype("float32")
    order, counts = near_to_far(pairs)
    weight, total, wrong = paddle.zeros_like(d), paddle.zeros([]), paddle.zeros([])
    for k in range(int(counts.max().item())):
        column = order[:, k : k + 1]
        taking = negative * (counts > k).astype("float32")
        gap = paddle.take_along_axis(d, column, 1) - d
        pull = F.sigmoid(gap) * taking
        weight = weight - pull
        # A row that has run out of positives points at some other column: it gets 0 more, so what is there stays.
        there = paddle.take_along_axis(weight, column, 1) + pull.sum(axis=1, keepdim=True)
        weight = paddle.put_along_axis(weight, column, there, 1)
        total = total + (F.softplus(gap) * taking).sum()
        wrong = wrong + ((gap > 0.0).astype("float32") * taking).sum()
    return weight, total, wrong


def triplet_count(pairs: Pairs) -> Tensor:
    """Number of (a, p, n) with the right labels, at least 1; float32 scalar."""
    positives = pairs.positive.astype("float32").sum(axis=1)
    return paddle.clip((positives * pairs.negative.astype("float32").sum(axis=1)).sum(), min=1.0)
