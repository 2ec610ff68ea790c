"""Who may ask: names that this server is called by, pages of its own; and the headers that keep a browser from more."""

import ipaddress
import socket
from urllib.parse import urlsplit

from flask import Request, Response

from metric_learning.serve.limits import RequestError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
READING = ("GET", "HEAD", "OPTIONS")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Hosts:
    """The names that a server on `host` is asked by.

    A page elsewhere whose name is made to lead here (DNS rebinding) asks by its own name, and is refused. Addresses are
    no names, so that a server that is open to others takes any.
    """

    def __init__(self, host: str) -> None:
        here = socket.gethostname().lower()
        self._open = not is_loopback(host)
        self._names = LOOPBACK | {host.lower()} | ({here, f"{here}.local"} if self._open else set())

    def check(self, typed: str) -> None:
        """A RequestError (403) unless `typed`, a Host header, names this server; any port may lead to it."""
        name = _name(typed)
        if name not in self._names and not (self._open and _is_address(name)):
            raise RequestError(403, "This server is not called that. Ask it by the address that it printed.")


def _name(host: str) -> str:
    """'[::1]:8400' -> '::1'; '' for what is no host."""
    try:
        parts = urlsplit(f"//{host}")
        return "" if parts.path or parts.query or parts.username is not None else (parts.hostname or "")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_origin(request: Request) -> None:
    """A RequestError (403) for what a page of another origin makes a browser send; programs say none, and may."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    foreign = origin is not None and origin.lower().split("://")[-1] != request.headers.get("Host", "").lower()
    asks = request.method not in READING or request.path.startswith("/api/")
    if asks and (foreign or site not in ("none", "same-origin")):
        raise RequestError(403, "A page of another site can't ask this server.")


def with_headers(response: Response) -> Response:
    """The response, telling browsers to load nothing from elsewhere, guess no types, keep and frame nothing."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    return response
