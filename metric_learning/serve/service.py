"""What the page asks for: two pictures compared, the nearest of a gallery, a picture of the gallery."""

import dataclasses
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.data.loader import BadPictures
from metric_learning.data.pictures import Encoded, PictureError, open_picture
from metric_learning.engine import Predictor
from metric_learning.extract import Reader, embed
from metric_learning.gallery import Gallery
from metric_learning.metrics.cosine import unit_rows
from metric_learning.metrics.group_means import GroupMeans
from metric_learning.metrics.similarity import Calibration
from metric_learning.serve.limits import JOBS, SHOWN, RequestError

SHOWN_SIDE = 480  # pixels of the longer side of a picture of the gallery
Result = TypeVar("Result")


class Judge(Protocol):
    """What cosines mean, by what is stored with the weights or was typed."""

    @property
    def calibration(self) -> Calibration | None: ...
    @property
    def typed(self) -> float | None: ...
    @property
    def means(self) -> GroupMeans | None: ...
    def similarity(self, cosines: NDArray[np.float32], group: str | None) -> NDArray[np.float64]: ...
    def threshold(self, group: str | None) -> float | None: ...
    def own(self, group: str | None) -> str | None: ...
    def said(self, group: str | None) -> str: ...


class Service:
    """Answers, as what becomes JSON. Safe to use from many threads.

    One thread of its own embeds and searches: memory stays that of one job, and the math library, which keeps a team of
    threads for every thread that calls it, keeps one. More than JOBS at a time are a RequestError (503).
    """

    def __init__(
        self,
        predictor: Predictor,
        reader: Reader,
        judge: Judge,
        group: str | None = None,
        gallery: Gallery | None = None,
    ) -> None:
        self._predictor, self._judge, self._group = predictor, judge, group
        self._own = judge.own(group)  # the group whose operating point holds
        self._reader = dataclasses.replace(reader, batch_size=2, workers=0, quiet=True)
        self._jobs, self._shown = threading.BoundedSemaphore(JOBS), threading.BoundedSemaphore(SHOWN)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedding")
        self._embeddings = self._thread.submit(self._embed, [_gray()] * 2).result()  # chooses how, and fails here
        self._paths = gallery.paths if gallery is not None else []
        self._names = names_of(self._paths)
        self._gallery = gallery
        if gallery is not None and len(gallery):
            self._gallery = dataclasses.replace(gallery, embeddings=self._less(gallery.embeddings))

    @property
    def count(self) -> int | None:
        """The pictures of the gallery; None without one."""
        return None if self._gallery is None else len(self._gallery)

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def meaning(self) -> dict[str, Any]:
        """What a similarity means: whether it was fitted, the threshold as cosine and similarity, its rate if known."""
        threshold, calibration = self._judge.threshold(self._own), self._judge.calibration
        stored = calibration is not None and self._judge.typed is None
        return {
            "calibrated": calibration is not None,
            "threshold": threshold,
            "threshold_similarity": None if threshold is None else self._similarity([threshold])[0],
            "far": calibration.at(self._own).far if calibration and stored else None,
            "threshold_from": self._judge.said(self._own),
            "group": self._group,
        }

    def compare(self, a: Encoded, b: Encoded) -> dict[str, Any]:
        """similarity 0..1, cosine -1..1, whether they are the same (None without a threshold); and `meaning`."""

        def job() -> float:
            units = unit_rows(self._less(self._embed([a, b])))
            return float(units[0] @ units[1])

        return self._judged([self._run(job)])[0] | self.meaning()

    def search(self, picture: Encoded, top_k: int) -> dict[str, Any]:
        """The top_k nearest of the gallery, nearest first: `results` with row, name, similarity, cosine and same."""
        gallery = self._gallery
        if gallery is None:
            raise RequestError(404, "There is no gallery to search. Start the server with one.")

        def job() -> tuple[list[float], list[int]]:
            cosines, rows = gallery.search(self._less(self._embed([picture])), top_k)
            return cosines[0].tolist(), rows[0].tolist()

        cosines, rows = self._run(job)
        found = [{"row": row, "name": self._names[row]} for row in rows]
        results = [named | judged for named, judged in zip(found, self._judged(cosines), strict=True)]
        return {"count": len(gallery), "results": results} | self.meaning()

    def picture(self, row: int) -> bytes:
        """A picture of the gallery as a small JPEG, without what the file says of the camera or the place.

        Rows are all that can be asked for; what can't be read as a picture (any more) is a RequestError (404).
        """
        if not 0 <= row < len(self._paths):
            raise RequestError(404, f"The gallery has no row {row}.")
        try:
            with self._shown:
                return _small_jpeg(self._paths[row])
        except PictureError:
            raise RequestError(404, "The picture is gone, or can't be read any more.") from None

    # ---- in the embedding thread

    def _run(self, job: Callable[[], Result]) -> Result:
        if not self._jobs.acquire(blocking=False):
            raise RequestError(503, "The server is busy. Try again in a moment.", retry=1)
        try:
            return self._thread.submit(job).result()
        finally:
            self._jobs.release()

    def _embed(self, pictures: Sequence[Encoded]) -> NDArray[np.float32]:
        bad = BadPictures(len(pictures), 1.0)
        try:
            kept, embeddings = embed(self._predictor, pictures, self._reader, bad, alone=True)
        except UserError:
            if not len(bad):
                raise
            kept = np.empty(0, np.int64)
        if len(kept) < len(pictures):
            field, why = next(iter(bad.reasons().items()))
            raise RequestError(422, f"Can't read the picture: {why.removeprefix(f'{field}: ')}.", field)
        if not np.isfinite(embeddings).all():
            raise RequestError(422, "The network gives this picture an embedding that is not finite.")
        return embeddings

    def _less(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        means = self._judge.means
        return means.taken_off(embeddings, self._group and [self._group] * len(embeddings)) if means else embeddings

    # ---- in words and numbers

    def _similarity(self, cosines: Sequence[float]) -> list[float]:
        found: Any = np.array(cosines)  # float64: half is exactly the threshold
        return [float(value) for value in self._judge.similarity(found, self._own)]

    def _judged(self, cosines: Sequence[float]) -> list[dict[str, Any]]:
        threshold = self._judge.threshold(self._own)
        return [
            {"similarity": value, "cosine": cosine, "same": None if threshold is None else cosine >= threshold}
            for value, cosine in zip(self._similarity(cosines), cosines, strict=True)
        ]


def names_of(paths: Sequence[str]) -> list[str]:
    """Paths as others may see them: from the folder on that holds them all, as text."""
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
        names = [os.path.relpath(path, common or ".") for path in paths]
    except ValueError:  # of several drives, or some absolute and some not
        names = ["/".join(Path(path).parts[-2:]) for path in paths]
    return [name.encode(errors="replace").decode() for name in names]


def _gray() -> Encoded:
    return Encoded("a gray picture", cv2.imencode(".png", np.full((64, 64, 3), 128, np.uint8))[1].tobytes())


def _small_jpeg(path: str) -> bytes:
    opened = open_picture(path)
    if not isinstance(opened, np.ndarray):
        by = max(by for by in (1, 2, 4, 8) if by == 1 or max(opened.size) >= by * SHOWN_SIDE)
        opened = opened.pixels(by)
    scale = SHOWN_SIDE / max(opened.shape[:2])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in opened.shape[1::-1]]
        opened = cv2.resize(opened, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(opened, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return bytes(data)
