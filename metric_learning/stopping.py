"""Ctrl-C and SIGTERM: a command that is told to stop tidies up, and says by its exit status that it was stopped."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from metric_learning.checks import Terminated


def status_of(stop: KeyboardInterrupt) -> tuple[str, int]:
    """The word for a stop, and its exit status: that of a shell whose command the signal has ended."""
    return ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)


def end_quietly() -> None:
    """What the signal left half made, say a class of a package just being imported, does not complain as it goes."""
    sys.unraisablehook = lambda _: None


@contextmanager
def on_sigterm() -> Iterator[None]:
    """Inside, SIGTERM raises Terminated, as Ctrl-C raises KeyboardInterrupt: nothing half-written stays behind."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def later() -> Iterator[None]:
    """Inside, both only take effect at the end: Paddle's import would make pages of them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise Terminated if came[0] == signal.SIGTERM else KeyboardInterrupt
