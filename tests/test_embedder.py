"""Backbone + neck, and the file that they travel in."""

import numpy as np
import paddle
import pytest
from small_runs import equal_arrays, images, new_embedder, spec_of

from metric_learning.checks import UserError
from metric_learning.data.transforms import PictureSpec
from metric_learning.embedder import EmbedderSpec, arrays_of, put_arrays, save_embedder, saved_spec
from metric_learning.files import read_tensors, write_tensors

pytestmark = pytest.mark.filterwarnings("ignore:When training")


@pytest.mark.parametrize(("size", "norm", "width"), [(0, False, 16), (7, False, 7), (7, True, 7), (0, True, 16)])
def test_sizes_and_neck(size, norm, width):
    embedder = new_embedder(size=size, norm=norm)
    assert embedder.size == width
    assert embedder(paddle.to_tensor(images(2))).shape == [2, width]
    kinds = [type(layer).__name__ for layer in embedder.neck]
    assert kinds == ["Linear"] * bool(size) + ["BatchNorm1D"] * norm


def test_the_neck_is_a_function_of_the_backbone():
    embedder = new_embedder(size=7)
    embedder.eval()
    given = paddle.to_tensor(images(2))
    linear = embedder.neck[0]
    expected = embedder.backbone(given).numpy() @ linear.weight.numpy() + linear.bias.numpy()
    np.testing.assert_allclose(embedder(given).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_spec_survives_json(tmp_path):
    picture = PictureSpec((1, 33, 44), (0.25,), (0.125,), "BGR", 0.9)
    spec = EmbedderSpec("ResNet34", 5, picture, True)
    assert EmbedderSpec.from_dict(spec.to_dict()) == spec
    write_tensors(tmp_path / "a.safetensors", {"x": np.ones(1)}, {"embedder": spec.to_dict()})
    assert saved_spec(tmp_path / "a.safetensors") == spec


def test_save_and_put_give_the_same_outputs(tmp_path):
    one, other = new_embedder(0, norm=True), new_embedder(1, norm=True)
    one(paddle.to_tensor(images(4)))  # moves the running statistics
    save_embedder(tmp_path / "a.safetensors", one, {"step": 3})
    arrays, metadata = read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"embedder": one.spec.to_dict(), "about": {"step": 3}}
    put_arrays(other, arrays, "a")
    equal_arrays(one.arrays(), other.arrays())
    one.eval()
    other.eval()
    given = paddle.to_tensor(images(2))
    np.testing.assert_array_equal(one(given).numpy(), other(given).numpy())


def test_put_arrays_leaves_types_and_refuses_other_shapes():
    layer = paddle.nn.Linear(2, 3)
    layer.register_buffer("count", paddle.to_tensor(np.array([1, 2], np.int64)))
    arrays = arrays_of(layer)
    put_arrays(layer, arrays | {"count": np.array([3, 4]), "weight": np.ones((2, 3)), "more": np.ones(1)}, "a")
    assert layer.count.dtype == paddle.int64 and layer.count.tolist() == [3, 4]
    assert layer.weight.dtype == paddle.float32 and layer.weight.numpy().sum() == 6
    with pytest.raises(UserError, match=r"^a are weights of another model: bias is missing"):
        put_arrays(layer, {"weight": arrays["weight"], "count": arrays["count"]}, "a")
    with pytest.raises(UserError, match=r"^a are weights of another .*weight is \[3, 2\], not \[2, 3\]"):
        put_arrays(layer, arrays | {"weight": np.ones((3, 2))}, "a")
    assert layer.weight.numpy().sum() == 6


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_written(tmp_path, bad):
    embedder = new_embedder()
    save_embedder(tmp_path / "a.safetensors", embedder, {})
    before = (tmp_path / "a.safetensors").read_bytes()
    weight = embedder.arrays()["neck.0.weight"]
    weight[0, 0] = bad
    embedder.neck[0].weight.set_value(paddle.to_tensor(weight))
    with pytest.raises(UserError, match=r"^neck\.0\.weight is no longer finite, so .*a\.safetensors is not written"):
        save_embedder(tmp_path / "a.safetensors", embedder, {})
    assert (tmp_path / "a.safetensors").read_bytes() == before


def test_weights_from_elsewhere_have_no_spec(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"x": np.ones(1)}, {"format": "pt", "embedder": "a word"})
    assert saved_spec(tmp_path / "a.safetensors") is None
    assert saved_spec(tmp_path / "a.pdparams") is None


@pytest.mark.parametrize("damage", [{"picture": 3}, {"embedding_size": "many"}, {"picture": {"shape": [3]}}, None])
def test_a_spec_that_is_not_understood_is_one_line(tmp_path, damage):
    saved = {} if damage is None else spec_of().to_dict() | damage
    write_tensors(tmp_path / "a.safetensors", {"x": np.ones(1)}, {"embedder": saved})
    with pytest.raises(UserError) as caught:
        saved_spec(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)
