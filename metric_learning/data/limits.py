"""Pictures and tables whose few bytes would keep a reader busy for minutes, told before it begins."""

import re
from pathlib import Path

from metric_learning.checks import UserError

MOST_PASSES = 100  # over the pixels of a JPEG; a progressive one has about ten
MOST_SEGMENTS = 2_000  # before those; a long colour profile takes 255
MOST_JUNK = 100_000  # bytes between the segments
MOST_CHUNKS = 100_000  # of a PNG; the largest that is read has 33,000 as libpng writes it
MOST_COLUMNS = 10_000
LONGEST_HEADER = 10_000  # bytes of a PPM's
MOST_COMMENTS = 1_000  # in a PPM whose pixels are text
_TOKENS = re.compile(rb"P\d(?:(?:\s|#[^\r\n]*[\r\n])+[^\s#]+){2}")


def check_columns(path: Path, header: list[str]) -> None:
    """UserError for a table so wide that to look at the names of its columns takes minutes."""
    if len(header) > MOST_COLUMNS:
        raise UserError(f"{path}:1: the header has {len(header):,} columns; lists of pictures have a few.")


def check_work(data: bytes) -> None:
    """ValueError for such a picture's file; what is none is not looked at."""
    if data.startswith(b"\xff\xd8"):
        check_passes(data)
        _check_segments(data)
    elif data.startswith(b"\x89PNG"):
        _check_chunks(data)
    elif re.match(rb"P[1-6]", data):
        _check_text(data)


def check_passes(data: bytes) -> None:
    """Each pass of a JPEG is a few bytes of the file, and takes the time of a picture."""
    passes = data.count(b"\xff\xda")
    if passes > MOST_PASSES:
        raise ValueError(f"{passes} passes over its pixels, above the limit of {MOST_PASSES}")


def _check_segments(data: bytes) -> None:
    at, junk = 2, 0
    for _ in range(MOST_SEGMENTS):
        mark = data.find(b"\xff", at)
        stop = len(data) if mark < 0 else mark
        while stop + 1 < len(data) and data[stop + 1] == 0xFF and junk + stop - at <= MOST_JUNK:  # fill bytes
            stop += 1
        junk += stop - at
        if junk > MOST_JUNK:
            raise ValueError(f"more than {MOST_JUNK:,} bytes between its segments")
        marker = data[stop + 1] if stop + 1 < len(data) else 0xDA
        if marker == 0xDA:  # its pixels
            return
        alone = marker <= 0x01 or 0xD0 <= marker <= 0xD9
        at = stop + 2 if alone else stop + 2 + int.from_bytes(data[stop + 2 : stop + 4], "big")
    raise ValueError(f"more than {MOST_SEGMENTS:,} segments before its pixels")


def _check_chunks(data: bytes) -> None:
    at = 8
    for _ in range(MOST_CHUNKS):
        if at + 8 > len(data):
            return
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise ValueError(f"more than {MOST_CHUNKS:,} chunks")


def _check_text(data: bytes) -> None:
    if len(data) > LONGEST_HEADER and not _TOKENS.match(data, 0, LONGEST_HEADER):
        raise ValueError(f"its header is longer than {LONGEST_HEADER:,} bytes")
    if data[1:2] in b"123" and data.count(b"#") > MOST_COMMENTS:
        raise ValueError(f"more than {MOST_COMMENTS:,} comments between its pixels")
