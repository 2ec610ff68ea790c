"""Paddle's `.pdparams`: as Paddle and Python 2 write it, and as someone hostile would."""

import contextlib
import os
import pickle
import resource
import struct
import subprocess
import time
from collections import OrderedDict

import numpy as np
import paddle
import pytest
from test_files import one_line_error

from metric_learning.checks import UserError
from metric_learning.pickled_arrays import read_pdparams


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_files_of_paddle_save(tmp_path, protocol):
    path = str(tmp_path / "a.pdparams")
    layer = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4))
    paddle.save(layer.state_dict(), path, protocol=protocol)
    arrays = read_pdparams(path)
    assert arrays.keys() == layer.state_dict().keys()
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(arrays[name], value.numpy())
        assert arrays[name].flags.writeable


@pytest.mark.parametrize("protocol", range(6))
def test_old_files_with_tuples_and_ordered_dicts(tmp_path, protocol):
    arrays = {
        "float": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "scalar": np.array(2.0, np.float64),
        "bool": np.array([True, False]),
        "big": np.array([1, 2], ">i8"),
        "empty": np.zeros((0, 2), np.float32),
    }
    stored = OrderedDict((name, (f"{name}.w_0", value)) for name, value in arrays.items())
    stored["StructuredToParameterName@@"] = {"float": "linear_0.w_0"}
    stored["epoch"] = np.float32(3.0)
    stored[7] = np.ones(1)
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.dumps(stored, protocol))
    found = read_pdparams(path)
    assert found.keys() - {"epoch"} == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype.newbyteorder("=")


def test_a_file_of_python_2(tmp_path):
    """Protocol 2 as Python 2 wrote it: __builtin__, numpy.core, and text for bytes, which may hold any byte."""
    values = np.array([1.0, -2.5, 3e30], "<f4")
    raw = values.tobytes()
    content = (
        b"\x80\x02}U\x01wc__builtin__\ntuple\n(U\x03w_0cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87R(K\x01K\x03\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ"
        b"\xff\xff\xff\xffK\x00tb\x89U" + bytes([len(raw)]) + raw + b"tbl\x85Rs."
    ).replace(b"tbl\x85Rs.", b"tbt\x85Rs.")
    path = tmp_path / "a.pdparams"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_pdparams(path)["w"], values)


def test_bfloat16_is_read_as_numbers(tmp_path):
    path = str(tmp_path / "a.pdparams")
    paddle.save({"x": paddle.to_tensor([1.0, -2.5, 0.0]).astype("bfloat16")}, path)
    found = read_pdparams(path)["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [1.0, -2.5, 0.0])


class Calls:
    """Pickles as a call of `what`."""

    def __init__(self, what, *arguments):
        self.call = what, arguments

    def __reduce__(self):
        return self.call


def hostile(mark: str) -> dict[str, bytes]:
    """Pickles that would write the file `mark`, or read memory that is not theirs."""
    script = f"open({mark!r}, 'w').close()"
    short = lambda text: b"\x8c" + bytes([len(text)]) + text.encode()  # noqa: E731
    glob = lambda module, name: b"c" + module.encode() + b"\n" + name.encode() + b"\n"  # noqa: E731
    stacked = lambda module, name: short(module) + short(name) + b"\x93"  # noqa: E731
    run = short(f"touch {mark}") + b"\x85R."
    numpy = glob("numpy", "dtype")
    objects = numpy + b"U\x01OK\x00K\x01\x87R"
    lying = numpy + b"U\x02V8K\x00K\x01\x87R(K\x03U\x01|NU\x01a\x85}U\x01a" + objects + b"K\x00\x86sK\x08K\x01K\x00tb"
    buffer = b"C\x08AAAAAAAA"
    made = glob("numpy.core.multiarray", "_reconstruct") + glob("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"
    protocol = b"\x80\x04"
    return {
        "system": pickle.dumps({"x": Calls(os.system, f"touch {mark}")}),
        "eval": pickle.dumps({"x": Calls(eval, script)}),
        "exec, protocol 0": pickle.dumps(Calls(exec, script), 0),
        "getattr": glob("builtins", "getattr") + b".",
        "import": pickle.dumps(Calls(__import__, "antigravity")),
        "subprocess": pickle.dumps(Calls(subprocess.Popen, ["touch", mark])),
        "dotted name": protocol + stacked("numpy", "ndarray.__class__") + run,
        "dotted tuple": protocol + stacked("builtins", "tuple.__class__") + run,
        "dotted module": protocol + stacked("numpy.core.multiarray", "os.system") + run,
        "module of a submodule": protocol + stacked("numpy._core.multiarray.os", "system") + run,
        "numpy's own os": protocol + stacked("numpy.core.numeric", "os") + run,
        "numpy load": glob("numpy", "load") + run,
        "numpy testing": glob("numpy.testing._private.utils", "runstring") + run,
        "numpy in numpy": glob("numpy._core.numpy._core.multiarray", "_reconstruct") + run,
        "memo": protocol + stacked("os", "system") + b"\x94h\x00" + run,
        "nested": pickle.dumps({"a": ({"b": [Calls(os.system, f"touch {mark}")]},)}),
        "old instance": b"(U" + bytes([len(f"touch {mark}")]) + f"touch {mark}".encode() + b"ios\nsystem\n.",
        "object": b"(" + glob("os", "system") + short(f"touch {mark}") + b"o.",
        "extension": b"\x82\x01.",
        "persistent": b"Pabc\n.",
        "codecs": glob("_codecs", "lookup") + run,
        "codec that decompresses": glob("_codecs", "encode") + b"U\x01xU\x03zip\x86R.",
        "object dtype": b"}U\x01a" + made + b"(K\x01K\x01\x85" + objects + b"\x89]K\x01atbs.",
        "objects over bytes": b"}U\x01a" + glob("numpy", "ndarray") + b"K\x01\x85" + objects + buffer + b"\x87Rs.",
        "lying dtype": b"}U\x01a"
        + glob("numpy.core.numeric", "_frombuffer")
        + b"("
        + buffer
        + lying
        + b"K\x01\x85U\x01CtRs.",
        "lying state": b"}U\x01a" + made + b"(K\x01K\x01\x85" + lying + b"\x89" + buffer + b"tbs.",
        "short array": b"}U\x01a"
        + made
        + b"(K\x01M\xff\xff\x85"
        + numpy
        + b"U\x02f4K\x00K\x01\x87R\x89"
        + buffer
        + b"tbs.",
        "negative shape": b"}U\x01a"
        + made
        + b"(K\x01J\xfe\xff\xff\xff\x85"
        + numpy
        + b"U\x02f4\x85R\x89"
        + buffer
        + b"tbs.",
        "array of a number": b"}U\x01a" + made + b"(K\x01K\x08\x85" + numpy + b"U\x02u1\x85R\x89K\x08tbs.",
        "attribute of a function": glob("_codecs", "encode") + b"N}U\x0c__defaults__K\x01\x85s\x86b.",
        "dictionary of a function": glob("_codecs", "encode") + b"}U\x07plantedK\x01sb.",
        "class of a sentinel": glob("numpy", "ndarray") + b"N}U\x0c__setstate__K\x01s\x86b.",
        "new object of a sentinel": glob("numpy", "ndarray") + b")\x81.",
        "a list": pickle.dumps([np.ones(1)]),
        "no tensors": pickle.dumps({"x": 1}),
        "nothing": b"",
        "text": b"these are not weights",
    }


@pytest.mark.parametrize("name", hostile(""))
def test_hostile_pickles_are_refused_and_run_nothing(tmp_path, name):
    mark = tmp_path / "ran"
    path = tmp_path / "a.pdparams"
    path.write_bytes(hostile(str(mark))[name])
    one_line_error(lambda: read_pdparams(path), str(path))
    assert not mark.exists()


def test_keys_that_python_hashes_alike_take_no_time(tmp_path):
    """A dictionary of 100,000 of them would take minutes."""
    keys = (b"\x8a\x0c" + ((2**61 - 1) * k).to_bytes(12, "little") + b"N" for k in range(1, 100_000))
    (tmp_path / "a.pdparams").write_bytes(b"}(" + b"".join(keys) + b"u.")
    start = time.perf_counter()
    one_line_error(lambda: read_pdparams(tmp_path / "a.pdparams"), "no tensors")
    assert time.perf_counter() - start < 20


def test_a_deep_key_is_never_hashed(tmp_path):
    """Python would, one tuple inside the other, until it is out of stack."""
    (tmp_path / "a.pdparams").write_bytes(b"})" + b"\x85" * 200_000 + b"Ns.")
    one_line_error(lambda: read_pdparams(tmp_path / "a.pdparams"), "no tensors")


def test_a_pickle_that_grows_is_refused(tmp_path):
    text = b"X" + struct.pack("<i", 1 << 20) + b"x" * (1 << 20) + b"\x940(c_codecs\nencode\n\x940"
    (tmp_path / "a.pdparams").write_bytes(text + b"h\x01h\x00\x85R" * 10_000 + b"t.")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one_line_error(lambda: read_pdparams(tmp_path / "a.pdparams"), "grows far beyond its file")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_an_array_under_two_names_is_one(tmp_path):
    array = np.ones(3, np.float32)
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps({"a": array, "b": array}))
    found = read_pdparams(tmp_path / "a.pdparams")
    assert found["a"] is found["b"] and found["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("protocol", [2, 4])
def test_every_truncation_is_refused(tmp_path, protocol):
    whole = pickle.dumps({"a": ("a_0", np.ones((2, 2), np.float32)), "b": np.ones(1)}, protocol)
    path = tmp_path / "a.pdparams"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        one_line_error(lambda: read_pdparams(path), "a.pdparams")


def test_random_damage_never_breaks_out(tmp_path):
    whole = pickle.dumps({"a": ("a_0", np.ones((2, 2), np.float32)), "b": np.ones(1)}, 4)
    path = tmp_path / "a.pdparams"
    rng = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 2):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):
            assert all(isinstance(value, np.ndarray) for value in read_pdparams(path).values())
