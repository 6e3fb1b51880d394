"""A gateway of a command's own: `robust-synthesis serve` in a process below it, on free ports of the loopback interface."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from ..errors import ServerError
from ..model_folder import find

START_SECONDS = 120.0
STOP_SECONDS = 20.0
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class OwnGateway:
    """One that runs."""

    server: str
    """HOST:PORT."""
    metrics_url: str

    def metrics(self) -> str:
        """What Prometheus would read."""
        with urlopen(self.metrics_url, timeout=10) as response:
            return str(response.read().decode())


@contextlib.contextmanager
def own_gateway(classifiers: Sequence[str | Path], *, backend: str, device: str | None = None) -> Iterator[OwnGateway]:
    """Serves classifiers, by folder or name, until it is left. Raises ServerError where it does not start.

    Settings of the environment are not its own; they may be for another gateway.
    """
    server, metrics = (f"{LOOPBACK}:{port}" for port in _free_ports(2))
    with tempfile.TemporaryDirectory(prefix="robust-synthesis-") as scratch:
        models, log = Path(scratch, "models"), Path(scratch, "log")
        models.mkdir()
        for folder in (find(each).resolve() for each in classifiers):
            (models / folder.name).symlink_to(folder)
        command = [sys.executable, "-m", "robust_synthesis", "serve", "--backend", backend, "--models", str(models)]
        command += ["--listen", server, "--metrics-port", metrics.rpartition(":")[2]]
        command += ["--device", device] if device else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ROBUST_SYNTHESIS_")}
        with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as process:
            try:
                _wait(process, server, log)
                yield OwnGateway(server, f"http://{metrics}/metrics")
            finally:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()


def _wait(process: subprocess.Popen[bytes], server: str, log: Path) -> None:
    """Until it has a classifier that can work."""
    from ..client import Client, SynthesisError

    end = time.monotonic() + START_SECONDS
    with Client(server, attempts=1) as client:
        while time.monotonic() < end:
            if process.poll() is not None:
                raise ServerError(f"the gateway did not start: {_last_line(log)}")
            with contextlib.suppress(SynthesisError):
                if client.models(timeout=1):
                    return
            time.sleep(0.1)
    raise ServerError(f"the gateway did not start within {START_SECONDS:.0f} s: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing."


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
