"""Trained weights in a program of one's own: a run or a file -> a function from pictures to embeddings."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.data.loader import BadPictures
from metric_learning.data.pictures import Encoded, Picture
from metric_learning.data.pictures import Source as FileOrBytes
from metric_learning.embedder import Embedder, EmbedderSpec, saved_calibration, saved_spec
from metric_learning.engine import Predictor
from metric_learning.extract import Reader, embed
from metric_learning.runs import weights_file
from metric_learning.weights import foreign_spec, load_weights

Source = str | Path | bytes | Picture


class PictureEmbedder:
    """Pictures -> embeddings, by weights that `load` has read.

    network: the Embedder, a Paddle layer in evaluation mode. spec: what pictures it takes. size: D. calibration: what
    cosines of these weights mean, None where the file does not say. model: what a Gallery keeps of them. way: by what
    the embeddings are computed, known after the first.
    """

    def __init__(self, file: Path, network: Embedder, reader: Reader, precision: str) -> None:
        self.network, self.spec, self.size = network, network.spec, network.size
        self.calibration = saved_calibration(file)
        self.model = made_by(file, network, reader)
        self._reader = reader
        self._predictor = Predictor(network, network.spec.picture.shape, precision)

    @property
    def way(self) -> str:
        return self._predictor.way

    def __call__(self, pictures: Sequence[Source]) -> NDArray[np.float32]:
        """N pictures -> embeddings (N, D) float32, not normalised: their cosine is what tells pictures apart.

        A picture is a path, the bytes of a picture file, or pixels (H, W, 3) uint8 RGB of any size. One that can't be
        read is a UserError with its name.
        """
        if isinstance(pictures, str | Path | bytes | np.ndarray):
            raise UserError("Pictures are given as a list, a single one too: embed([picture]).")
        if not len(pictures):
            return np.empty((0, self.size), np.float32)
        given = [_source(picture, place) for place, picture in enumerate(pictures)]
        return embed(self._predictor, given, self._reader, BadPictures(len(given), 0.0), alone=True)[1]


def load(
    weights: str | Path,
    spec: EmbedderSpec | None = None,
    *,
    flip_test: bool = False,
    batch_size: int = 50,
    workers: int = 2,
    precision: str = "auto",
) -> PictureEmbedder:
    """A run's folder (its best weights) or a weights file, of this toolkit or foreign -> what embeds pictures by them.

    spec: the network and its pictures, for a file that does not say them. flip_test: an embedding is that of the
    picture plus that of its mirror image. workers: threads that read pictures. precision: as --precision of infer.py.
    UserError where there are no weights, they do not fit, or no one says what network they are of.
    """
    file = weights_file(weights)
    known = spec or saved_spec(file) or (foreign_spec(file) or (None,))[0]
    if known is None:
        raise UserError(f"{file} does not say what network it is for. Give load() an EmbedderSpec.")
    network = Embedder(known)
    load_weights(network, file)
    network.eval()
    reader = Reader(known.picture, batch_size, workers, flip_test, quiet=True)
    return PictureEmbedder(file, network, reader, precision)


def made_by(file: Path, embedder: Embedder, reader: Reader) -> dict[str, Any]:
    """What embeddings depend on: it stands in their file, and is compared before they are searched or added to."""
    made = {"weights": str(file), "digest": fingerprint(embedder), "flip_test": reader.flip_test}
    return made | embedder.spec.to_dict()


def fingerprint(embedder: Embedder) -> str:
    """32 hex digits of the names and values of its weights, whatever else their file holds (a calibration, say)."""
    found = hashlib.blake2b(digest_size=16)
    for name, value in sorted(embedder.state_dict().items()):
        array = np.ascontiguousarray(value.numpy())
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _source(picture: Source, place: int) -> FileOrBytes:
    if isinstance(picture, bytes):
        return Encoded(f"picture {place}", picture)
    if isinstance(picture, str | Path):
        return str(picture)
    if not isinstance(picture, np.ndarray):
        raise UserError(
            f"picture {place}: must be a path, the bytes of a picture file, or pixels (H, W, 3) uint8 in RGB; got "
            f"{type(picture).__name__}. (OpenCV gives None for a file that is not there.)"
        )
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise UserError(
            f"picture {place}: pixels must be (H, W, 3) uint8 in RGB; got {picture.shape} of {picture.dtype}."
        )
    return Encoded(f"picture {place}", cv2.imencode(".bmp", picture[:, :, ::-1])[1].tobytes())
