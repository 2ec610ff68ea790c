"""The slow twin of every element-wise loss, with the centres and the buffers of the one under test."""

import math
from unittest import mock

import naive_losses as naive
import numpy as np
import paddle

from metric_learning import losses
from metric_learning.losses import element_loss

# Settings that make every branch of a margin matter for the embeddings of `loss_cases`, whose norms are 1 to 4.
CASES = [
    ("softmax", {}),
    ("bce", {}),
    ("arcmargin", {}),
    ("arcmargin", {"scale": 8.0, "margin": 0.5}),
    ("arcmargin", {"scale": 8.0, "margin": 0.5, "easy_margin": True}),
    ("arcmargin", {"scale": 5.0, "margin": 1.5}),
    ("amsoftmax", {}),
    ("amsoftmax", {"scale": 8.0, "margin": 0.2, "easy_margin": True}),
    ("sphereface", {}),
    ("sphereface", {"scale": 6.0, "lambda_base": 0.0, "lambda_min": 0.0}),
    ("sphereface", {"scale": 6.0, "margin": 1.35}),
    ("sphereface", {"scale": 6.0, "margin": 3.0, "lambda_base": 20.0, "lambda_gamma": 0.5, "lambda_min": 0.1}),
    ("magface", {}),
    ("magface", {"scale": 8.0, "l_a": 1.5, "u_a": 2.5, "lambda_g": 2.0}),
    ("magface", {"scale": 8.0, "l_a": 1.0, "u_a": 4.0, "l_margin": 0.1, "u_margin": 1.5, "easy_margin": True}),
    ("curricularface", {}),
    ("curricularface", {"scale": 8.0, "margin": 1.2, "ema_rate": 0.3}),
    ("adaface", {}),
    ("adaface", {"scale": 8.0, "margin": 0.7, "h": 0.8, "ema_rate": 0.2}),
]
# Buffers of a loss that has trained a while: none of them at its start, and z of adaface on both sides of its ends.
TRAINED = {"sphereface": {"t": 9}, "curricularface": {"t": 0.4}, "adaface": {"mean": 2.2, "std": 0.4}}


def built(name, classes=4, dim=5, seed=0, trained=False, **settings):
    """Those of two classes take any number here: the sweeps then see them too, and the first logit is 0."""
    paddle.seed(seed)
    with mock.patch.object(losses, "TWO_CLASSES", ()):
        loss = element_loss(name, classes, dim, **settings)
    for buffer, value in TRAINED.get(name, {}).items() if trained else ():
        tensor = getattr(loss.margin, buffer)
        tensor.set_value(paddle.full([1], value, tensor.dtype))
    return loss


def twin(name, loss, x, labels, gamma=0.0, extra=None, smoothing=0.0, weights=None, **settings):
    """The naive twin of a loss in training mode that is about to see (x, labels), as a function of x.

    What has no gradient (t, z) is computed here once, from that batch and from the buffers before it.
    """
    weight = loss.centers.weight.numpy().astype(np.float64).tolist()
    known = _known(name, loss, x, labels, weight, settings)
    logits = getattr(naive, f"{name}_logits")
    bias = getattr(loss.centers, "bias", None)
    alike = settings if bias is None else {"bias": bias.numpy().astype(np.float64).tolist()}
    own = {k: v for k, v in alike.items() if k not in ("h", "ema_rate", "lambda_g") and "lambda_" not in k}
    penalty = {k: v for k, v in settings.items() if k in ("l_a", "u_a", "lambda_g")}

    def value(moved):
        rows = []
        for i, (v, y) in enumerate(zip(moved, labels, strict=True)):
            beside = known[i] | ({} if extra is None else {"extra": extra[i]})
            rows.append(logits(v, y, weight, **own, **beside))
        added = [naive.magface_penalty(v, **penalty) if name == "magface" else 0.0 for v in moved]
        return naive.weighted_mean(naive.cross_entropies(rows, labels, gamma, smoothing), added, labels, weights)

    return value


def _known(name, loss, x, labels, weight, settings):
    """What each sample's logits depend on beside the sample: lambda, t or z."""
    buffers = {key: value.item() for key, value in loss.margin.named_buffers()}
    rate = settings.get("ema_rate", 0.01)
    if name == "sphereface":
        steep = settings.get("margin", 4.0) >= 2.0
        base = settings.get("lambda_base", 1000.0 if steep else 0.0)
        least = settings.get("lambda_min", 5.0 if steep else 0.0)
        lam = naive.sphereface_lambda(buffers["t"] + 1, base, settings.get("lambda_gamma", 0.12), least)
        return [{"annealing": lam} for _ in x]
    if name == "curricularface":
        return [{"t": naive.curricularface_t(x, labels, weight, buffers["t"], rate)} for _ in x]
    if name == "adaface":
        average, deviation = naive.adaface_averages(x, buffers["mean"], buffers["std"], rate)
        return [{"z": naive.adaface_z(v, average, deviation, settings.get("h", 0.333))} for v in x]
    return [{} for _ in x]


def at_angle(centre, angle, norm=1.0):
    """An embedding of that norm, at that angle from a centre (D,), in float64."""
    own = centre / np.linalg.norm(centre)
    across = np.zeros_like(own)
    across[np.argmin(np.abs(own))] = 1.0
    across -= (across @ own) * own
    return norm * (math.cos(angle) * own + math.sin(angle) * across / np.linalg.norm(across))
