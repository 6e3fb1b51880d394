"""Commands of ours as processes that tests start, harm and measure."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SECONDS = 180.0
"""For one to start, or to end, on a machine that is busy otherwise."""
INJECTION = Path(__file__).parent / "injection"


def delayed(seconds: float) -> Mapping[str, str]:
    """The environment of a worker whose step sleeps so long for each picture, so that cores are left for everything else."""
    path = [str(INJECTION), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"INJECT_DELAY": str(seconds), "PYTHONPATH": os.pathsep.join(path)}


@dataclass(frozen=True)
class Size:
    """Of a process with all below it."""

    resident: int
    """Bytes."""
    files: int
    threads: int


class Process:
    """A program that is started, perhaps killed, and perhaps started again."""

    def __init__(
        self, name: str, command: Sequence[object], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = [str(part) for part in command]
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        self._process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def size(self) -> Size:
        top = psutil.Process(self._process.pid)
        own = [top, *top.children(recursive=True)]
        return Size(
            sum(each.memory_info().rss for each in own),
            sum(each.num_fds() for each in own),
            sum(each.num_threads() for each in own),
        )

    def kill(self) -> None:
        """With SIGKILL, this one process."""
        self._process.kill()
        self._process.wait()

    def ask_to_stop(self) -> None:
        """With SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """With SIGTERM; its exit code."""
        self.ask_to_stop()
        return self._process.wait(SECONDS)

    def end(self) -> None:
        """Now that it was asked to stop, however it takes it, and whatever is below it."""
        if not self.alive:
            return
        below = psutil.Process(self._process.pid).children(recursive=True)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        for left in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()


class Pod(Process):
    """A command of ours at an address of its own, with a port for Prometheus."""

    def __init__(
        self,
        name: str,
        folder: Path,
        address: str,
        ports: tuple[int, int],
        *options: object,
        prefix: Sequence[object] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`ports` are that for callers and that for Prometheus; `prefix` is what runs the command."""
        self.address = address
        self.target = f"{address}:{ports[0]}"
        self._metrics = f"http://{address}:{ports[1]}/metrics"
        command = [*prefix, sys.executable, "-m", "robust_synthesis", *options, "--listen", self.target, "--insecure"]
        command += ["--metrics-host", address, "--metrics-port", ports[1]]
        super().__init__(name, command, folder, environment)

    def metric(self, name: str) -> float:
        """From the process itself, the sum over all labels. Raises OSError."""
        with urllib.request.urlopen(self._metrics, timeout=30) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def free_port() -> int:
    """Of all addresses."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        return int(listener.getsockname()[1])
