"""PyTorch's files without PyTorch: what is read, and what runs nothing."""

import contextlib
import os
import pickle
import resource
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from torch_file import WRITERS, Call, Global, Raw, Storage, state_dict, tensor, tensor_of, write_pickles, write_zip

from metric_learning.checks import UserError
from metric_learning.torch_file import read_torch

both = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def values(shape=(2, 3), dtype="f4") -> np.ndarray:
    return np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)


def refused(path) -> str:
    with pytest.raises(UserError) as caught:
        read_torch(path)
    said = str(caught.value)
    assert "\n" not in said and str(path) in said
    return said


@both
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?"])
def test_every_type_and_byte_order(tmp_path, write, order, dtype):
    arrays = {"a": values(dtype=dtype), "scalar": values((), dtype), "empty": values((0, 3), dtype)}
    write(tmp_path / "a.pt", state_dict(arrays), order)
    found = read_torch(tmp_path / "a.pt")
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype and found[name].dtype.isnative and found[name].shape == value.shape


@both
@pytest.mark.parametrize("order", "<>")
def test_bfloat16_becomes_float32(tmp_path, write, order):
    raw = np.array([0x3F80, 0xC020, 0x0000, 0x7F80], "u2")
    storage = Storage("0", raw, "BFloat16")
    write(tmp_path / "a.pt", {"x": tensor(storage, 1, (3,), (1,)), "y": tensor(storage, 0, (4,), (1,))}, order)
    found = read_torch(tmp_path / "a.pt")
    np.testing.assert_array_equal(found["x"], np.array([-2.5, 0.0, np.inf], "f4"))
    assert found["x"].dtype == np.float32


@both
def test_views_on_one_storage(tmp_path, write):
    numbers = values((24,))
    storage = Storage("7", numbers)
    content = {
        "part": tensor(storage, 4, (2, 3), (3, 1)),
        "transposed": tensor(storage, 0, (3, 2), (1, 3)),
        "steps": tensor(storage, 1, (4,), (6,)),
        "expanded": tensor(storage, 5, (3, 2), (0, 1)),
        "whole": tensor(storage, 0, (24,), (1,), parameter=True),
    }
    write(tmp_path / "a.pt", content)
    found = read_torch(tmp_path / "a.pt")
    np.testing.assert_array_equal(found["part"], numbers[4:10].reshape(2, 3))
    np.testing.assert_array_equal(found["transposed"], numbers[:6].reshape(2, 3).T)
    np.testing.assert_array_equal(found["steps"], numbers[1::6])
    np.testing.assert_array_equal(found["expanded"], [numbers[5:7]] * 3)
    np.testing.assert_array_equal(found["whole"], numbers)


@both
@pytest.mark.parametrize("names", [(), ("state_dict",), ("model",), ("net",), ("model", "state_dict")])
@pytest.mark.parametrize("parameter", [False, True])
def test_nested_state_dicts_beside_an_optimizer(tmp_path, write, names, parameter):
    content = state_dict({"module.a": values(), "module.b": values((4,))}, parameter)
    for name in names:
        momentum = tensor_of(values((5,), "f8"), "momentum")
        content = {"epoch": 3, name: content, "optimizer": {"state": {0: {"momentum_buffer": momentum}}}, "best": 0.5}
        content["best_acc1"] = tensor_of(values((1,), "f8"), f"best of {name}")
    write(tmp_path / "a.pth", content)
    found = read_torch(tmp_path / "a.pth")
    assert found.keys() == {"module.a", "module.b"}
    np.testing.assert_array_equal(found["module.a"], values())


# ---- strangers


def hostile(mark: str) -> dict[str, object]:
    """Contents that would write the file `mark`, take all memory, or read memory that is not theirs."""
    good, command = Storage("0", values((4,))), f"touch {mark}"
    fine = tensor(good, 0, (4,), (1,))
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    rest = (False, OrderedDict())
    return {
        "system": {"x": Call(Global("os", "system"), command)},
        "posix": {"x": Call(Global("posix", "system"), command)},
        "eval": {"x": Call(Global("builtins", "eval"), f"open({mark!r}, 'w')")},
        "exec of python 2": {"x": Call(Global("__builtin__", "exec"), f"open({mark!r}, 'w')")},
        "getattr": {"x": Call(Global("builtins", "getattr"), good, "key")},
        "import": {"x": Call(Global("builtins", "__import__"), "antigravity")},
        "partial": {"x": Call(Global("functools", "partial"), 1)},
        "torch.load": {"x": Call(Global("torch", "load"), mark)},
        "dotted": {"x": Call(Global("torch._utils", "_rebuild_tensor_v2.__globals__"), 1)},
        "os of torch": {"x": Call(Global("torch.serialization", "os.system"), command)},
        "numpy": {"x": Call(Global("numpy.core.multiarray", "_reconstruct"), 1)},
        "a whole module": Call(Global("torch.nn.modules.linear", "Linear")),
        "its own class": Call(Global("mobilefacenet", "MobileFaceNet")),
        "instance": Raw(b"(U" + bytes([len(command)]) + command.encode() + b"ios\nsystem\n"),
        "object": Raw(b"(cos\nsystem\nU" + bytes([len(command)]) + command.encode() + b"o"),
        "new object": Raw(b"ctorch\nFloatStorage\n)\x81"),
        "a storage type called": {"x": Call(Global("torch", "FloatStorage"), 10)},
        "attribute of a storage type": {"x": fine, "y": Raw(b"ctorch\nFloatStorage\nN}U\x05dtypeU\x02f8s\x86b")},
        "attribute of a function": {"x": fine, "y": Raw(b"ctorch._utils\n_rebuild_tensor_v2\n}U\x08__func__K\x01sb")},
        "extension": Raw(b"\x82\x01"),
        "memo far out": Raw(b"}r\xff\xff\xff\x0f"),
        "text memo far out": Raw(b"}p2000000000\n"),
        "huge bytes": Raw(b"\x8e" + (1 << 40).to_bytes(8, "little")),
        "persistent text": {"x": Raw(b"U\x01aQ")},
        "persistent number": {"x": Raw(b"K\x01Q")},
        "persistent short": {"x": Raw(b"(U\x07storagetQ")},
        "persistent module": {"x": Raw(b"(U\x06moduleK\x01U\x01aU\x01btQ")},
        "storage of no type": {"x": Raw(b"(U\x07storageU\x01fU\x010U\x03cpuK\x04tQ")},
        "storage with a number for its name": {"x": Raw(b"(U\x07storagectorch\nFloatStorage\nK\x00U\x03cpuK\x04tQ")},
        "storage says more": {"x": tensor(Storage("0", values((4,)), says=400), 0, (400,), (1,))},
        "storage says less": {"x": tensor(Storage("0", values((4,)), says=2), 0, (2,), (1,))},
        "storage says below zero": {"x": tensor(Storage("0", values((4,)), says=-1), 0, (4,), (1,))},
        "storage says a text": {"x": tensor(Storage("0", values((4,)), says="4"), 0, (4,), (1,))},
        "beyond its storage": {"x": tensor(good, 0, (5,), (1,))},
        "offset beyond": {"x": tensor(good, 4, (1,), (1,))},
        "strides beyond": {"x": tensor(good, 0, (2, 2), (3, 1))},
        "offset below": {"x": tensor(good, -1, (1,), (1,))},
        "stride below": {"x": tensor(good, 3, (4,), (-1,))},
        "shape below": {"x": tensor(good, 0, (-4,), (1,))},
        "no strides": {"x": tensor(good, 0, (4,), ())},
        "a text for an offset": {"x": tensor(good, "0", (4,), (1,))},
        "true for an offset": {"x": tensor(good, True, (1,), (1,))},
        "lists for shapes": {"x": tensor(good, 0, [4], [1])},
        "expanded without end": {"x": tensor(good, 0, (2**40,), (0,))},
        "sides that overflow": {"x": tensor(good, 0, (2**47, 2**47), (2**47, 2**47))},
        "many sides": {"x": tensor(good, 0, (1,) * 100, (1,) * 100)},
        "tensor of no storage": {"x": Call(rebuild, 1, 0, (1,), (1,), *rest)},
        "tensor of nothing": {"x": Call(rebuild)},
        "parameter of no tensor": {"x": Call(Global("torch._utils", "_rebuild_parameter"), 1, True, OrderedDict())},
        "quantized": {"x": Call(Global("torch._utils", "_rebuild_qtensor"), good)},
        "complex": {"x": tensor(Storage("0", values((4,)), "ComplexFloat"), 0, (4,), (1,))},
        "a list": [fine],
        "a tensor": fine,
        "a number": 3,
        "nothing in it": {},
        "no tensors": {"state_dict": {"epoch": 1}},
    }


@both
@pytest.mark.parametrize("name", hostile(""))
def test_hostile_contents_are_refused_and_run_nothing(tmp_path, write, name):
    mark = tmp_path / "ran"
    write(tmp_path / "a.pt", hostile(str(mark))[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path / "a.pt")
    assert not mark.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@both
def test_refusals_name_what_was_asked_for_and_a_remedy(tmp_path, write):
    write(tmp_path / "a.pt", Call(Global("mobilefacenet", "MobileFaceNet")))
    said = refused(tmp_path / "a.pt")
    assert "mobilefacenet.MobileFaceNet" in said and "torch.save(model.state_dict()" in said


@both
def test_a_hostile_file_leaves_no_trace_in_the_reader(tmp_path, write):
    for content in hostile(str(tmp_path / "ran")).values():
        write(tmp_path / "a.pt", content)
        with pytest.raises(UserError):
            read_torch(tmp_path / "a.pt")
    write(tmp_path / "b.pt", state_dict({"x": values()}))
    np.testing.assert_array_equal(read_torch(tmp_path / "b.pt")["x"], values())


def test_pickles_that_are_no_file_of_torch(tmp_path):
    mark = tmp_path / "ran"

    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {mark}",)

    for protocol in range(6):
        (tmp_path / "a.pt").write_bytes(pickle.dumps(Runs(), protocol))
        refused(tmp_path / "a.pt")
        (tmp_path / "a.pt").write_bytes(pickle.dumps({"x": 1}, protocol))
        refused(tmp_path / "a.pt")
    assert not mark.exists()


def test_archives_that_are_not_what_torch_writes(tmp_path):
    path, good = tmp_path / "a.pt", state_dict({"x": np.zeros(1000, "f4")})
    write_zip(path, good, compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(path)
    write_zip(path, good, extra={"other/data.pkl": b"N."})
    refused(path)
    write_zip(path, good, drop=("0",))
    assert "'0' is missing" in refused(path)
    write_zip(path, good, extra={"weights/code/__torch__.py": b""})
    assert "TorchScript" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../data.pkl/x", b"")
    assert "no data.pkl" in refused(path)
    secret = Storage("../../../etc/passwd", values((4,)))
    write_zip(path, {"x": tensor(secret, 0, (4,), (1,))})
    np.testing.assert_array_equal(read_torch(path)["x"], values((4,)))  # a name in the archive, never a path


def test_an_archive_that_lies_about_its_sizes(tmp_path):
    path = tmp_path / "a.pt"
    write_zip(path, state_dict({"x": values((50,))}))
    whole = path.read_bytes()
    place = whole.index(b"PK\x01\x02", 0)
    for start in range(place, len(whole) - 46):
        if whole[start : start + 4] == b"PK\x01\x02":  # both sizes in the central directory
            lying = whole[: start + 20] + (2**31).to_bytes(4, "little") * 2 + whole[start + 28 :]
            path.write_bytes(lying)
            refused(path)


@both
def test_every_truncation_is_refused(tmp_path, write):
    write(tmp_path / "a.pt", state_dict({"a": values(), "b": values((2,))}))
    whole = (tmp_path / "a.pt").read_bytes()
    for length in range(0, len(whole), 1 if write is write_pickles else 3):
        (tmp_path / "a.pt").write_bytes(whole[:length])
        refused(tmp_path / "a.pt")


@both
def test_random_damage_never_breaks_out(tmp_path, write):
    write(tmp_path / "a.pt", state_dict({"a": values(), "b": values((2,))}))
    whole = (tmp_path / "a.pt").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 2):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / "a.pt").write_bytes(damaged)
        with contextlib.suppress(UserError):
            assert all(isinstance(value, np.ndarray) for value in read_torch(tmp_path / "a.pt").values())
