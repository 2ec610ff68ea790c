"""Small JPEG pictures inside the page."""

import base64
import io
import os

from PIL import Image

from metric_learning.data.pictures import PictureError, Source, read_picture
from metric_learning.page.parts import LONGEST_NAME, Thumb, short

SIDE, QUALITY = 112, 70


def data_uri(picture: Source) -> str | None:
    """The picture in a square of SIDE pixels, its aspect kept, as a data: address; None where it can't be read."""
    try:
        pixels = read_picture(picture)
    except PictureError:
        return None
    height, width = pixels.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    buffer = io.BytesIO()
    small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    small.save(buffer, format="jpeg", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def thumb(picture: Source, role: str, *lines: str) -> Thumb:
    """A picture with its role and what is said below it."""
    name = short(os.path.basename(str(picture)), LONGEST_NAME)
    return Thumb(data_uri(picture), f"{lines[0] if lines else role}: {name}", role, [short(said) for said in lines])
