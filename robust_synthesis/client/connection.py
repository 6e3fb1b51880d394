"""Where the server is, and how calls to it travel."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..channel import CLIENT_PING_INTERVAL, DEFAULT_PORT, MAX_REQUEST_BYTES, PING_TIMEOUT
from ..credentials import Credentials
from ..errors import InvalidInput

SERVER_VARIABLE = "ROBUST_SYNTHESIS_SERVER"
ATTEMPTS = 5
"""Of a call, the most that gRPC allows."""


@dataclass(frozen=True)
class Connection:
    """Raises InvalidInput for an address that is none, and for files that are no PEM."""

    server: str
    """HOST[:PORT], or a target as gRPC knows them."""
    credentials: Credentials = field(default_factory=Credentials)
    attempts: int = ATTEMPTS

    def __post_init__(self) -> None:
        host, port = _split(self.server)
        if "://" not in self.server and (not host or not port.isdecimal() or not 0 < int(port) < 65536):
            raise InvalidInput("server", f"{self.server!r} is no address; give HOST:PORT.")
        if not 1 <= self.attempts <= ATTEMPTS:
            raise InvalidInput("attempts", f"is {self.attempts}; give 1 to {ATTEMPTS}.")
        key = self.credentials.key
        if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
            raise InvalidInput("key", "is empty, or not printable ASCII; give the key itself, without a line break.")

    @classmethod
    def to(
        cls,
        server: str | None,
        *,
        key: str | None,
        tls: bool,
        tls_ca: str | os.PathLike[str] | None,
        tls_cert: str | os.PathLike[str] | None,
        tls_key: str | os.PathLike[str] | None,
        attempts: int,
    ) -> Connection:
        """What a client is told, the server perhaps by the environment."""
        server = server or os.environ.get(SERVER_VARIABLE)
        if not server:
            raise InvalidInput("server", f"is missing; give HOST:PORT, or set {SERVER_VARIABLE}.")
        ca, cert, own = (None if path is None else Path(path) for path in (tls_ca, tls_cert, tls_key))
        return cls(server, Credentials(ca, cert, own, key, tls), attempts)

    @property
    def target(self) -> str:
        """Every address of the host's name is found, so that calls go to all of its gateways in turn."""
        if "://" in self.server or self.server.startswith("unix:"):
            return self.server
        host, port = _split(self.server)
        return f"dns:///{host}:{port}"

    @property
    def options(self) -> list[tuple[str, Any]]:
        return [
            ("grpc.service_config", json.dumps(self._service_config())),
            ("grpc.max_send_message_length", MAX_REQUEST_BYTES),
            ("grpc.max_receive_message_length", -1),  # results are as large as what was asked for
            ("grpc.per_rpc_retry_buffer_size", MAX_REQUEST_BYTES),  # else calls with large images are never tried again
            ("grpc.keepalive_time_ms", int(1000 * CLIENT_PING_INTERVAL)),
            ("grpc.keepalive_timeout_ms", int(1000 * PING_TIMEOUT)),
            ("grpc.max_reconnect_backoff_ms", 5000),
        ]

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        key = self.credentials.key
        return (("authorization", f"Bearer {key}"),) if key else ()

    def _service_config(self) -> Any:
        """Retries are safe, since every request has an id by which the server knows it again.

        A server that is overloaded says when to come back, and gRPC obeys it.
        """
        method: dict[str, Any] = {"name": [{}]}
        if self.attempts > 1:
            method["retryPolicy"] = {
                "maxAttempts": self.attempts,
                "initialBackoff": "0.2s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            }
        return {"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [method]}


def _split(server: str) -> tuple[str, str]:
    """Host, in brackets where it has colons, and port."""
    host, colon, port = server.rpartition(":")
    if not colon or server.endswith("]"):
        return server, str(DEFAULT_PORT)
    return host, port
