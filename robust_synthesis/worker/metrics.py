"""What a worker exports of its machine: bundles, processes, and GPUs."""

from __future__ import annotations

import contextlib
import json
import struct
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from ..batch_sizes import POWERS
from ..exposition import serve
from ..gpus import Gpus
from .engine import Engine

OUTCOMES = ("ok", "lost", "unavailable", "busy", "unknown", "invalid", "unauthenticated")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5, 10, 30, 60)
_STEP_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BYTES = tuple(2.0**power for power in range(12, 27, 2))


class Family(Protocol):
    """A Prometheus collector."""

    def collect(self) -> Iterable[Metric]: ...


class Metrics:
    """Counters of the agent, and collectors that look when they are scraped."""

    def __init__(self, engine: Engine, gpus: Gpus | None = None) -> None:
        self.registry = CollectorRegistry()
        self._bundles = Counter(
            "worker_bundles", "Bundles by what became of them.", ["outcome"], registry=self.registry
        )
        for outcome in OUTCOMES:
            self._bundles.labels(outcome)
        self._jobs = self._of_model("worker_bundle_jobs", "Jobs of a bundle.", POWERS)
        self._bytes = self._of_model("worker_bundle_bytes", "Size of a bundle.", _BYTES)
        self._compute = self._of_model("worker_compute_seconds", "Compute time of a bundle.", _SECONDS)
        self._step = Histogram(
            "worker_step_seconds",
            "Time of one step of a batch.",
            ["model", "batch_size"],
            buckets=_STEP_SECONDS,
            registry=self.registry,
        )
        self.outstanding = Gauge("worker_bundles_outstanding", "Bundles under way.", registry=self.registry)
        up = Gauge("worker_up", "1 while the engine can run bundles.", registry=self.registry)
        up.set_function(lambda: engine.up)
        for collector in (_Processes(engine), gpus or Gpus(), _TorchServe(engine)):
            self.registry.register(collector)
        ProcessCollector(registry=self.registry)

    def _of_model(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, text, ["model"], buckets=buckets, registry=self.registry)

    def count(self, outcome: str) -> None:
        """A bundle has come to an end; `outcome` is one of OUTCOMES."""
        self._bundles.labels(outcome).inc()

    def ran(self, model: str, size: int, reply: bytes) -> None:
        """What a reply says of the compute: jobs, seconds, and the time of a step by batch size."""
        self._bytes.labels(model).observe(size)
        header = reply_header(reply)
        self._jobs.labels(model).observe(len(header.get("jobs", ())))
        self._compute.labels(model).observe(header.get("seconds", 0.0))
        for batch, steps, seconds in header.get("batches", ()):
            self._step.labels(model, batch).observe(seconds / max(1, steps))

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Serve `/metrics`; returns what stops it. Raises InvalidInput where the port is taken."""
        return serve(self.registry, host, port)


def reply_header(reply: bytes) -> Mapping[str, Any]:
    """The JSON header of a bundle's reply, without its tensors; empty for anything else."""
    try:
        (length,) = struct.unpack_from("<Q", reply)
        header = json.loads(json.loads(reply[8 : 8 + length])["__metadata__"]["bundle"])
    except (struct.error, ValueError, KeyError, TypeError):
        return {}
    return header if isinstance(header, dict) else {}


class _Processes:
    """Memory of the agent and what is below it, and how often something was replaced."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        memory = GaugeMetricFamily("worker_memory_bytes", "Resident memory by process.", labels=["process"])
        for role, pids in {"agent": [psutil.Process().pid], **self._engine.processes()}.items():
            if sizes := list(_resident(pids)):
                memory.add_metric([role], sum(sizes))
        yield memory
        restarts = CounterMetricFamily("worker_restarts", "What died or hung, and was replaced.", labels=["what"])
        for what, times in self._engine.restarts.items():
            restarts.add_metric([what], times)
        yield restarts


def _resident(pids: Sequence[int]) -> Iterator[int]:
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            yield psutil.Process(pid).memory_info().rss


class _TorchServe:
    """TorchServe's own metrics, which it serves on the loopback interface only."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        port = getattr(self._engine, "metrics_port", None)
        if port is None:
            return
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as response:
                text = response.read().decode()
        except (OSError, ValueError):
            return  # it restarts
        for family in text_string_to_metric_families(text):
            if family.type == "counter" and not all(sample.name.endswith("_total") for sample in family.samples):
                family.type = "unknown"  # else its name would change
            if family.samples:
                yield family
