"""A service on predictors that need no network, and requests to it."""

import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from metric_learning.data.transforms import PictureSpec
from metric_learning.extract import Reader
from metric_learning.gallery import Gallery
from metric_learning.metrics.similarity import Calibration, StoredPoint
from metric_learning.serve.app import make_app
from metric_learning.serve.service import Service
from metric_learning.stages.scoring import Judge

MODEL = {"name": "Halves", "picture": [3, 16, 16], "computed_by": "a test"}
CALIBRATION = Calibration(8.0, StoredPoint(0.25, 0.001, 100, 2000), {"Asian": StoredPoint(0.5, 0.001, 50, 1000)})
READER = Reader(PictureSpec((3, 16, 16), (0.5,) * 3, (0.5,) * 3, test_crop=1.0))


class Halves:
    """A predictor whose embedding is the mean colour of the left and of the right half."""

    precision = "float32"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        halves = images[..., :8].mean(axis=(2, 3)), images[..., 8:].mean(axis=(2, 3))
        return np.concatenate(halves, axis=1).astype(np.float32) + 0.01


def picture(left, right=None, format: str = "PNG", size=(16, 16), **how) -> bytes:
    """The bytes of a picture of two colours."""
    image = Image.new("RGB", size, tuple(left))
    image.paste(tuple(right or left), (size[0] // 2, 0, size[0], size[1]))
    held = io.BytesIO()
    image.save(held, format, **how)
    return held.getvalue()


RED, BLUE = picture((250, 10, 10)), picture((10, 10, 250))
NOISE = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)


def encoded(ending: str) -> bytes:
    return cv2.imencode(ending, NOISE)[1].tobytes()


def service(folder=None, judge: Judge | None = None, predictor=None, group=None, count: int = 6) -> Service:
    """With a gallery of `count` pictures written to the folder, if there is one."""
    gallery = None
    if folder is not None:
        colours = np.random.default_rng(1).integers(0, 256, (count, 2, 3)).tolist()
        for i, (left, right) in enumerate(colours):
            (folder / f"person{i}").mkdir(parents=True, exist_ok=True)
            (folder / f"person{i}" / "a.png").write_bytes(picture(left, right, size=(90, 60)))
        paths = [str(folder / f"person{i}" / "a.png") for i in range(count)]
        images = [np.array(colour, np.float32).repeat(8, axis=0) / 127.5 - 1 for colour in colours]
        batch = np.stack([np.broadcast_to(image.T[:, None, :], (3, 16, 16)) for image in images])
        gallery = Gallery(Halves()(batch), paths, {"digest": "d"})
    return Service(predictor or Halves(), READER, judge or Judge(None), group, gallery)


def form(**files: bytes | str | list[bytes]) -> tuple[bytes, str]:
    """(body, content type) of a form as curl sends it: bytes are files, a list is one field several times."""
    parts = []
    for name, given in files.items():
        for data in given if isinstance(given, list) else [given]:
            file = "" if isinstance(data, str) else '; filename="x.png"'
            head = f'--edge\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
            parts += [head.encode(), data.encode() if isinstance(data, str) else data, b"\r\n"]
    return b"".join([*parts, b"--edge--\r\n"]), "multipart/form-data; boundary=edge"


@dataclass
class Asked:
    """A client that sends pictures."""

    app: object

    def post(self, path: str, headers=None, **files):
        body, kind = form(**files)
        return self.app.test_client().post(path, data=body, headers=headers, content_type=kind)

    def get(self, path: str, follow_redirects: bool = False, **headers):
        return self.app.test_client().get(path, headers=headers, buffered=True, follow_redirects=follow_redirects)


def asked(made: Service, **how) -> Asked:
    return Asked(make_app(made, MODEL, **how))
