"""Files that are never half-written, and a reader of pickles that runs none of their code."""

import contextlib
import csv
import errno
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import paddle
import pytest

from metric_learning import files
from metric_learning.checks import UserError
from metric_learning.files import (
    ODD,
    atomic_path,
    atomic_write,
    read_json,
    read_metadata,
    read_pdparams,
    read_tensors,
    write_csv,
    write_json,
    write_tensors,
)

ARRAYS = {
    "scalar": np.array(1.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "every second": np.arange(8, dtype=np.int64)[::2],
    "flags": np.array([True, False]),
    "half": np.array([0.5], np.float16),
    "foreign order": np.array([1.0, -2.0], ">f4"),
}


@contextlib.contextmanager
def small_disk(size: int):
    """Inside, no file can grow beyond `size` bytes: as a full disk, the write fails half-way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def one_line_error(call, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said and said.endswith(".") and not said.endswith("..")
    for part in parts:
        assert part in said, said


# ---- atomic writing


def test_a_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    atomic_write(path, "one")
    atomic_write(path, b"two")
    assert path.read_text() == "two"
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("failure", [ValueError("mine"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_the_old_file(tmp_path, failure):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with atomic_path(path) as temporary:
            temporary.write_text("half of the ne")
            raise failure

    with pytest.raises(type(failure)):
        write()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_the_system_refuses_is_one_line(tmp_path, monkeypatch, call):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, call, refuse)
    one_line_error(lambda: atomic_write(path, "new"), str(path), "No space left on device")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: atomic_write(path, b"x" * 100_000),
        lambda path: write_json(path, ["x"] * 100_000),
        lambda path: write_csv(path, ["x"], [["y"]] * 100_000),
        lambda path: write_tensors(path, {"x": np.ones(100_000, np.float32)}, {}),
    ],
)
def test_a_disk_that_fills_up_half_way_leaves_the_old_file(tmp_path, write):
    path = tmp_path / "a"
    path.write_text("old")
    with small_disk(10_000):
        one_line_error(lambda: write(path), str(path), "Free some space")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk can't be mounted here")
    try:
        path = tmp_path / "a.safetensors"
        write_tensors(path, {"x": np.ones(1000, np.float32)}, {})
        one_line_error(lambda: write_tensors(path, {"x": np.ones(10**6, np.float32)}, {}), str(path), "No space left")
        one_line_error(lambda: atomic_write(path, b"x" * 10**6), "No space left")
        assert len(read_tensors(path)[0]["x"]) == 1000 and os.listdir(tmp_path) == ["a.safetensors"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_place_that_is_no_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    one_line_error(lambda: atomic_write(tmp_path / "file" / "a.txt", "x"), "file/a.txt")
    one_line_error(lambda: write_tensors("/proc/a.safetensors", {"x": np.ones(1)}, {}), "/proc/a.safetensors")
    (tmp_path / "folder").mkdir()
    one_line_error(lambda: atomic_write(tmp_path / "folder", "x"), "folder")


def test_an_unwritable_folder_is_one_line(tmp_path):
    if not os.getuid():
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    one_line_error(lambda: atomic_write(tmp_path / "a.txt", "x"), "Permission denied")


def test_a_reader_never_sees_half_a_file(tmp_path):
    """A process that is killed while it writes: the old file stays whole."""
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": np.zeros(10, np.float32)}, {})
    code = (
        "import os, sys, numpy as np\n"
        "from metric_learning.files import write_tensors\n"
        "import metric_learning.files as files\n"
        "files.os.fsync = lambda *_: os.kill(os.getpid(), 9)\n"
        "write_tensors(sys.argv[1], {'x': np.ones(10, np.float32)}, {})\n"
    )
    root = Path(files.__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, check=False)
    assert ended.returncode == -9
    assert read_tensors(path)[0]["x"].sum() == 0


# ---- csv, json and tensors


def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.csv"
    odd = ["a,b", 'q"uote', "über \udcff", "line\nbreak"]
    write_csv(path, ["name", "number"], ([name, "1"] for name in odd))
    with open(path, newline="", encoding="utf-8", errors=ODD) as file:
        assert list(csv.reader(file)) == [["name", "number"], *([name, "1"] for name in odd)]
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        write_csv(path, ["number"], ([str(1 // number)] for number in (1, 0)))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.csv"]


def test_json_round_trip_and_errors(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"name": "Ärger 狗", "undecodable \udce4": [1, None, 0.5]})
    assert read_json(path) == {"name": "Ärger 狗", "undecodable \udce4": [1, None, 0.5]}
    path.write_text('{"half": ')
    one_line_error(lambda: read_json(path), "a.json", "line 1")
    path.write_text("[" * 100_000)
    one_line_error(lambda: read_json(path), "a.json")
    one_line_error(lambda: read_json(tmp_path / "none.json"), "No such file")
    one_line_error(lambda: read_json(tmp_path), "Is a directory")


def test_tensors_round_trip(tmp_path):
    path = tmp_path / "a.safetensors"
    about = {"step": 3, "list": [1.5], "text": "ü", "nothing": None, "nested": {"a": True}}
    write_tensors(path, ARRAYS, about)
    arrays, metadata = read_tensors(path)
    assert metadata == about == read_metadata(path)
    assert arrays.keys() == ARRAYS.keys()
    for name, expected in ARRAYS.items():
        assert arrays[name].shape == expected.shape and arrays[name].dtype == expected.dtype.newbyteorder("="), name
        np.testing.assert_array_equal(arrays[name], expected)


def test_metadata_of_others_stays_text(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.ones(2, np.float32)}, tmp_path / "a.safetensors", {"format": "pt", "number": "3"})
    assert read_tensors(tmp_path / "a.safetensors")[1] == {"format": "pt", "number": 3}


@pytest.mark.parametrize("read", [read_tensors, read_metadata])
def test_damaged_tensors_are_one_line(tmp_path, read):
    path = tmp_path / "a.safetensors"
    one_line_error(lambda: read(path), "a.safetensors")
    one_line_error(lambda: read(tmp_path), str(tmp_path))
    write_tensors(path, {"x": np.ones(100, np.float32)}, {"a": 1})
    whole = path.read_bytes()
    for damaged in (b"", whole[:7], whole[:50], whole[:-1], b"\xff" * 200, pickle.dumps({"x": 1})):
        path.write_bytes(damaged)
        one_line_error(lambda: read(path), "a.safetensors")


def test_a_type_that_numpy_lacks_is_one_line(tmp_path):
    header = json.dumps({"x": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
    with contextlib.suppress(UserError):  # newer releases may know it
        read_tensors(path)


# ---- .pdparams


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


def test_a_hostile_pickle_leaves_no_trace_in_the_reader(tmp_path):
    """Attributes that one pickle sets must not reach the next file."""
    whole = tmp_path / "good.pdparams"
    whole.write_bytes(pickle.dumps({"x": np.ones(3, np.float32)}))
    path = tmp_path / "a.pdparams"
    for content in hostile(str(tmp_path / "ran")).values():
        path.write_bytes(content)
        with pytest.raises(UserError):
            read_pdparams(path)
    np.testing.assert_array_equal(read_pdparams(whole)["x"], np.ones(3))
    made = [vars(function) for function in vars(files._ArraysOnly).values() if callable(function)]
    assert len(made) > 5 and not any(made)


def test_a_class_of_the_reader_is_never_handed_out(tmp_path):
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.dumps({"x": np.ones(2, np.float32), "callables": 0}, 2))
    for module, names in files._KNOWN.items():
        for name in names:
            with open(path, "rb") as file:
                found = files._ArraysOnly(file).find_class(module, name)
            assert found is None or (not isinstance(found, type) and not hasattr(found, "__setstate__")), name


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


@pytest.mark.parametrize("kind", ["bool", "u1", "i1", "<u2", ">i2", "<u4", "<i4", "<u8", ">i8", "<f2", "<f4", ">f8"])
def test_the_library_reads_what_is_written(tmp_path, kind):
    from safetensors.numpy import load_file

    arrays = {"a": np.arange(6).reshape(2, 3).T.astype(kind), "b": np.array(1, kind), "c": np.empty((0, 4), kind)}
    arrays |= {"longer name": np.arange(5, dtype=np.uint8), "é": np.ones((2, 1, 2), np.float64)}
    write_tensors(tmp_path / "x.safetensors", arrays, {"é": [1, "two"], "quote": '"'})
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].shape == array.shape and found[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name], array)
    read, metadata = read_tensors(tmp_path / "x.safetensors")
    assert metadata == {"é": [1, "two"], "quote": '"'} and read.keys() == arrays.keys()
