"""Angular distillation against a plain float64 twin; the gradient goes to the student alone."""

import numpy as np
import paddle
import pytest

from metric_learning.losses.distill import angular_distillation


def naive(student, teacher) -> float:
    total = 0.0
    for s, t in zip(student.astype(np.float64), teacher.astype(np.float64), strict=True):
        total += sum((a / np.sqrt(t @ t) - b / np.sqrt(s @ s)) ** 2 for a, b in zip(t, s, strict=True))
    return total / len(student)


def vectors(seed: int, count: int = 6, size: int = 5) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, size)) * 3).astype(np.float32)


def test_it_equals_the_twin():
    s, t = vectors(0), vectors(1)
    assert angular_distillation(paddle.to_tensor(s), paddle.to_tensor(t)).item() == pytest.approx(naive(s, t), rel=1e-5)


@pytest.mark.parametrize(("factor", "expected"), [(2.5, 0.0), (-0.5, 4.0)])
def test_only_the_direction_counts(factor, expected):
    s = paddle.to_tensor(vectors(0))
    assert angular_distillation(s, s * factor).item() == pytest.approx(expected, abs=1e-5)


def test_the_gradient_reaches_the_student_only_and_is_right():
    s, t = vectors(0), vectors(1)
    student, teacher = (paddle.to_tensor(x, stop_gradient=False) for x in (s, t))
    angular_distillation(student, teacher).backward()
    assert teacher.grad is None
    step, found = 1e-6, student.grad.numpy()
    assert np.abs(found).max() > 1e-3
    for place in np.ndindex(s.shape):
        there, back = s.astype(np.float64), s.astype(np.float64)
        there[place] += step
        back[place] -= step
        slope = sum(sign * _naive64(x, t) for sign, x in ((1, there), (-1, back))) / (2 * step)
        assert found[place] == pytest.approx(slope, abs=1e-4)


def _naive64(s, t) -> float:
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (s, t.astype(np.float64))]
    return float(((unit[1] - unit[0]) ** 2).sum(axis=1).mean())


def test_an_embedding_of_length_0_has_no_gradient():
    student = paddle.to_tensor(np.zeros((2, 3), np.float32), stop_gradient=False)
    loss = angular_distillation(student, paddle.to_tensor(vectors(1, 2, 3)))
    loss.backward()
    assert loss.item() == pytest.approx(1.0) and not student.grad.numpy().any()
