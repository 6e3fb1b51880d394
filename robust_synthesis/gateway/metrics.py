"""What a gateway exports for Prometheus; `docs/metrics.md` has the table. Every label has a closed set of values.

Gateway(backend, options, observer=Metrics(backend))
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping

import grpc
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric

from .. import __version__
from ..batch_sizes import POWERS
from ..bundle import BundleError, Reply
from ..errors import InvalidInput, SynthesisError
from ..exposition import serve
from ..gpus import Gpus
from ..model_folder import Card
from ..requests import Request
from ..v1 import model_pb2, synthesis_pb2
from .backends.base import Backend, WorkerUnavailable
from .errors import Cancelled, DeadlineExceeded, JobLost, Overloaded, QuotaExceeded, ShuttingDown, Unsuitable
from .group import Plan
from .load import Load
from .seams import Observer
from .tickets import Ticket

OTHER = "other"
"""Label value of every method and model that does not exist."""
METHODS = frozenset(
    f"{service.full_name}/{method.name}"
    for file in (synthesis_pb2, model_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
CODES = frozenset(code.name for code in grpc.StatusCode)
OUTCOMES: Mapping[type[BaseException], str] = {
    Cancelled: "cancelled",
    DeadlineExceeded: "deadline",
    InvalidInput: "invalid",
    Unsuitable: "invalid",
    JobLost: "lost",
    ShuttingDown: "shutdown",
}
"""Of a request, beside ok and failed; the first that fits."""
REJECTIONS: Mapping[type[BaseException], str] = {
    QuotaExceeded: "quota",
    Overloaded: "overloaded",
    DeadlineExceeded: "deadline",
    ShuttingDown: "shutdown",
    InvalidInput: "invalid",
    Unsuitable: "invalid",
}
"""Of a request that was not let in, beside failed."""
RETRIES: Mapping[type[BaseException], str] = {WorkerUnavailable: "unavailable", BundleError: "unreadable"}
"""Why a bundle is sent again, beside lost."""
_CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TASK_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 30, 60, 120, 300)
_WAIT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_STEP_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics(Observer):
    """Watches a gateway. `gpus` only where the gateway's own machine computes; times are on the dispatcher's clock."""

    def __init__(
        self, backend: Backend, *, gpus: Gpus | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.registry = CollectorRegistry()
        self._backend = backend
        self._clock = clock
        self._load = Load(clock)
        self._models: set[str] = set()
        self._calls = self._histogram(
            "grpc_server_call_duration_seconds",
            "Calls, from their arrival to their status.",
            _CALL_SECONDS,
            "grpc_method",
            "grpc_code",
        )
        self._tasks = self._histogram(
            "synthesis_task_duration_seconds",
            "Requests that were let in, from their arrival to their end.",
            _TASK_SECONDS,
            "task",
            "model",
            "outcome",
        )
        self._waits = self._histogram(
            "synthesis_queue_wait_seconds", "From a request's arrival to its first bundle of steps.", _WAIT_SECONDS
        )
        self._batches = self._histogram("synthesis_batch_size", "Pictures of a bundle.", POWERS)
        self._steps = self._histogram(
            "synthesis_step_duration_seconds",
            "One step of a batch, by its size with padding.",
            _STEP_SECONDS,
            "model",
            "batch_size",
        )
        self._retries = self._counter(
            "synthesis_chunk_retries", "Bundles that are sent again.", {"lost", *RETRIES.values()}
        )
        self._rejected = self._counter(
            "synthesis_rejected", "Requests that were not let in.", {"failed", *REJECTIONS.values()}
        )
        build = Info("synthesis_build", "What runs.", registry=self.registry)
        build.info({"version": __version__, "python": platform.python_version(), "grpc": grpc.__version__})
        self.registry.register(_Queue(self._load))
        self.registry.register(_Workers(backend))
        if gpus is not None:
            self.registry.register(gpus)
        ProcessCollector(registry=self.registry)

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Serve `/metrics`; returns what stops it. Raises InvalidInput where the port is taken."""
        return serve(self.registry, host, port)

    # What the gateway tells it.

    def call_finished(self, method: str, code: str, seconds: float) -> None:
        name = method.removeprefix("/")
        known = name if name in METHODS else OTHER
        self._calls.labels(known, code if code in CODES else grpc.StatusCode.UNKNOWN.name).observe(seconds)

    def request_queued(self, ticket: Ticket) -> None:
        self._load.enter(ticket, self._card(ticket.model))

    def request_started(self, ticket: Ticket) -> None:
        self._waits.observe(ticket.timings.queue_wait)

    def request_finished(self, ticket: Ticket, error: SynthesisError | None) -> None:
        self._load.leave(ticket)
        outcome = "ok" if error is None else _kind(error, OUTCOMES, "failed")
        labels = ticket.task, self._known(ticket.model), outcome
        self._tasks.labels(*labels).observe(self._clock() - ticket.submitted)

    def request_rejected(self, request: Request, model: str, error: SynthesisError) -> None:
        reason = _kind(error, REJECTIONS, "failed")
        self._rejected.labels(reason).inc()
        if reason in ("overloaded", "deadline"):  # more workers would help
            self._load.turn_away(request.spec, request.size, self._card(model))

    def bundle_returned(self, plan: Plan, reply: Reply) -> None:
        self._batches.observe(len(reply.jobs))
        for size, steps, seconds in reply.batches:
            if size in plan.info.batch_sizes and steps > 0:
                self._steps.labels(plan.info.name, size).observe(seconds / steps)

    def bundle_lost(self, plan: Plan, error: Exception) -> None:
        del plan
        self._retries.labels(_kind(error, RETRIES, "lost")).inc()

    def _known(self, model: str) -> str:
        """The name, where it is or was that of a classifier: without workers requests wait whatever they name."""
        if model not in self._models and self._card(model) is not None:
            self._models.add(model)
        return model if model in self._models else OTHER

    def _card(self, model: str) -> Card | None:
        infos = (info for worker in self._backend.workers() for info in worker.models())
        return next((info.card for info in infos if info.name == model), None)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, text: str, reasons: set[str]) -> Counter:
        """There from the first scrape on, so that a rate sees the first increase."""
        counter = Counter(name, text, ["reason"], registry=self.registry)
        for reason in sorted(reasons):
            counter.labels(reason)
        return counter


class _Queue:
    """Looked at when scraped, so that nothing drifts."""

    def __init__(self, load: Load) -> None:
        self._load = load

    def collect(self) -> Iterator[Metric]:
        now = self._load.snapshot()
        yield GaugeMetricFamily("synthesis_queue_depth", "Pictures that wait for their first bundle.", now.queued)
        yield GaugeMetricFamily("synthesis_jobs_in_flight", "Pictures begun and not finished.", now.in_flight)
        yield GaugeMetricFamily(
            "synthesis_offered_cost",
            "Image-steps at 64 pixels: queued, in flight, and turned away for want of room in the last minute.",
            now.offered,
        )


class _Workers:
    """Those that the backend has now."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("synthesis_backend_up", "1 while a worker takes bundles.", labels=["backend"])
        for worker in self._backend.workers():
            up.add_metric([worker.name], worker.up)
        yield up


def _kind(error: Exception, kinds: Mapping[type[BaseException], str], other: str) -> str:
    return next((name for kind, name in kinds.items() if isinstance(error, kind)), other)
