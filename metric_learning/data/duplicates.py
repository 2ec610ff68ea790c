"""Files that are equal byte for byte in two lists: a test picture that was trained on is remembered, not recognised."""

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence


def duplicates(first: Sequence[str], second: Sequence[str]) -> list[tuple[str, str]]:
    """(path in `first`, path in `second`) for each file of `second` that has an equal in `first`: the earliest one.

    Only files whose size occurs in both lists are read; files that cannot be read are passed over.
    """
    first_sizes, second_sizes = _sizes(first), _sizes(second)
    shared = set(first_sizes.values()) & set(second_sizes.values())
    originals: dict[bytes, str] = {}
    for path, content in _digests(path for path, size in first_sizes.items() if size in shared):
        originals.setdefault(content, path)
    candidates = _digests(path for path, size in second_sizes.items() if size in shared)
    return [(originals[content], path) for path, content in candidates if content in originals]


def _sizes(paths: Sequence[str]) -> dict[str, int]:
    found = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            found[path] = status.st_size
    return found


def _digests(paths: Iterable[str]) -> Iterable[tuple[str, bytes]]:
    for path in paths:
        try:
            with open(path, "rb") as file:
                yield path, hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
        except OSError:
            continue
