"""What both ends of a connection to a gateway agree on."""

from __future__ import annotations

from .imaging import MAX_BYTES

DEFAULT_PORT = 50051
DEADLINE = 300.0
"""Seconds; of calls that say nothing else."""
SHORTEST_PING_INTERVAL = 5.0
"""Seconds; a server takes pings that come faster for an attack, and hangs up (too_many_pings)."""
CLIENT_PING_INTERVAL = 15.0
SERVER_PING_INTERVAL = 30.0
PING_TIMEOUT = 10.0
"""Seconds without an answer to a ping, after which the other side is taken for gone."""
DOMAIN = "robust-synthesis"
"""Of google.rpc.ErrorInfo."""
REQUEST_ID = "request-id"
"""Trailing metadata: what the server's log calls the call."""
PUSHBACK = "grpc-retry-pushback-ms"
"""Trailing metadata that gRPC's own retries obey."""


def request_bytes(image_bytes: int) -> int:
    """Of the largest request message: an image and a mask of so many bytes, and the rest."""
    return 2 * image_bytes + 2**16


MAX_REQUEST_BYTES = request_bytes(MAX_BYTES)
