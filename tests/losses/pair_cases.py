"""Every pair loss in each of its forms, and its naive twin, for the tests that sweep them."""

import functools

import naive_losses as naive
import numpy as np
from loss_cases import QUADRUPLES, TRIPLES, UNEQUAL

from metric_learning.losses import PAIR_LOSSES, pair_loss, quadruplet, triplet

MININGS = {"triplet": triplet.MININGS, "quadruplet_full": quadruplet.MININGS}
# Losses with a smooth form are swept in both.
SOFT = {"triplet": (False, True)}
# An anchor is the first of its class: the order of the classes is free, the order within one is not.
FIRST_IS_ANCHOR = {"npairs"}

CASES = [
    (name, mining, soft)
    for name in PAIR_LOSSES
    for mining in MININGS.get(name, (None,))
    for soft in SOFT.get(name, (False,))
]
UNORDERED = [case for case in CASES if case[1] != "given"]

TWINS = {
    "triplet": {
        "batch_hard": naive.triplet_batch_hard,
        "semi_hard": naive.triplet_semi_hard,
        "batch_all": naive.triplet_batch_all,
    },
    "quadruplet_full": {"batch_hard": naive.quadruplet_full_batch_hard},
}


def built(name, mining, soft, **settings):
    return pair_loss(name, mining=mining, soft_margin=soft, **settings)


def labels_for(name, mining):
    if mining == "given":
        return np.array(TRIPLES if name == "triplet" else QUADRUPLES)
    return np.array(UNEQUAL)


def twin_of(name, mining, soft):
    """The naive twin, a function of (x, labels, anchors), of a loss that takes batches in any order."""
    twin = TWINS[name][mining] if name in TWINS else getattr(naive, name)
    return functools.partial(twin, soft=soft) if name == "triplet" else twin
