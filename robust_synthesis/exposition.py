"""`/metrics` for Prometheus, on a port and in threads of its own: a scrape and the event loop never wait for each other."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, start_http_server

from .errors import InvalidInput


def serve(registry: CollectorRegistry, host: str, port: int) -> Callable[[], None]:
    """Serve the registry; returns what stops it. Raises InvalidInput where the port is taken."""
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise InvalidInput(
            "metrics_port", f"cannot listen on {host} port {port} ({error.strerror}); choose another."
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
