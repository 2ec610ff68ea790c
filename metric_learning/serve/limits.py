"""How much the page takes: bytes, pixels, requests at a time and a second; and what it says to more."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MB = 1_000_000
MAX_FILE = 20 * MB  # bytes a picture
MAX_BODY = 2 * MAX_FILE + MB  # bytes a request: two pictures and what stands between them
MAX_PIXELS = 50_000_000
MAX_TOP_K = 100
JOBS = 8  # embedding or waiting for it at a time
SHOWN = 2  # pictures of the gallery that are decoded at a time
THREADS = JOBS + 4  # so that the page answers while all jobs wait
CONNECTIONS = 64
JOB_RATE, JOB_BURST = 10.0, 40.0  # comparisons and searches a second from one address
READ_RATE, READ_BURST = 100.0, 500.0  # everything else: a search shows up to MAX_TOP_K pictures
ADDRESSES = 1024  # that are remembered


class RequestError(Exception):
    """A request that is not answered: the HTTP status, one line for its sender, the field that is at fault.

    retry: seconds after which it may be sent again.
    """

    def __init__(self, status: int, message: str, field: str | None = None, retry: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.retry = status, message, field, retry


class RateLimit:
    """At most `burst` requests of an address at once, and `rate` a second in the long run. Safe to use from threads."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> (requests left, when), by when
        self._lock = threading.Lock()

    def take(self, address: str) -> None:
        """Count one request; a RequestError (429) where the address has none left."""
        with self._lock:
            now = self._clock()
            left, then = self._left.pop(address, (self._burst, now))
            left = min(self._burst, left + (now - then) * self._rate)
            self._left[address] = (left - 1 if left >= 1 else left, now)
            while len(self._left) > ADDRESSES:
                self._left.popitem(last=False)
        if left < 1:
            wait = max(1, round((1 - left) / self._rate))
            raise RequestError(
                429, f"Too many requests: {self._rate:g} a second are answered. Wait a moment.", retry=wait
            )
