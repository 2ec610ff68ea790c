"""What a run says: to the terminal, to its log.txt, to VisualDL."""

import contextlib
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm import tqdm

from metric_learning.checks import UserError


class RunLog:
    """Lines go to the terminal and, with the time, to `<folder>/log.txt`; scalars to `<folder>/visualdl`."""

    def __init__(self, folder: Path) -> None:
        from visualdl import LogWriter

        try:
            self._file = open(folder / "log.txt", "a", encoding="utf-8", errors="surrogateescape", buffering=1)  # noqa: SIM115
            self._writer = LogWriter(logdir=str(folder / "visualdl"))
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

    def scalars(self, tag: str, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(tag=f"{tag}/{name}", value=value, step=step)

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


class NoLog(RunLog):
    """Says and writes nothing: what every process but the first has."""

    def __init__(self) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def record(self, lines: Iterable[str]) -> None:
        pass

    def scalars(self, tag: str, values: dict[str, float], step: int) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
