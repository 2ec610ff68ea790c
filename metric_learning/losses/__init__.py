"""Losses by name.

Element-wise: centres x margin x (focal) cross-entropy. Pair-wise: the samples of a batch against each other.
A new margin or pair loss is a line in one of the two tables below; the sweep tests then cover it.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metric_learning.checks import check_choice
from metric_learning.losses.centers import AllCenters, Centers
from metric_learning.losses.element import ElementLoss
from metric_learning.losses.eml import EmlLoss
from metric_learning.losses.margins import (
    AdaFace,
    AmSoftmax,
    ArcMargin,
    CurricularFace,
    MagFace,
    Margin,
    Softmax,
    SphereFace,
)
from metric_learning.losses.npairs import NpairsLoss
from metric_learning.losses.pairs import PairLoss
from metric_learning.losses.partial_centers import PartialCenters
from metric_learning.losses.quadruplet import QuadrupletFullLoss, QuadrupletLoss
from metric_learning.losses.triplet import TripletLoss

__all__ = [
    "ELEMENT_LOSSES",
    "PAIR_LOSSES",
    "ElementLoss",
    "PairLoss",
    "element_loss",
    "margin_settings",
    "pair_loss",
]


@dataclass(frozen=True)
class PairSettings:
    """What a pair loss may be told; None leaves the loss its own default."""

    margin: float | None = None
    second_margin: float | None = None
    mining: str | None = None
    soft_margin: bool = False
    beta: float | None = None
    npairs_reg_lambda: float = 0.01


def _given(**settings: Any) -> dict[str, Any]:
    """The settings that are not None."""
    return {name: value for name, value in settings.items() if value is not None}


def margin_settings(name: str) -> list[str]:
    """The settings that the margin of an element-wise loss has."""
    return list(inspect.signature(ELEMENT_LOSSES[name]).parameters)


def _triplet(s: PairSettings) -> PairLoss:
    return TripletLoss(soft_margin=s.soft_margin, **_given(margin=s.margin, mining=s.mining))


def _quadruplet(s: PairSettings) -> PairLoss:
    return QuadrupletLoss(**_given(margin=s.margin))


def _quadruplet_full(s: PairSettings) -> PairLoss:
    return QuadrupletFullLoss(**_given(margin=s.margin, second_margin=s.second_margin, mining=s.mining))


def _eml(s: PairSettings) -> PairLoss:
    return EmlLoss(**_given(beta=s.beta))


def _npairs(s: PairSettings) -> PairLoss:
    return NpairsLoss(s.npairs_reg_lambda)


ELEMENT_LOSSES: dict[str, type[Margin]] = {
    "softmax": Softmax,
    "arcmargin": ArcMargin,
    "amsoftmax": AmSoftmax,
    "sphereface": SphereFace,
    "magface": MagFace,
    "curricularface": CurricularFace,
    "adaface": AdaFace,
}

PAIR_LOSSES: dict[str, Callable[[PairSettings], PairLoss]] = {
    "triplet": _triplet,
    "quadruplet": _quadruplet,
    "quadruplet_full": _quadruplet_full,
    "eml": _eml,
    "npairs": _npairs,
}


CENTERS: dict[str, Callable[..., Centers]] = {"all": AllCenters, "partial": PartialCenters}


def element_loss(
    name: str,
    num_classes: int,
    dim: int,
    *,
    focal_gamma: float = 0.0,
    dropout: float = 0.0,
    centers: str = "all",
    partial_rate: float = 0.1,
    **settings: Any,
) -> ElementLoss:
    """The element-wise loss of that name, for num_classes classes and embeddings of size dim; may raise UserError.

    centers: which class centres take part in a step, `all` or `partial`; partial_rate: the share that is drawn.
    settings: those of any margin's constructor; None leaves the margin its own default. One that this margin does not
    have (`margin_settings`) is not looked at; one that no margin has is a UserError.
    """
    kind = ELEMENT_LOSSES[check_choice("loss_name", name, ELEMENT_LOSSES)]
    known = sorted({setting for loss in ELEMENT_LOSSES for setting in margin_settings(loss)})
    for setting in settings:
        check_choice("setting of a margin", setting, known)
    told = _given(**settings)
    margin = kind(**{setting: told[setting] for setting in margin_settings(name) if setting in told})
    sampled = {"rate": partial_rate} if centers == "partial" else {}
    made = CENTERS[check_choice("centers", centers, CENTERS)](num_classes, dim, bias=not margin.normalized, **sampled)
    return ElementLoss(made, margin, focal_gamma, dropout)


def pair_loss(
    name: str,
    *,
    margin: float | None = None,
    second_margin: float | None = None,
    mining: str | None = None,
    soft_margin: bool = False,
    beta: float | None = None,
    npairs_reg_lambda: float = 0.01,
) -> PairLoss:
    """The pair-wise loss of that name; may raise UserError. A setting that the loss does not have is not looked at."""
    build = PAIR_LOSSES[check_choice("loss_name", name, PAIR_LOSSES)]
    return build(PairSettings(margin, second_margin, mining, soft_margin, beta, npairs_reg_lambda))
