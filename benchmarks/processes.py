"""Agents and gateways as processes of their own, on this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from clients.loadgen.drive import Send
from clients.loadgen.mix import Work, sending
from clients.loadgen.scrape import Snapshot, snapshot
from robust_synthesis.client.connection import Connection

from . import simulated

LOOPBACK = "127.0.0.1"
START_SECONDS = 120.0
TIMEOUT = 300.0
"""Of a request, seconds."""


@dataclass(frozen=True)
class Front:
    """A gateway that runs."""

    server: str
    metrics_port: int

    def metrics(self) -> Snapshot:
        return snapshot([f"http://{LOOPBACK}:{self.metrics_port}/metrics"])


@contextlib.contextmanager
def agents(folder: Path, count: int, step_seconds: float) -> Iterator[list[str]]:
    """Addresses of worker agents whose steps sleep."""
    environment = simulated.environment(step_seconds)
    with contextlib.ExitStack() as stack:
        addresses = [f"{LOOPBACK}:{free_port()}" for _ in range(count)]
        for address in addresses:
            own = ("--model", folder, "--engine", "inprocess", "--device", "cpu", "--listen", address)
            stack.enter_context(_process("worker", *own, "--metrics-port", 0, environment=environment))
        for address in addresses:
            _wait(address)
        yield addresses


@contextlib.contextmanager
def gateway(workers: Sequence[str]) -> Iterator[Front]:
    """One that has found all of these workers."""
    front = Front(f"{LOOPBACK}:{free_port()}", free_port())
    own = ("--backend", "remote", "--workers", ",".join(workers), "--listen", front.server)
    with _process("serve", *own, "--metrics-port", front.metrics_port):
        _wait(front.server)
        end = time.monotonic() + START_SECONDS
        while front.metrics().get("synthesis_backend_up", 0.0) < len(workers):
            if time.monotonic() > end:
                raise TimeoutError(f"the gateway found fewer than {len(workers)} workers.")
            time.sleep(0.1)
        yield front


@contextlib.asynccontextmanager
async def sending_to(server: str, work: Work) -> AsyncIterator[Send]:
    """What makes requests of a gateway, each only once."""
    connection = Connection.to(server, key=None, tls=False, tls_ca=None, tls_cert=None, tls_key=None, attempts=1)
    async with sending(connection, work, timeout=TIMEOUT) as send:
        yield send


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as found:
        port: int = found.getsockname()[1]
        return port


@contextlib.contextmanager
def _process(*arguments: object, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """A command of ours, until the end of the block."""
    command = [sys.executable, "-m", "robust_synthesis", *map(str, arguments)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    running = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        running.terminate()
        try:
            running.wait(60)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _wait(server: str) -> None:
    with grpc.insecure_channel(server, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        grpc.channel_ready_future(channel).result(START_SECONDS)
