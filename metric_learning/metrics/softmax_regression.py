"""Multinomial logistic regression with an L2 penalty, by L-BFGS: full batch, float64, the same bits every time."""

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]

# The bias has a penalty of its own, too small to be felt: with it the optimum is one point, also where a class has no
# picture, whose bias would else fall for ever.
BIAS_PENALTY = 1e-6
PAIRS = 20  # past steps that L-BFGS remembers
MOST_STEPS = 1000
TOLERANCE = 1e-6  # of the largest entry of the gradient
SUFFICIENT = 1e-4  # the share of the promised decrease that a step must bring (Armijo's rule)


def softmax(logits: Floats) -> Floats:
    """logits (N, C) -> probabilities (N, C), without overflow."""
    found: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    return found


def objective(features: Floats, labels: NDArray[np.int64], classes: int, penalty: float) -> Objective:
    """features (N, D), labels (N,) -> the function W (D + 1, C) -> (loss, gradient of W's shape).

    loss = mean of -ln softmax(x W[:D] + W[D])[label] + penalty / 2 |W[:D]|^2 + BIAS_PENALTY / 2 |W[D]|^2 (Bishop,
    Pattern Recognition and Machine Learning, 4.108, with 4.109 the gradient, and the penalty of 3.27).
    """
    count = len(features)
    rows = np.arange(count)
    strengths = np.append(np.full(features.shape[1], penalty), BIAS_PENALTY)[:, None]

    def evaluate(weights: Floats) -> tuple[float, Floats]:
        logits = features @ weights[:-1] + weights[-1]
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[rows, labels]
        errors = np.exp(logits, out=logits)
        totals = errors.sum(axis=1)
        loss = float(np.mean(np.log(totals) - chosen)) + float(np.sum(strengths * weights**2)) / 2
        errors /= totals[:, None]
        errors[rows, labels] -= 1.0
        gradient = np.vstack([features.T @ errors, errors.sum(axis=0)]) / count + strengths * weights
        return loss, gradient

    return evaluate


def fit(
    features: Floats,
    labels: NDArray[np.int64],
    classes: int,
    penalty: float,
    start: Floats | None = None,
    tolerance: float = TOLERANCE,
) -> Floats:
    """features (N, D), labels (N,) -> the W (D + 1, C) of the lowest `objective`, the last row being the bias."""
    if start is None:
        start = np.zeros((features.shape[1] + 1, classes))
    # The Hessian of the mean loss is at most the Gram matrix of [x, 1] over 2 N (Böhning 1992, AISM 44, p. 197), and
    # that at most its trace: a first step by this bound can't overshoot.
    bound = 0.5 * (1.0 + float(np.sum(features * features)) / len(features)) + max(penalty, BIAS_PENALTY)
    return minimum(objective(features, labels, classes, penalty), start, 1.0 / bound, tolerance)


def minimum(function: Objective, start: Floats, first_step: float, tolerance: float = TOLERANCE) -> Floats:
    """Where a smooth, strictly convex function is lowest: to a gradient with no entry above tolerance, if it can.

    L-BFGS (Nocedal and Wright, Numerical Optimization, algorithms 7.4 and 7.5) with halved steps. It ends after
    MOST_STEPS, and where rounding leaves nothing to gain.
    """
    at, (value, gradient) = start, function(start)
    memory: deque[tuple[Floats, Floats, float]] = deque(maxlen=PAIRS)
    for _ in range(MOST_STEPS):
        if np.abs(gradient).max() <= tolerance:
            break
        direction = _direction(gradient, memory, first_step)
        slope = float(np.vdot(gradient, direction))
        step = 1.0
        while True:
            there = at + step * direction
            new_value, new_gradient = function(there)
            if new_value <= value + SUFFICIENT * step * slope:
                break
            step /= 2
            if step < 1e-12:
                return at
        moved, turned = there - at, new_gradient - gradient
        curvature = float(np.vdot(moved, turned))
        if curvature > 0.0:
            memory.append((moved, turned, curvature))
        at, value, gradient = there, new_value, new_gradient
    return at


def _direction(gradient: Floats, memory: deque[tuple[Floats, Floats, float]], first_step: float) -> Floats:
    """-H gradient, H being the inverse Hessian as the remembered steps show it: the two-loop recursion."""
    left, shares = gradient.copy(), []
    for moved, turned, curvature in reversed(memory):
        shares.append(float(np.vdot(moved, left)) / curvature)
        left -= shares[-1] * turned
    if memory:
        _, turned, curvature = memory[-1]
        first_step = curvature / float(np.vdot(turned, turned))
    left *= first_step
    for moved, turned, curvature in memory:
        left += (shares.pop() - float(np.vdot(turned, left)) / curvature) * moved
    return -left
