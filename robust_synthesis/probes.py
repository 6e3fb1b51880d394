"""A port for an orchestrator's probes, which can neither speak TLS nor show a key: grpc.health.v1 in plaintext, and nothing else.

python -m robust_synthesis.probes 50052             # exit code 0 where the server on this port of 127.0.0.1 serves
python -m robust_synthesis.probes 50052 live        # ... where it answers at all
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .errors import InvalidInput

LIVE = "live"
"""A service that is there as long as the process answers, also while it cannot serve: what replaces processes asks for it."""
_SECONDS = 3.0
SERVING = health_pb2.HealthCheckResponse.SERVING


async def listen(servicer: Any, host: str, port: int) -> grpc.aio.Server:
    """Show the health of `servicer`, a grpc_health.v1.health.aio.HealthServicer, until the server is stopped.

    Raises InvalidInput where the port is taken.
    """
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set(LIVE, SERVING)
    try:
        server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError:
        raise InvalidInput("health_port", f"cannot listen on {host} port {port}; is it taken?") from None
    await server.start()
    return server


def main(arguments: Sequence[str]) -> int:
    """Of a port, and a service or nothing: 0 where it serves, else 1."""
    port, service = arguments[0], "".join(arguments[1:])
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            state = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_SECONDS)
        except grpc.RpcError as error:
            print(error.code().name)
            return 1
        print(health_pb2.HealthCheckResponse.ServingStatus.Name(state.status))
        return 0 if state.status == SERVING else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
