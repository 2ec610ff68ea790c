"""Checksums inside a file of arrays: damage that its format does not notice is told instead of computed with."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

NAME = "crc32"  # the entry of the metadata that holds them
HEAD = ""  # the name, among those of arrays, of the sum over names, types, shapes and the rest of the metadata

Layout = Mapping[str, tuple[str, list[int]]]  # name -> (type as the format calls it, shape)


def crc_of(array: np.ndarray) -> int:
    """Of the bytes as the file holds them: contiguous, little-endian."""
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return zlib.crc32(plain.reshape(-1).view(np.uint8).data)


def head_crc(metadata: Mapping[str, str], layout: Layout) -> int:
    known = [sorted((key, text) for key, text in metadata.items() if key != NAME), sorted(layout.items())]
    return zlib.crc32(json.dumps(known).encode())


def with_sums(metadata: Mapping[str, str], layout: Layout, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The metadata of a file with the sums of all that it holds."""
    sums = {name: crc_of(value) for name, value in arrays.items()}
    return {**metadata, NAME: json.dumps({HEAD: head_crc(metadata, layout), **sums})}


def damaged(metadata: Mapping[str, str], layout: Layout, arrays: Mapping[str, np.ndarray]) -> str | None:
    """What is not as it was written: the name of one of the arrays that were read, or 'its header'; None if all is.

    A file without sums, from elsewhere or of an older version, is taken as it is.
    """
    if NAME not in metadata:
        return None
    sums = _sums(metadata[NAME])
    if sums is None or sums.get(HEAD) != head_crc(metadata, layout):
        return "its header"
    return next((name for name, value in arrays.items() if sums.get(name) != crc_of(value)), None)


def _sums(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
