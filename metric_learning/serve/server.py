"""The application on a port, until Ctrl-C or SIGTERM."""

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import waitress
from flask import Flask

from metric_learning.checks import UserError
from metric_learning.serve import limits

ANY = ("0.0.0.0", "::", "")


def serve(app: Flask, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer until Ctrl-C or SIGTERM; ready(url) when it listens. port 0: any that is free.

    UserError where it can't listen. Requests that are being answered have five seconds to end.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # that requests wait is nothing to tell
    with _bound(host, port) as listening:
        server = waitress.create_server(
            app,
            sockets=[listening],
            threads=limits.THREADS,
            connection_limit=limits.CONNECTIONS,
            channel_timeout=30,  # seconds that a connection may say nothing
            cleanup_interval=10,
            max_request_header_size=16_384,
            max_request_body_size=2 * limits.MAX_BODY,  # what is less is refused by the application, with a reason
            ident=None,
        )
        _run(server, lambda: ready(f"http://{_shown(host)}:{listening.getsockname()[1]}"))


def _run(server: Any, ready: Callable[[], None]) -> None:
    with _stopping_on_sigterm():
        try:
            ready()
            server.run()  # ends by itself on KeyboardInterrupt
        except KeyboardInterrupt:
            server.task_dispatcher.shutdown()
        finally:
            server.close()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that is bound there; UserError where it can't be."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"Can't listen on {host}:{port}: {reason}. Choose another --port or --host.") from error


def _shown(host: str) -> str:
    name = socket.gethostname() if host in ANY else host
    return f"[{name}]" if ":" in name else name


@contextlib.contextmanager
def _stopping_on_sigterm() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def stop(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
