"""Batches, and ways to run a loss, that the tests of all losses share."""

import numpy as np
import paddle

# Unequal class counts, a singleton (7), an odd batch, no order, labels that do not start at 0.
UNEQUAL = [4, 1, 4, 7, 1, 4, 2, 2, 1, 4, 2]
# Rows in order, for mining `given`: anchor, positive, negative (and a second negative).
TRIPLES = [0, 0, 1, 2, 2, 0, 1, 1, 2]
QUADRUPLES = [0, 0, 1, 2, 2, 2, 3, 0, 1, 1, 0, 3]


def embeddings(count, dim=5, seed=0, spread=1.0):
    """Random embeddings (count, dim) in float64 with values that float32 holds exactly."""
    return (np.random.default_rng(seed).normal(size=(count, dim)) * spread).astype(np.float32).astype(np.float64)


def run(loss, x, labels, dtype="float32"):
    """Value and gradient (float64, B x D) of a loss on a batch."""
    tensor = paddle.to_tensor(np.asarray(x, dtype=np.float32)).astype(dtype)
    tensor.stop_gradient = False
    value = loss(tensor, paddle.to_tensor(np.asarray(labels, dtype=np.int64)))
    assert list(value.shape) == [] and value.dtype == paddle.float32
    value.backward()
    assert tensor.grad.dtype == tensor.dtype
    return value.item(), tensor.grad.astype("float32").numpy().astype(np.float64)


def numeric_gradient(naive, x, step=1e-6):
    """Central differences of a naive twin, a function of a list of lists, at x (B, D) in float64."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (naive(up.tolist()) - naive(down.tolist())) / (2 * step)
    return gradient


def check_against(loss, naive, x, labels, tolerance=1e-4):
    """Value and gradient of the loss equal those of its twin, a function of (x, labels)."""
    value, gradient = run(loss, x, labels)
    labels = list(labels)
    expected = naive(x.tolist(), labels)
    assert abs(value - expected) <= tolerance * max(1.0, abs(expected)), (value, expected)
    slope = numeric_gradient(lambda moved: naive(moved, labels), x)
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=tolerance * max(1.0, np.abs(slope).max()))
