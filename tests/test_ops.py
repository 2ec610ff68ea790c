import numpy as np
import paddle
import pytest

from metric_learning.ops import as_array, cosines, l2_normalize, norms_of, sine_of, softmax_entropy, squared_distances


def gradient_of(function, values):
    tensor = paddle.to_tensor(np.asarray(values, dtype=np.float32))
    tensor.stop_gradient = False
    result = function(tensor)
    result.sum().backward()
    return result.numpy(), tensor.grad.numpy()


def test_zero_vector_stays_zero_with_zero_gradient():
    for function in (l2_normalize, norms_of):
        value, gradient = gradient_of(function, [[0.0, 0.0, 0.0]])
        assert not value.any()
        assert not gradient.any()


@pytest.mark.parametrize("length", [1e-30, 1e-13, 1e-6, 1.0, 1e6])
def test_gradients_are_finite_for_any_length(length):
    for function in (l2_normalize, norms_of):
        assert np.isfinite(gradient_of(function, [[length, -length]])[1]).all()


def test_normalize_agrees_with_the_definition():
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    norm = np.sqrt((x**2).sum(axis=1, keepdims=True))
    value, gradient = gradient_of(lambda t: l2_normalize(t)[:, 0], x)
    np.testing.assert_allclose(value, (x / norm)[:, 0], rtol=1e-6)
    expected = np.eye(3)[0] / norm - x * x[:, :1] / norm**3
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    value, gradient = gradient_of(norms_of, x)
    np.testing.assert_allclose(value, norm[:, 0], rtol=1e-6)
    np.testing.assert_allclose(gradient, x / norm, rtol=1e-5)


@pytest.mark.parametrize("cosine", [-1.0, 1.0, 1.0000001, -1.0000001])
def test_sine_is_flat_where_it_vanishes(cosine):
    value, gradient = gradient_of(sine_of, [cosine])
    assert value == 0.0
    assert gradient == 0.0


def test_sine_agrees_with_the_definition():
    angle = np.linspace(0.1, 3.0, 7)
    value, gradient = gradient_of(sine_of, np.cos(angle))
    np.testing.assert_allclose(value, np.sin(angle), rtol=1e-5)
    np.testing.assert_allclose(gradient, -1.0 / np.tan(angle), rtol=1e-4)


def test_squared_distances_agree_with_the_definition():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(4, 3)), generator.normal(size=(5, 3))
    d = squared_distances(paddle.to_tensor(x.astype("float32")), paddle.to_tensor(y.astype("float32")))
    np.testing.assert_allclose(d.numpy(), ((x[:, None] - y[None]) ** 2).sum(axis=2), rtol=1e-4, atol=1e-5)


def test_squared_distances_have_the_exact_gradient_though_the_middle_is_taken_off():
    generator = np.random.default_rng(0)
    x, weight = generator.normal(size=(4, 3)) + 5.0, generator.normal(size=(4, 4))
    _, gradient = gradient_of(lambda t: squared_distances(t, t) * paddle.to_tensor(weight.astype("float32")), x)
    both = weight + weight.T
    expected = 2.0 * (both.sum(axis=1, keepdims=True) * x - both @ x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


def test_squared_distances_of_points_far_from_the_origin_keep_their_digits():
    near = np.random.default_rng(0).normal(size=(4, 3))
    far = paddle.to_tensor((near + 1000.0).astype("float32"))
    expected = ((near[:, None] - near[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared_distances(far, far).numpy(), expected, atol=2e-3)


def test_coinciding_points_have_distance_and_gradient_zero():
    value, gradient = gradient_of(lambda t: squared_distances(t, t), np.full((3, 2), 7.3))
    assert not value.any()
    assert not gradient.any()


def test_squared_distances_are_never_negative():
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(60, 64)).astype("float32"))
    assert squared_distances(x, x).numpy().min() >= 0.0


def test_half_precision_is_computed_in_float32():
    x = paddle.to_tensor([[300.0, 400.0]]).astype("float16")
    for result in (norms_of(x), l2_normalize(x), squared_distances(x, -x)):
        assert result.dtype == paddle.float32
    assert norms_of(x).item() == 500.0


def test_entropy_is_exact_far_beyond_the_64_that_paddle_stops_at():
    logits = [[0.0, -50.0, -100.0, -3000.0]]
    expected = [[0.0], [50.0], [100.0], [3000.0]]
    for column, entropy in enumerate(expected):
        value, gradient = gradient_of(lambda t, column=column: softmax_entropy(t, t[:, column]), logits)
        assert value.tolist() == entropy
        share = np.eye(4)[0] - np.eye(4)[column]
        np.testing.assert_allclose(gradient[0], share, atol=1e-6)


def test_entropy_agrees_with_the_definition():
    logits = np.random.default_rng(0).normal(size=(5, 3)) * 3.0 + 100.0
    share = np.exp(logits - 100.0) / np.exp(logits - 100.0).sum(axis=1, keepdims=True)
    value, gradient = gradient_of(lambda t: softmax_entropy(t, t[:, 1]), logits)
    np.testing.assert_allclose(value, -np.log(share[:, 1]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, share - np.eye(3)[1], rtol=1e-4, atol=1e-5)


def test_cosines_are_those_of_the_normalised_rows_with_their_gradients():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40_000, 3)).astype(np.float32) * rng.uniform(0.1, 9, (40_000, 1)).astype(np.float32)
    rows[7] = 0.0
    x, upstream = l2_normalize(paddle.randn([4, 3])), paddle.randn([4, 40_000])
    found = []
    for way in (cosines, lambda a, b: paddle.matmul(a, l2_normalize(b), transpose_y=True)):
        a, b = x.detach(), paddle.to_tensor(rows)
        a.stop_gradient = b.stop_gradient = False
        value = way(a, b)
        (value * upstream).sum().backward()
        found.append((value.numpy(), a.grad.numpy(), b.grad.numpy()))
    for ours, plain in zip(*found, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=2e-4)
    assert not found[0][0][:, 7].any() and not found[0][2][7].any()


@pytest.mark.parametrize("fixed", [0, 1])
def test_cosines_have_no_gradient_where_none_is_wanted(fixed):
    pair = [paddle.randn([2, 3]), paddle.randn([5, 3])]
    pair[1 - fixed].stop_gradient = False
    cosines(*pair).sum().backward()
    assert pair[fixed].grad is None and pair[1 - fixed].grad is not None


def test_an_array_of_a_tensor_is_its_memory_and_keeps_it_alive():
    x = paddle.arange(6, dtype="float32").reshape([2, 3])
    array = as_array(x)
    assert array.ctypes.data == x.data_ptr() and not array.flags.writeable
    del x
    paddle.ones([2, 3])
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    turned = as_array(paddle.arange(6, dtype="float32").reshape([2, 3]).t())
    assert turned.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert as_array(paddle.zeros([0, 3])).shape == (0, 3)
    assert as_array(paddle.arange(2)).tolist() == [0, 1]
