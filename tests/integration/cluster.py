"""A cluster on one machine, of processes: gateways, workers, and a Prometheus that scrapes them all. They find each other by DNS.

    with Cluster(folder, simulated(folder, 0.02)) as cluster:
        cluster.grow(gateways=2, workers=4)
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
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from robust_synthesis.testing import tiny_card, tiny_model_folder

from . import promtool
from .names import Names
from .processes import SECONDS, Pod, Process, delayed, free_port

ROOT = Path(__file__).parents[2]
NAMESPACE = "robust-synthesis"
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


@dataclass(frozen=True)
class Compute:
    """How workers are started, and their environment."""

    options: Sequence[object]
    environment: Mapping[str, str] = field(default_factory=dict)


def simulated(folder: Path, delay: float) -> Compute:
    """A tiny classifier, which is written into the folder; a step sleeps so long for each picture, and leaves cores to others."""
    model = tiny_model_folder(folder / "tiny", tiny_card()).path
    return Compute(("--engine", "inprocess", "--device", "cpu", "--model", model), delayed(delay))


def shipped(name: str) -> Compute:
    """A classifier of ours on TorchServe."""
    return Compute(("--engine", "torchserve", "--device", "cpu", "--model", ROOT / "model_store" / name))


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

    def __init__(self, folder: Path, compute: Compute, *, every: int = 1) -> None:
        """`every` so many seconds Prometheus looks."""
        self.folder = folder
        self._net = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}"
        self._ports = {role: (free_port(), free_port()) for role in _HOSTS}
        self._compute = compute
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

    def grow(self, *, gateways: int, workers: int) -> None:
        """Until there are so many, and each gateway is connected to each worker. None may have been killed before."""
        while len(self.gateways) < gateways:
            self.add_gateway()
        while len(self.workers) < workers:
            self.add_worker()
        self.until(lambda: self.connections == gateways * workers)

    def add_gateway(self) -> Gateway:
        address, ports = self._place("gateway", len(self.gateways))
        options = (f"--workers=worker.test:{self._ports['worker'][0]}", "--log-format=json", "--concurrent=10000")
        name = f"gateway-{len(self.gateways)}"
        self.gateways.append(Gateway(name, self.folder, address, ports, "serve", *options, prefix=self._resolving))
        return self.gateways[-1]

    def add_worker(self) -> Worker:
        address, ports = self._place("worker", len(self.workers))
        options, environment = ("worker", *self._compute.options), self._compute.environment
        name = f"worker-{len(self.workers)}"
        self.workers.append(Worker(name, self.folder, address, ports, *options, environment=environment))
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


def trigger() -> Mapping[str, str]:
    """What KEDA asks, as deploy/kubernetes has it."""
    documents = yaml.safe_load_all((ROOT / "deploy/kubernetes/base/autoscaling.yaml").read_text())
    (scaled,) = [each for each in documents if each["kind"] == "ScaledObject"]
    (found,) = scaled["spec"]["triggers"]
    return dict(found["metadata"])
