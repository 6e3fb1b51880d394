"""What keeps strangers' pages, and too eager visitors, out.

- Requests must name a host, and WebSockets an origin, that the studio is known by: a page of somebody else's can neither open the
  socket, since browsers say whose page asks, nor reach it by a name of its own.
- A page may load nothing that is not the studio's, and nobody may frame it.
- An address has so many pages and orders at a time.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InvalidInput
from ..security import host_and_port, on_loopback

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class TooMany(Exception):
    """A visitor has as many orders under way as it may."""


@dataclass
class Visits:
    """Counts what each address has open."""

    pages: int = 16
    orders: int = 16
    _pages: Counter[str] = field(default_factory=Counter)
    _orders: Counter[str] = field(default_factory=Counter)

    @contextlib.contextmanager
    def page(self, address: str) -> Iterator[None]:
        """Raises TooMany."""
        with _counted(self._pages, address, self.pages, "This address has {} pages of the studio open; close one."):
            yield

    @contextlib.contextmanager
    def job(self, address: str) -> Iterator[None]:
        """Raises TooMany."""
        message = "You have {} orders under way, as many as one visitor may; wait for one, or cancel it."
        with _counted(self._orders, address, self.orders, message):
            yield


@contextlib.contextmanager
def _counted(counter: Counter[str], address: str, most: int, message: str) -> Iterator[None]:
    if counter[address] >= most:
        raise TooMany(message.format(most))
    counter[address] += 1
    try:
        yield
    finally:
        counter[address] -= 1
        if not counter[address]:
            del counter[address]


def allowed_origins(listen: str, port: int, given: Sequence[str]) -> frozenset[str]:
    """Those under which a studio that listens there is known. Raises InvalidInput.

    On the loopback interface they are known; elsewhere whoever runs it says what visitors type.
    """
    for origin in given:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or origin.lower().rstrip("/") != _origin(origin):
            raise InvalidInput("origin", f"is {origin!r}; give what visitors type, such as https://studio.example.")
    host, _ = host_and_port(listen)
    if on_loopback(host):
        own = {
            f"http://{name}:{port}"
            for name in ("127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host)
        }
        return frozenset(own | {_origin(origin) for origin in given})
    if not given:
        raise InvalidInput("origin", f"is missing; {host} is open to the network, so say what visitors type.")
    return frozenset(_origin(origin) for origin in given)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


class Guard:
    """The middleware that does so."""

    def __init__(self, app: ASGIApp, origins: frozenset[str]) -> None:
        self._app = app
        self._origins = origins
        self._hosts = {urlsplit(origin).netloc for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        known = headers.get("host", "").lower() in self._hosts
        if scope["type"] == "websocket":
            if known and headers.get("origin", "").lower() in self._origins:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                found.update(HEADERS)
                found.setdefault("cache-control", "no-cache")  # else a browser mixes files of two versions
            await send(message)

        if known:
            await self._app(scope, receive, with_headers)
        else:
            await with_headers({"type": "http.response.start", "status": 421, "headers": []})
            await send({"type": "http.response.body", "body": b"The studio is not known by this name; see --origin.\n"})
