"""Damage to files, by a generator of random numbers: to bytes, to lines and cells, to JSON, to the parts of formats."""

import io
import json
import pickletools
import struct
import zipfile
import zlib
from random import Random
from typing import Any

NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**48, 2**63 - 1, 2**63)
NUMBERS += (2**64 - 1, -(2**63), 10**30, 10**400)
TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "x" * 5000,
    "9" * 5000,
    "0" * 5000,
    "../../../../etc/passwd",
    "/dev/zero",
    "é",
    "狗" * 90,
)
TEXTS += ("\u202e", "\ufeff", "nan", "inf", "-inf", "1e999", "-0", "1_000", "٣", "²", "0x10", "\x1b[2J", "%s%n%d", "\\")
TEXTS += ("'", '"', '"""', ",", "\t", "\r", "\n", "\x0b", "\x85", "\u2028", "True", "None", "1.5", "-1", "a/b/c", "#1")
LARGEST = 20 << 20  # bytes of a list
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "cp037", "utf-7")


def damaged(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """Bytes that are flipped, cut off, cut out, doubled, moved, or overwritten by numbers that sizes can't be."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = rng.choice(_BYTES)(rng, data, others)
    return data


def _flip(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    if not data:
        return b"\0"
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def _byte(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))]) + data[place + 1 :]


def _cut(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _lost(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + data[place + rng.choice((1, 2, 4, 8, rng.randrange(1, 200))) :]


def _doubled(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    place, size = rng.randrange(len(data) + 1), rng.randrange(1, 64)
    return data[:place] + data[place : place + size] * rng.choice((2, 3, 100)) + data[place + size :]


def _inserted(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.choice((rng.randbytes(rng.randrange(1, 40)), bytes(1000), b"\xff" * 300)) + data[place:]


def _spliced(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    other = rng.choice(others)
    place, start = rng.randrange(len(data) + 1), rng.randrange(len(other) + 1)
    return data[:place] + other[start : start + rng.choice((8, 64, len(other)))]


def _number(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """A number of 2, 4 or 8 bytes in either order, such as a length that can't be."""
    size, place = rng.choice((1, 2, 4, 8)), rng.randrange(len(data) + 1)
    value = (rng.choice(NUMBERS) + rng.randrange(-2, 3)) % (1 << 8 * size)
    return data[:place] + value.to_bytes(size, rng.choice(("little", "big"))) + data[place + size :]


_BYTES = (_flip, _flip, _byte, _cut, _lost, _doubled, _inserted, _spliced, _number, _number)


# ---- text


def reworded(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """Lines lost, doubled or moved, cells of odd text, other ends of lines, other encodings, or plain damage."""
    if rng.random() < 0.15:
        return damaged(rng, data, others)
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_LINES)(rng, lines)
        lines = lines or [""]
    text = rng.choice(("\n",) * 6 + ("\r\n", "\r", "\x0b", "\u2028")).join(lines)
    if rng.random() < 0.1:
        return text.encode(rng.choice(ENCODINGS), "replace")
    raw = text.encode("utf-8", "surrogatepass")[:LARGEST]
    return b"\xef\xbb\xbf" + raw if rng.random() < 0.05 else raw


def _lose_line(rng: Random, lines: list[str]) -> None:
    del lines[rng.randrange(len(lines))]


def _double_line(rng: Random, lines: list[str]) -> None:
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))


def _many_lines(rng: Random, lines: list[str]) -> None:
    line = rng.choice(lines)
    lines.extend([line] * (rng.choice((3, 300)) if len(line) < 1000 else 3))


def _swap_lines(rng: Random, lines: list[str]) -> None:
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]


def _cell(rng: Random, lines: list[str]) -> None:
    row = rng.randrange(len(lines))
    mark = next((mark for mark in (",", "\t", " ") if mark in lines[row]), ",")
    cells = lines[row].split(mark)
    place = rng.randrange(len(cells))
    odd = rng.choice((*TEXTS, *map(str, NUMBERS[:-1])))
    how = rng.randrange(5)
    if how == 0:
        del cells[place]
    elif how == 1:
        cells.insert(place, odd)
    elif how == 2:
        cells[place] += odd
    else:
        cells[place] = odd
    lines[row] = mark.join(cells)


def _insert_text(rng: Random, lines: list[str]) -> None:
    row = rng.randrange(len(lines))
    place = rng.randrange(len(lines[row]) + 1)
    lines[row] = lines[row][:place] + rng.choice(TEXTS) + lines[row][place:]


def _long_line(rng: Random, lines: list[str]) -> None:
    row = rng.randrange(len(lines))
    lines[row] += rng.choice(("x", ",", "\t", " ", '"')) * rng.choice((1000, 1000, 1000, 200_000))


_LINES = (_lose_line, _double_line, _many_lines, _swap_lines, _cell, _cell, _cell, _insert_text, _long_line)


# ---- JSON


def edited(rng: Random, value: Any) -> Any:
    """A copy in which some values are others that JSON can say, keys are lost or new."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _edit(rng, json.loads(json.dumps(value)))
    return value


def _edit(rng: Random, value: Any) -> Any:
    inside = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    if not inside or rng.random() < 0.15:
        return _odd(rng, value)
    place, part = rng.choice(inside)
    how = rng.random()
    if how < 0.12:
        del value[place]
    elif how < 0.2 and isinstance(value, dict):
        value[rng.choice(TEXTS)] = part
    elif how < 0.24 and isinstance(value, list):
        value *= rng.choice((2, 50))
    else:
        value[place] = _edit(rng, part)
    return value


def _odd(rng: Random, value: Any) -> Any:
    numbers = (*NUMBERS[:-1], 10**300, 1e-300, 0.5, -0.5, 1e308, float("nan"), float("inf"), float("-inf"))
    nested: Any = []
    for _ in range(rng.choice((1, 40))):
        nested = [nested]
    others = (None, True, False, [], {}, nested, [value], {"a": value}, [None], str(value)[:50], [[1, "x"]])
    return rng.choice((rng.choice(numbers), rng.choice(numbers), rng.choice(TEXTS), rng.choice(others)))


# ---- formats


def repickled(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """Opcodes that are lost, doubled, moved, or others between them; or plain damage."""
    if rng.random() < 0.5:
        return damaged(rng, data, others)
    places = [place for _, _, place in pickletools.genops(data)]
    parts = [data[a:b] for a, b in zip(places, [*places[1:], len(data)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(parts))
        how = rng.randrange(4)
        if how == 0 and len(parts) > 1:
            del parts[place]
        elif how == 1:
            parts.insert(place, rng.choice(parts))
        elif how == 2:
            parts[place] = rng.choice(parts)
        else:
            parts.insert(place, rng.choice(OPCODES))
    return b"".join(parts)


OPCODES = (
    b"(",
    b".",
    b"0",
    b"1",
    b"2",
    b"N",
    b"\x88",
    b"K\x05",
    b"J\xff\xff\xff\x7f",
    b"U\x03abc",
    b"C\x04AAAA",
    b")",
    b"]",
)
OPCODES += (
    b"}",
    b"\x8f",
    b"t",
    b"l",
    b"d",
    b"a",
    b"e",
    b"s",
    b"u",
    b"R",
    b"b",
    b"\x81",
    b"o",
    b"Q",
    b"\x85",
    b"\x86",
    b"\x87",
)
OPCODES += (
    b"\x94",
    b"h\x00",
    b"q\x07",
    b"r\xff\xff\xff\x0f",
    b"j\x00\x00\x00\x80",
    b"p99999999\n",
    b"cos\nsystem\n",
    b"\x93",
)
OPCODES += (
    b"cbuiltins\neval\n",
    b"cnumpy\ndtype\n",
    b"cnumpy\nndarray\n",
    b"cnumpy.core.multiarray\nscalar\n",
    b"\x90",
)
OPCODES += (b"cnumpy.core.numeric\n_frombuffer\n", b"c_codecs\nencode\n", b"ccollections\nOrderedDict\n", b"\x91")
OPCODES += (b"cbuiltins\ntuple\n", b"\x8a\x08" + b"\xff" * 8, b"I99999999999999999999\n", b"Pname\n", b"ios\nsystem\n")
OPCODES += (
    b"\x8e" + b"\xff" * 7 + b"\x00",
    b"\x96" + b"\xff" * 5 + bytes(3),
    b"\x95" + b"\xff" * 8,
    b"\x82\x01",
    b"F1e999\n",
)


def rezipped(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """Members with other contents, names, ways to pack; or plain damage, mostly to the directory at the end."""
    how = rng.random()
    if how < 0.25:
        return damaged(rng, data, others)
    if how < 0.5:
        start = data.find(b"PK\x01\x02")
        return data[:start] + damaged(rng, data[start:], others)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(item.filename, archive.read(item)) for item in archive.infolist()]
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(members))
        name, content = members[place]
        what = rng.randrange(5)
        if what == 0 and len(members) > 1:
            del members[place]
        elif what == 1:
            members[place] = rng.choice((name + "/x", "../" + name, "/" + name, name.upper(), "a" * 300, name)), content
        elif what == 2:
            members.append((name, content))
        else:
            members[place] = name, damaged(rng, content, [other for _, other in members])
    buffer = io.BytesIO()
    kind = rng.choice((zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = kind
            info.external_attr = rng.choice((0, 0, 0, 0o120777, 0o40755)) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def retensored(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """A safetensors file with another header, whose length is right; or plain damage."""
    if rng.random() < 0.3:
        return damaged(rng, data, others)
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(edited(rng, json.loads(data[8 : 8 + size]))).encode()
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def resegmented(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """A JPEG with segments lost, doubled, moved, of another's, of other lengths or contents; or plain damage."""
    if rng.random() < 0.35:
        return damaged(rng, data, others)
    parts = segments(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(1, len(parts))
        how = rng.randrange(6)
        if how == 0 and len(parts) > 2:
            del parts[place]
        elif how == 1:
            parts.insert(place, rng.choice(parts))
        elif how == 2:
            parts.insert(place, rng.choice(segments(rng.choice(others))))
        elif how == 3:
            parts[place] = parts[place][:4] + damaged(rng, parts[place][4:], parts)
        else:
            parts[place] = damaged(rng, parts[place], parts)
    return b"".join(parts)


def segments(data: bytes) -> list[bytes]:
    """The start mark, each segment of a JPEG, and from the first scan on the rest."""
    parts, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at + 1] != 0xDA:
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        parts.append(data[at:stop])
        at = stop
    return [*parts, data[at:]]


def rechunked(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """A PNG with chunks lost, doubled, moved or changed, whose checksums are right; or plain damage."""
    if rng.random() < 0.3:
        return damaged(rng, data, others)
    parts = chunks(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(parts))
        kind, content = parts[place]
        how = rng.randrange(5)
        if how == 0 and len(parts) > 1:
            del parts[place]
        elif how == 1:
            parts.insert(place, rng.choice(parts))
        elif how == 2:
            parts[place] = rng.choice((b"tEXt", b"zTXt", b"iCCP", b"eXIf", b"acTL", b"fdAT", b"PLTE", b"tRNS")), content
        else:
            parts[place] = kind, damaged(rng, content, [other for _, other in parts])
    return png(parts)


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def png(parts: list[tuple[bytes, bytes]]) -> bytes:
    whole = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in parts:
        whole.append(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))
    return b"".join(whole)
