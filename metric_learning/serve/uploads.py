"""Pictures of a request -> their bytes; what is missing, empty, too large or no picture is a RequestError."""

import io

from flask import Request
from PIL import Image

from metric_learning.data.pictures import FORMATS, Encoded
from metric_learning.serve.limits import MAX_FILE, MAX_PIXELS, MB, RequestError


def pictures_of(request: Request, fields: tuple[str, ...]) -> list[Encoded]:
    """The files of a multipart/form-data request, in the order of `fields`: each there once, and nothing else."""
    if request.mimetype != "multipart/form-data":
        raise RequestError(400, f"Send multipart/form-data with {_listed(fields)}, such as by curl {_curl(fields)}.")
    for field in (*request.files, *request.form):
        if field not in fields:
            raise RequestError(400, f"There is no field {field[:40]!r} here: send {_listed(fields)}.", field[:40])
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
    """By the header alone: nothing is decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
    except MemoryError:
        raise
    except Exception:  # a broken file makes Pillow raise nearly anything
        raise RequestError(422, f"The file is not a picture in a known format ({', '.join(FORMATS)}).", field) from None
    if width * height > MAX_PIXELS:
        millions = MAX_PIXELS // 1_000_000
        raise RequestError(413, f"The picture has {width} x {height} pixels; {millions} million are the limit.", field)


def _listed(fields: tuple[str, ...]) -> str:
    return f"the {'files' if fields[1:] else 'file'} {' and '.join(fields)}"


def _curl(fields: tuple[str, ...]) -> str:
    return " ".join(f"-F {field}=@{field}.jpg" for field in fields)
