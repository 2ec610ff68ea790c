"""The file that VisualDL shows of a run, and what a resumed run takes over of it.

VisualDL shows one file of a folder, the newest, and of a file all there is. So a run that goes on takes the records of
the session before it over into its own file, up to its step, and the old file goes.
"""

import math
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from metric_learning.files import atomic_path

PATTERN = "*vdlrecords*"
LENGTH = struct.Struct("<Q")


def taken_over(folder: Path, step: int) -> str:
    """The name of this session's file in `folder`, which holds all whole records up to `step` of the file before it."""
    name = f"vdlrecords.{int(time.time()):010d}.log"
    older = sorted(folder.glob(PATTERN))
    if older:
        kept = b"".join(LENGTH.pack(len(record)) + record for record in records(older[-1]) if step_of(record) <= step)
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(kept)
    for path in older:
        if path.name != name:
            path.unlink(missing_ok=True)
    return name


def records(path: Path) -> Iterator[bytes]:
    """The whole records of a file: of one that was killed, its end may hold a part of one."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        while len(head := file.read(LENGTH.size)) == LENGTH.size:
            (length,) = LENGTH.unpack(head)
            if length > size - file.tell():
                return
            yield file.read(length)


def step_of(record: bytes) -> float:
    """The step that a record is of: 0 for what belongs to the whole run, infinity for what is no record."""
    from visualdl.proto.record_pb2 import Record

    try:
        return int(Record.FromString(record).values[0].id)
    except Exception:  # protobuf's own kinds, or a record without a value: a damaged file must not stop a training
        return math.inf
