"""What a run says: to the terminal, to its log.txt, to VisualDL."""

import contextlib
import io
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from metric_learning import records
from metric_learning.checks import UserError

BUCKETS = 50  # of a histogram


class RunLog:
    """Lines go to the terminal and, with the time, to `<folder>/log.txt`; numbers and pictures to `<folder>/visualdl`.

    step: that of the run so far; what VisualDL's records have behind it, of a session that was killed, is left out.
    What goes to VisualDL is named `group/name`, which is how its pages are ordered.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        from visualdl import LogWriter

        place = folder / "visualdl"
        try:
            self._file = open(folder / "log.txt", "a", encoding="utf-8", errors="surrogateescape", buffering=1)  # noqa: SIM115
            with contextlib.redirect_stdout(io.StringIO()):  # it tells that the file is there already
                name = records.taken_over(place, step)
                self._writer = LogWriter(logdir=str(place), file_name=name, display_name=_text(folder.name))
        except OSError as error:
            raise UserError(f"Can't write the log in {folder}: {error.strerror}.") from error

    def say(self, text: str) -> None:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
        self._write(text)

    def _write(self, text: str) -> None:
        try:
            self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        except OSError as error:
            raise UserError(f"Can't write {self._file.name}: {error.strerror}. Free some space and resume.") from error

    def record(self, lines: Iterable[str]) -> None:
        """Put into log.txt what was printed before there was one."""
        for line in lines:
            self._write(line)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(tag=_tag(group, name), value=value, step=step)

    def histograms(self, group: str, values: Mapping[str, NDArray[np.floating]], step: int) -> None:
        """How the values (any shape) of each name lie. In float64: a range of a few float32 numbers has no 50 parts."""
        for name, found in values.items():
            if found.size and np.isfinite(found).all():
                self._writer.add_histogram(_tag(group, name), np.asarray(found, np.float64), step, buckets=BUCKETS)

    def picture(self, group: str, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """picture: RGB (H, W, 3)."""
        self._writer.add_image(_tag(group, name), picture, step)

    def embeddings(self, group: str, name: str, rows: NDArray[np.float32], about: Mapping[str, Sequence[str]]) -> None:
        """Embeddings (N, D) for the projector, with N words each of what is known `about` them."""
        words = [[_text(word) for word in column] for column in about.values()]
        self._writer.add_embeddings(_tag(group, name), rows, words, list(about))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, UserError):  # of a full disk has been told already
            if isinstance(error, UserError):
                self._write(f"stopped: {error}")
        for file in (self._writer, self._file):
            with contextlib.suppress(OSError):
                file.close()


def _tag(group: str, name: str) -> str:
    """VisualDL writes / as %, so it refuses that."""
    return _text(f"{group}/{name}").replace("%", "_")


def _text(word: str) -> str:
    """A name as text: a file's may hold bytes that are none."""
    return word.encode("utf-8", "replace").decode()


class NoLog(RunLog):
    """Says and writes nothing: what every process but the first has."""

    def __init__(self) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def record(self, lines: Iterable[str]) -> None:
        pass

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        pass

    def histograms(self, group: str, values: Mapping[str, NDArray[np.floating]], step: int) -> None:
        pass

    def picture(self, group: str, name: str, picture: NDArray[np.uint8], step: int) -> None:
        pass

    def embeddings(self, group: str, name: str, rows: NDArray[np.float32], about: Mapping[str, Sequence[str]]) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
