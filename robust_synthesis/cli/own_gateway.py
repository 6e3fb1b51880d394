"""A gateway of a command's own: `robust-synthesis serve` in a process below it, on free ports of the loopback interface."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from ..errors import ServerError
from ..model_folder import ModelFolder, find

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
def own_gateway(
    classifiers: Sequence[str | Path], *, backend: str, device: str | None = None, precision: str | None = None
) -> Iterator[OwnGateway]:
    """Serves classifiers, by folder or name, until it is left. Raises ServerError where it does not start.

    Settings of the environment are not its own; they may be for another gateway.
    """
    server, metrics = (f"{LOOPBACK}:{port}" for port in _free_ports(2))
    with tempfile.TemporaryDirectory(prefix="robust-synthesis-") as scratch:
        models, log = Path(scratch, "models"), Path(scratch, "log")
        models.mkdir()
        folders = [ModelFolder.open(find(each).resolve()) for each in classifiers]
        for folder in folders:
            (models / folder.path.name).symlink_to(folder.path)
        served = {folder.card.name for folder in folders if folder.card.role != "judge"}
        command = [sys.executable, "-m", "robust_synthesis", "serve", "--backend", backend, "--models", str(models)]
        command += ["--listen", server, "--metrics-port", metrics.rpartition(":")[2]]
        command += ["--device", device] if device else []
        command += ["--precision", precision] if precision else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ROBUST_SYNTHESIS_")}
        with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as process:
            try:
                _wait(process, server, log, served)
                yield OwnGateway(server, f"http://{metrics}/metrics")
            finally:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()


def _wait(process: subprocess.Popen[bytes], server: str, log: Path, served: Set[str]) -> None:
    """Until all of its classifiers can work: which one is the default depends on all."""
    from ..client import Client, SynthesisError

    end = time.monotonic() + START_SECONDS
    with Client(server, attempts=1) as client:
        while time.monotonic() < end:
            if process.poll() is not None:
                raise ServerError(f"the gateway did not start: {_last_line(log)}")
            with contextlib.suppress(SynthesisError):
                if served <= {model.name for model in client.models(timeout=1)}:
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
