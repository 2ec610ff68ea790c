"""Losses, by class and by name; each is called as loss(embeddings, labels) and gives a scalar.

Element-wise: centres x margin x (focal) cross-entropy. Pair-wise: the samples of a batch against each other, and with a
`MemoryLoss` round it against past ones.
A new margin or pair loss is a line in one of the two tables below; the sweep tests then cover it.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from paddle import nn

from metric_learning.checks import UserError, check_choice, check_range
from metric_learning.losses.centers import AllCenters, Centers, ReferenceCenters
from metric_learning.losses.circle import CircleLoss
from metric_learning.losses.contrastive import ContrastiveLoss
from metric_learning.losses.element import ElementLoss
from metric_learning.losses.eml import EmlLoss
from metric_learning.losses.margins import (
    AdaFace,
    AmSoftmax,
    ArcMargin,
    Bce,
    CurricularFace,
    MagFace,
    Margin,
    Softmax,
    SphereFace,
)
from metric_learning.losses.memory import MemoryLoss
from metric_learning.losses.multi_similarity import MultiSimilarityLoss
from metric_learning.losses.npairs import NpairsLoss
from metric_learning.losses.pairs import PairLoss
from metric_learning.losses.partial_centers import PartialCenters
from metric_learning.losses.pool import PoolCenters, PoolLoss
from metric_learning.losses.quadruplet import QuadrupletFullLoss, QuadrupletLoss
from metric_learning.losses.recall_at_k import RecallAtKLoss
from metric_learning.losses.supcon import SupConLoss
from metric_learning.losses.triplet import TripletLoss

__all__ = [
    "ELEMENT_LOSSES",
    "PAIR_LOSSES",
    "AdaFace",
    "AllCenters",
    "AmSoftmax",
    "ArcMargin",
    "Bce",
    "CircleLoss",
    "ContrastiveLoss",
    "CurricularFace",
    "ElementLoss",
    "EmlLoss",
    "MagFace",
    "Margin",
    "MemoryLoss",
    "MultiSimilarityLoss",
    "NpairsLoss",
    "PairLoss",
    "PartialCenters",
    "PoolLoss",
    "QuadrupletFullLoss",
    "QuadrupletLoss",
    "RecallAtKLoss",
    "Softmax",
    "SphereFace",
    "SupConLoss",
    "TripletLoss",
    "element_loss",
    "margin_settings",
    "pair_loss",
    "pair_settings",
    "pool_loss",
]


ELEMENT_LOSSES: dict[str, type[Margin]] = {
    "softmax": Softmax,
    "bce": Bce,
    "arcmargin": ArcMargin,
    "amsoftmax": AmSoftmax,
    "sphereface": SphereFace,
    "magface": MagFace,
    "curricularface": CurricularFace,
    "adaface": AdaFace,
}

PAIR_LOSSES: dict[str, type[PairLoss]] = {
    "triplet": TripletLoss,
    "quadruplet": QuadrupletLoss,
    "quadruplet_full": QuadrupletFullLoss,
    "eml": EmlLoss,
    "npairs": NpairsLoss,
    "contrastive": ContrastiveLoss,
    "multi_similarity": MultiSimilarityLoss,
    "circle": CircleLoss,
    "supcon": SupConLoss,
    "recall_at_k": RecallAtKLoss,
}

CENTERS: dict[str, Callable[..., Centers]] = {"all": AllCenters, "partial": PartialCenters}
TWO_CLASSES = ("bce",)  # losses of one logit


def margin_settings(name: str) -> list[str]:
    """The settings that the margin of an element-wise loss has."""
    return _settings(ELEMENT_LOSSES[name])


def pair_settings(name: str) -> list[str]:
    """The settings that a pair-wise loss has."""
    return _settings(PAIR_LOSSES[name])


def element_loss(
    kind: str | Margin,
    /,
    num_classes: int,
    dim: int,
    *,
    focal_gamma: float = 0.0,
    dropout: float = 0.0,
    centers: str = "all",
    partial_rate: float = 0.1,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    **settings: Any,
) -> ElementLoss:
    """The element-wise loss of a margin, for num_classes classes and embeddings of size dim; may raise UserError.

    kind: a margin of this module, such as ArcMargin(scale=64.0), or its name in ELEMENT_LOSSES with its `settings`.
    centers: which class centres take part in a step, `all` or `partial`; partial_rate: the share that is drawn.
    focal_gamma, dropout, label_smoothing and class_weights are those of ElementLoss, for any margin.
    settings: those of any margin's constructor; None leaves the margin its own default. One that this margin does not
    have (`margin_settings`) is not looked at; one that no margin has is a UserError, and so is any beside a Margin.
    """
    margin = _built(ELEMENT_LOSSES, kind, settings) if isinstance(kind, str) else kind
    if settings and margin is kind:
        raise UserError(f"{', '.join(settings)} must be said to {type(margin).__name__}(...) itself, not beside it.")
    made: Centers
    check_choice("centers", centers, CENTERS)
    if isinstance(margin, Bce):
        _check_one_logit(num_classes, centers)
        made = ReferenceCenters(num_classes, dim)
    else:
        sampled = {"rate": partial_rate} if centers == "partial" else {}
        made = CENTERS[centers](num_classes, dim, bias=not margin.normalized, **sampled)
    return ElementLoss(made, margin, focal_gamma, dropout, label_smoothing, class_weights)


def _check_one_logit(num_classes: int, centers: str) -> None:
    if TWO_CLASSES and num_classes != 2:
        raise UserError(f"--loss_name=bce is for two classes; there are {num_classes}. Take softmax.")
    if centers != "all":
        raise UserError(f"--loss_name=bce needs --centers=all; got {centers}. Take softmax.")


def pool_loss(
    name: str,
    num_classes: int,
    dim: int,
    slots: int,
    *,
    focal_gamma: float = 0.0,
    dropout: float = 0.0,
    **settings: Any,
) -> PoolLoss:
    """The element-wise loss of that name against a pool of so many slots; the rest as in element_loss."""
    margin = _built(ELEMENT_LOSSES, name, settings)
    check_range("--pool_size", slots, 1)
    return PoolLoss(num_classes, PoolCenters(slots, dim), margin, focal_gamma, dropout)


def pair_loss(name: str, **settings: Any) -> PairLoss:
    """The pair-wise loss of that name; may raise UserError. settings: as of `element_loss`, see `pair_settings`."""
    return _built(PAIR_LOSSES, name, settings)


Kind = TypeVar("Kind", bound=nn.Layer)


def _settings(kind: type[nn.Layer]) -> list[str]:
    return list(inspect.signature(kind).parameters)


def _built(kinds: dict[str, type[Kind]], name: str, settings: dict[str, Any]) -> Kind:
    """The entry of a table, told those of the settings that it has and that are not None."""
    kind = kinds[check_choice("loss_name", name, kinds)]
    known = sorted({setting for each in kinds.values() for setting in _settings(each)})
    for setting in settings:
        check_choice("setting of a loss", setting, known)
    told = {setting: settings[setting] for setting in _settings(kind) if settings.get(setting) is not None}
    made: Kind = kind(**told)
    return made
