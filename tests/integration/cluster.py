"""A cluster on one machine, of processes: gateways, workers, and a Prometheus that scrapes them all. They find each other by DNS.

    with Cluster(folder, model) as cluster:
        cluster.add_gateway()
        cluster.add_worker()
        cluster.until(lambda: cluster.connections == 1)
        AsyncClient(cluster.server)

What deploy/kubernetes calls a pod is a process with an address of its own in 127.0.0.0/8, so that all gateways have one port, and
all workers another; what it calls a headless Service is a name for which a name server knows those addresses. Every process finds
that server in its /etc/resolv.conf, for which it needs a mount namespace, and root.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import yaml

from . import promtool
from .names import Names

ROOT = Path(__file__).parents[2]
INJECTION = Path(__file__).parent / "injection"
NAMESPACE = "robust-synthesis"
SECONDS = 180.0
"""For processes to start, or to end, on a machine that is busy otherwise."""
_RESOLVING = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"')
_HOSTS = {"gateway": 10, "worker": 20}
"""The last byte of the first address."""


def missing() -> str | None:
    """Why there can be no cluster here."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or shutil.which("unshare") is None:
        return "needs Linux, root and the program unshare, for a name server of its own"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "needs mount namespaces, which are forbidden here"
    try:
        promtool.find("prometheus")
    except promtool.Missing as error:
        return str(error)
    return None


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


class Gateway(Pod):
    """`robust-synthesis serve`, whose workers are those of a name."""


class Worker(Pod):
    """`robust-synthesis worker`."""


class Prometheus(Process):
    """Scrapes whatever the names stand for."""

    def __init__(
        self, prefix: Sequence[object], jobs: Mapping[str, tuple[str, int]], folder: Path, *, every: int = 1
    ) -> None:
        """`jobs` are names and ports; `every` so many seconds they are scraped."""
        self._api = f"http://127.0.0.1:{free_port()}"
        namespace = {"target_label": "namespace", "replacement": NAMESPACE}
        scraped = [
            {
                "job_name": job,
                "dns_sd_configs": [{"names": [name], "type": "A", "port": port, "refresh_interval": "1s"}],
                "relabel_configs": [namespace],
            }
            for job, (name, port) in jobs.items()
        ]
        times = {"scrape_interval": f"{every}s", "scrape_timeout": f"{every}s"}
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump({"global": times, "scrape_configs": scraped}))
        command = [
            *prefix,
            promtool.find("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/tsdb",
        ]
        listen = self._api.removeprefix("http://")
        super().__init__("prometheus", [*command, f"--web.listen-address={listen}"], folder)

    def value(self, query: str) -> float | None:
        """Of an expression that has one, now; None where there is no data, or no Prometheus yet."""
        with contextlib.suppress(OSError):
            found = self._ask("query", query=query)
            assert len(found) <= 1, found
            return float(found[0]["value"][1]) if found else None
        return None

    def series(self, query: str, begin: float, end: float, step: float = 1) -> dict[float, float]:
        """Values by Unix time."""
        found = self._ask("query_range", query=query, start=begin, end=end, step=step)
        assert len(found) <= 1, found
        return {float(time): float(value) for time, value in found[0]["values"]} if found else {}

    def _ask(self, what: str, **parameters: object) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self._api}/api/v1/{what}?{urllib.parse.urlencode(parameters)}") as response:
            result: list[dict[str, Any]] = json.load(response)["data"]["result"]
        return result


class Cluster:
    """Empty at first, but for a name server and Prometheus. All of it ends with the `with`."""

    def __init__(
        self, folder: Path, *worker: object, environment: Mapping[str, str] | None = None, every: int = 1
    ) -> None:
        """`worker` are options of all workers, and `environment` is theirs, too."""
        self.folder = folder
        self._net = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}"
        self._ports = {role: (free_port(), free_port()) for role in _HOSTS}
        self._worker = (worker, environment)
        self.names = Names(f"{self._net}.53")
        (folder / "resolv.conf").write_text(f"nameserver {self.names.address}\noptions timeout:1 attempts:3\n")
        self._resolving = (*_RESOLVING, folder / "resolv.conf")
        jobs = {role: (f"{role}.test", ports[1]) for role, ports in self._ports.items()}
        self.prometheus = Prometheus(self._resolving, jobs, folder, every=every)
        self.gateways: list[Gateway] = []
        self.workers: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes = (*self.gateways, *self.workers, self.prometheus)
        for process in processes:
            process.ask_to_stop()
        for process in processes:
            process.end()
        self.names.close()

    @property
    def server(self) -> str:
        """All gateways, as a client that balances itself is told them."""
        return f"dns://{self.names.address}:53/gateway.test:{self._ports['gateway'][0]}"

    @property
    def connections(self) -> int:
        """Between a gateway that has been scraped and a worker that takes bundles."""
        return int(self.prometheus.value("sum(synthesis_backend_up)") or 0)

    def add_gateway(self) -> Gateway:
        address, ports = self._place("gateway", len(self.gateways))
        options = (
            "--workers",
            f"worker.test:{self._ports['worker'][0]}",
            "--log-format",
            "json",
            "--concurrent",
            10_000,
        )
        name = f"gateway-{len(self.gateways)}"
        self.gateways.append(Gateway(name, self.folder, address, ports, "serve", *options, prefix=self._resolving))
        return self.gateways[-1]

    def add_worker(self) -> Worker:
        address, ports = self._place("worker", len(self.workers))
        options, environment = self._worker
        name = f"worker-{len(self.workers)}"
        self.workers.append(Worker(name, self.folder, address, ports, "worker", *options, environment=environment))
        return self.workers[-1]

    def _place(self, role: str, number: int) -> tuple[str, tuple[int, int]]:
        address = f"{self._net}.{_HOSTS[role] + number}"
        self.names.add(f"{role}.test", address)
        return address, self._ports[role]

    def forget(self, worker: Worker) -> None:
        """Take it out of its name."""
        self.names.remove("worker.test", worker.address)

    def until(self, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Raises AssertionError with the ends of the logs."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.said()
            time.sleep(0.2)

    def said(self) -> str:
        """The end of every log."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-2000:]}" for log in logs)


def free_port() -> int:
    """Of all addresses."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        return int(listener.getsockname()[1])


def trigger() -> Mapping[str, str]:
    """What KEDA asks, as deploy/kubernetes has it."""
    documents = yaml.safe_load_all((ROOT / "deploy/kubernetes/base/autoscaling.yaml").read_text())
    (scaled,) = [each for each in documents if each["kind"] == "ScaledObject"]
    (found,) = scaled["spec"]["triggers"]
    return dict(found["metadata"])
