"""Pictures of a request -> their bytes; what is missing, empty, too large or no picture is a RequestError."""

import io
from typing import Any

from flask import Request
from PIL import Image

from metric_learning.data.limits import check_work
from metric_learning.data.pictures import FORMATS, Encoded
from metric_learning.serve.limits import MAX_FILE, MAX_PIXELS, MB, RequestError


class InMemory(Request):
    """A request whose files stay in memory: there are two at most, and MAX_BODY bounds them.

    (The server may hold a large body in a file without a name before.)
    """

    def _get_file_stream(self, *about: Any, **more: Any) -> io.BytesIO:
        return io.BytesIO()


def pictures_of(request: Request, fields: tuple[str, ...]) -> list[Encoded]:
    """The files of a multipart/form-data request, in the order of `fields`: each there once, and nothing else."""
    if request.mimetype != "multipart/form-data":
        raise RequestError(400, f"Send multipart/form-data with {_listed(fields)}, such as by curl {_curl(fields)}.")
    for field in (*request.files, *request.form):
        if field not in fields:
            shown = (field or "")[:40]  # Werkzeug has None for a part without a name
            raise RequestError(400, f"There is no field {shown!r} here: send {_listed(fields)}.", shown)
    return [_picture(request, field) for field in fields]


def _picture(request: Request, field: str) -> Encoded:
    given = request.files.getlist(field)
    if field in request.form:
        raise RequestError(400, f"{field} must be a file, not text: curl {_curl((field,))}.", field)
    if not given:
        raise RequestError(400, f"The field {field} is missing: send a picture in it.", field)
    if len(given) > 1:
        raise RequestError(400, f"The field {field} was sent {len(given)} times: send one picture in it.", field)
    data = given[0].stream.read(MAX_FILE + 1)
    if not data:
        raise RequestError(400, "The file is empty.", field)
    if len(data) > MAX_FILE:
        raise RequestError(413, f"The file is larger than {MAX_FILE // MB} MB.", field)
    _check_pixels(data, field)
    return Encoded(field, data)


def _check_pixels(data: bytes, field: str) -> None:
    """By the header alone: nothing is decoded, and one that would take minutes is not begun."""
    large = RequestError(413, f"The picture has more than {MAX_PIXELS // 1_000_000} million pixels.", field)
    try:
        check_work(data)
    except ValueError as error:
        raise RequestError(422, f"The file would keep the server busy: {error}.", field) from None
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            pixels = opened.width * opened.height
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        raise large from None
    except Exception:  # a broken file makes Pillow raise nearly anything
        raise RequestError(422, f"The file is not a picture in a known format ({', '.join(FORMATS)}).", field) from None
    if pixels > MAX_PIXELS:
        raise large


def _listed(fields: tuple[str, ...]) -> str:
    return f"the {'files' if fields[1:] else 'file'} {' and '.join(fields)}"


def _curl(fields: tuple[str, ...]) -> str:
    return " ".join(f"-F {field}=@{field}.jpg" for field in fields)
