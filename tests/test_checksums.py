"""Files of arrays know their own damage."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from metric_learning.checks import UserError
from metric_learning.files import read_metadata, read_rows, read_tensors, write_tensors

ARRAYS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "turned": np.arange(6, dtype=np.int64).reshape(2, 3).T,
    "foreign": np.array([1.5, -2.0], ">f4"),
    "none": np.zeros((0, 2), np.float32),
    "one": np.array(7, np.uint8),
}
ABOUT = {"state": {"step": 3, "best": [0.5]}, "text": "Ä"}


def same(path) -> bool:
    arrays, about = read_tensors(path)
    equal = arrays.keys() == ARRAYS.keys() and all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)
    return equal and {name: about.get(name) for name in ABOUT} == ABOUT


def test_a_turned_bit_is_told_or_changes_nothing(tmp_path):
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_tensors(path, ARRAYS, ABOUT)
    assert same(path) and read_tensors(path)[1] == read_metadata(path) == ABOUT
    data, told = path.read_bytes(), 0
    for place in range(len(data)):
        other.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        try:
            held = same(other)
        except UserError as error:
            held = "\n" not in str(error)
            told += 1
        assert held, place
    assert told > 0.9 * len(data)


def test_a_file_that_is_cut_off_is_told(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, ARRAYS, ABOUT)
    data = path.read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(UserError, match=r"a\.safetensors"):
            read_tensors(path)


def test_the_line_names_what_is_damaged(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"first": np.zeros(4), "second": np.ones(4, np.float32)}, ABOUT)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match=r"a\.safetensors is damaged: second is not as it was written\. Take another"):
        read_tensors(path)
    assert read_tensors(path, but=["second"])[0].keys() == {"first"}
    assert read_rows([path], "first", lambda count: (0, count)).shape == (4,)
    path.write_bytes(data.replace(b'\\"step\\": 3', b'\\"step\\": 4'))
    for read in (read_tensors, read_metadata):
        with pytest.raises(UserError, match="is damaged: its header is not"):
            read(path)


def test_files_from_elsewhere_have_no_sums(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"x": np.ones(3, np.float32)}, path, {"from": "elsewhere"})
    assert read_tensors(path)[1] == {"from": "elsewhere"}
    for text in ("no json", "[]", "{}", "[" * 10_000):
        save_file({"x": np.ones(3, np.float32)}, path, {"crc32": text})
        with pytest.raises(UserError, match="its header"):
            read_tensors(path)
