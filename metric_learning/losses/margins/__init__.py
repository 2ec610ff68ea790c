"""Margins: what is done to the cosines (or, for softmax, to the plain products) before the cross-entropy.

B batch, C' classes that take part (all, or a sample of them), s scale, m margin, c_j cosine to class j, theta_j its
angle, y true class, x embedding.
"""

from metric_learning.losses.margins.adaface import AdaFace
from metric_learning.losses.margins.amsoftmax import AmSoftmax
from metric_learning.losses.margins.arcmargin import ArcMargin
from metric_learning.losses.margins.base import Logits, Margin
from metric_learning.losses.margins.bce import Bce
from metric_learning.losses.margins.curricularface import CurricularFace
from metric_learning.losses.margins.magface import MagFace
from metric_learning.losses.margins.softmax import Softmax
from metric_learning.losses.margins.sphereface import SphereFace

__all__ = [
    "AdaFace",
    "AmSoftmax",
    "ArcMargin",
    "Bce",
    "CurricularFace",
    "Logits",
    "MagFace",
    "Margin",
    "Softmax",
    "SphereFace",
]
