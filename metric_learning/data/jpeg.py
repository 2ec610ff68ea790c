"""What the segments before a JPEG's picture data say: its size, its channels, how the camera was held."""

from typing import NamedTuple

# The eight ways in which EXIF says that a picture is stored; from 5 on, rows and columns have changed places.
UPRIGHT, FIRST_ON_ITS_SIDE, LAST = 1, 5, 8
TAIL = 64  # bytes at the end of a file that the end marker lies in: some tools leave a few behind it

STEPS = 100_000  # segments and fill bytes; what has more before its pixels is not looked through


class Header(NamedTuple):
    """height, width and channels of the frame as it is stored.

    frame, body: where the frame's segment and the picture data begin. in_rows: the data are one run from the first row
    to the last, not several passes, without a marker in between. orientation: EXIF's, 1..8, 1 where nothing is said;
    None where what is said is not clear.
    """

    height: int
    width: int
    channels: int
    frame: int
    body: int
    in_rows: bool
    orientation: int | None

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) once the picture is upright."""
        on_its_side = (self.orientation or UPRIGHT) >= FIRST_ON_ITS_SIDE
        return (self.width, self.height) if on_its_side else (self.height, self.width)


def read_header(data: bytes) -> Header | None:
    """The header of a JPEG; None where it has no frame or no picture data, or is put together so that a decoder may see
    another one: with two frames, with marks that have no length, or with a length that can't be."""
    frame, notes, marks, at, end, steps = 0, [], False, 2, len(data), 0
    while at + 4 < end and data[at] == 0xFF and steps < STEPS:
        steps += 1
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        length = data[at + 2] << 8 | data[at + 3]
        if marker <= 0x01 or 0xD0 <= marker <= 0xD9 or length < 2:
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 10 <= end:
            if frame:
                return None
            frame = at
        elif marker == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
            notes.append(data[at + 10 : at + 2 + length])
        elif marker == 0xDD or (marker == 0xE2 and data.startswith(b"MPF\0", at + 4)):
            marks = True  # at each restart interval, or before the next of several pictures
        elif marker == 0xDA:  # start of scan
            break
        at += 2 + length
    else:
        return None
    if not frame:
        return None
    height, width = (data[frame + k] << 8 | data[frame + k + 1] for k in (5, 7))
    channels = data[frame + 9]
    # Sequential, all channels in the first scan, and nothing that counts the rows.
    in_rows = data[frame + 1] in (0xC0, 0xC1) and data[at + 4] == channels and not marks
    return Header(height, width, channels, frame, at + 2 + length, in_rows, _orientation_of(notes))


def first_rows(data: bytes, header: Header, rows: int) -> bytes:
    """A JPEG that ends a little below its first `rows` rows; `data` where it can't be made to end there.

    The frame gets another height, and zeros take the place of the end marker: behind the last row a decoder then looks
    for a marker, finds none and says nothing. Where EXIF turns the picture its upper rows are not the first: `data`.
    """
    rows += 16  # colours are interpolated between rows: a few below must be there
    if rows >= header.height or not header.in_rows or header.orientation not in (1, 2):
        return data
    height = header.frame + 5
    stop = data.rfind(b"\xff\xd9", max(header.body, len(data) - TAIL))
    return b"".join((data[:height], rows.to_bytes(2, "big"), data[height + 2 : stop], bytes(64)))


def _orientation_of(notes: list[bytes]) -> int | None:
    """EXIF's orientation of these segments (their TIFF structures); None where they are several or it is not clear."""
    if not notes:
        return UPRIGHT
    return exif_orientation(notes[0]) if len(notes) == 1 else None


def exif_orientation(tiff: bytes) -> int | None:
    """Tag 0x0112 of the first directory (TIFF 6.0, section 2): 1 where it is absent, None where it is not clear."""
    if tiff[:4] not in (b"II*\0", b"MM\0*"):
        return None

    def number(at: int, count: int) -> int:
        return int.from_bytes(tiff[at : at + count], "little" if tiff[0] == ord("I") else "big")

    start = number(4, 4)
    if start < 8 or start + 2 > len(tiff):
        return None
    first, stop = start + 2, start + 2 + 12 * number(start, 2)
    if stop > len(tiff):
        return None
    found = [at for at in range(first, stop, 12) if number(at, 2) == 0x0112]
    if not found:
        return UPRIGHT
    value, short_one = number(found[0] + 8, 2), number(found[0] + 2, 2) == 3 and number(found[0] + 4, 4) == 1
    return value if len(found) == 1 and short_one and UPRIGHT <= value <= LAST else None
