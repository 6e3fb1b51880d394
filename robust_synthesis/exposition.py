"""`/metrics` for Prometheus, on a port and in threads of its own: a scrape and the event loop never wait for each other."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from .errors import InvalidInput

log = logging.getLogger(__name__)
HOST = "127.0.0.1"
"""Where nobody says otherwise: it asks for no key."""
CONNECTIONS = 16
"""At a time, each of which has a thread; more are hung up on."""
SECONDS = 10.0
"""Of a connection, from its begin to its end."""


class _Server(ThreadingWSGIServer):
    """Has no time for clients who say nothing, or read nothing."""

    def __init__(self, *arguments: Any) -> None:
        self._since: dict[Any, float] = {}
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._since) >= CONNECTIONS:
            super().shutdown_request(request)
            return
        self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second: whoever has been there for too long finds the connection at its end, and so does its thread."""
        for request, since in list(self._since.items()):
            if time.monotonic() > since + SECONDS:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Nothing of ours: the client has gone."""
        log.debug("a client of /metrics has gone", exc_info=True)


class _Ipv6Server(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Scrapes are no news."""


def serve(registry: CollectorRegistry, host: str, port: int) -> Callable[[], None]:
    """Serve the registry; returns what stops it. Raises InvalidInput where the port is taken."""
    kind = _Ipv6Server if ":" in host else _Server
    try:
        server = make_server(host, port, make_wsgi_app(registry), kind, _Handler)
    except OSError as error:
        raise InvalidInput(
            "metrics_port", f"cannot listen on {host} port {port} ({error.strerror}); choose another."
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
