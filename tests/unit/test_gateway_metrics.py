"""The gateway's metrics: each is exported as documented, follows the requests, and has only the labels that it should."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from robust_synthesis import exposition
from robust_synthesis.errors import InvalidInput, NotFound, SynthesisError
from robust_synthesis.gateway.backends.base import Backend
from robust_synthesis.gateway.dispatcher import Dispatcher
from robust_synthesis.gateway.errors import (
    Cancelled,
    DeadlineExceeded,
    JobLost,
    Overloaded,
    QuotaExceeded,
    ShuttingDown,
)
from robust_synthesis.gateway.metrics import METHODS, OTHER, OUTCOMES, REJECTIONS, Metrics
from robust_synthesis.gateway.testing import FakeBackend, FakeWorker, fake_model, run
from robust_synthesis.gpus import Gpus
from robust_synthesis.requests import Request
from robust_synthesis.specs import Generate
from robust_synthesis.worker.testing import FakeNvml

DOCUMENT = Path(__file__).parents[2] / "docs/metrics.md"
GENERATE = "/robust_synthesis.v1.SynthesisService/Generate"
TASK = {"task": "generate", "model": "fake"}


def cats(count: int = 1) -> Request:
    return Request(spec=Generate(target="cat", steps=60, seed=1, count=count))


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def load(metrics: Metrics) -> tuple[float | None, float | None, float | None]:
    return tuple(value(metrics, f"synthesis_{name}") for name in ("queue_depth", "jobs_in_flight", "offered_cost"))  # type: ignore[return-value]


def serving(backend: FakeBackend, body: Callable[[Dispatcher, Metrics], Awaitable[None]]) -> Metrics:
    """What a dispatcher's metrics are after something has happened to it; its clock costs no time."""

    async def main() -> Metrics:
        clock = asyncio.get_running_loop().time
        metrics = Metrics(backend, clock=clock)
        dispatcher = Dispatcher(backend, clock=clock, observer=metrics)
        await dispatcher.start()
        await body(dispatcher, metrics)
        await dispatcher.close(grace=1)
        return metrics

    return run(main())


def complete(backend: Backend | None = None) -> Metrics:
    """With every metric there is."""
    metrics = Metrics(backend or FakeBackend([FakeWorker("a")]), gpus=Gpus(FakeNvml))
    metrics.call_finished(GENERATE, "OK", 0.5)
    return metrics


def documented() -> dict[str, tuple[str, set[str]]]:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_the_document_has_every_metric_with_its_type_and_labels_and_no_other() -> None:
    async def body(dispatcher: Dispatcher, _: Metrics) -> None:
        await dispatcher.submit(cats(), model="fake")

    metrics = serving(FakeBackend([FakeWorker("a")]), body)
    exported: dict[str, tuple[str, set[str]]] = {}
    for registry in (metrics.registry, complete().registry):
        for family in text_string_to_metric_families(generate_latest(registry).decode()):
            name = family.name + "_total" * (family.type == "counter" and not family.name.endswith("_total"))
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            if not name.startswith("process_") and not name.endswith("_created") and family.samples:
                exported[name] = family.type, labels
    assert exported == documented()


def test_a_request_is_counted_from_queue_to_result() -> None:
    async def body(dispatcher: Dispatcher, metrics: Metrics) -> None:
        ticket = dispatcher.submit(cats(count=2), model="fake")
        assert load(metrics) == (2, 0, 2 * 61 / 16)  # 16 pixels are a sixteenth of 64
        await asyncio.sleep(0.1)
        assert load(metrics)[:2] == (0, 2)
        assert 0 < (load(metrics)[2] or 0) < 2 * 61 / 16
        await ticket
        assert load(metrics) == (0, 0, 0)

    metrics = serving(FakeBackend([FakeWorker("a", latency=0.01)]), body)
    took = value(metrics, "synthesis_task_duration_seconds_sum", **TASK, outcome="ok")
    assert took is not None
    assert 0.61 <= took < 1.0
    assert value(metrics, "synthesis_queue_wait_seconds_count") == 1
    bundles = value(metrics, "synthesis_batch_size_count")
    assert bundles
    assert value(metrics, "synthesis_batch_size_sum") == 2 * bundles
    step = {"model": "fake", "batch_size": "2"}
    assert value(metrics, "synthesis_step_duration_seconds_count", **step) == bundles
    assert value(metrics, "synthesis_step_duration_seconds_sum", **step) == pytest.approx(0.01 * bundles)


def test_the_queue_wait_is_that_of_the_request_behind_another() -> None:
    async def body(dispatcher: Dispatcher, _: Metrics) -> None:
        dispatcher.submit(cats(), model="fake")
        await asyncio.sleep(0.06)
        await dispatcher.submit(cats(), model="fake")

    backend = FakeBackend([FakeWorker("a", [fake_model(step_seconds={1: 0.1, 16: 0.1})], seconds=lambda _: 0.1)])
    metrics = serving(backend, body)
    assert value(metrics, "synthesis_queue_wait_seconds_count") == 2
    assert value(metrics, "synthesis_queue_wait_seconds_sum") == pytest.approx(0.04, abs=0.005)


def test_gauges_return_to_zero_after_a_cancel_and_the_outcome_is_told() -> None:
    async def body(dispatcher: Dispatcher, metrics: Metrics) -> None:
        tickets = [dispatcher.submit(cats(), model="fake") for _ in range(20)]
        await asyncio.sleep(0.1)
        assert load(metrics)[:2] == (4, 16)
        for ticket in tickets:
            ticket.cancel()
        assert load(metrics) == (0, 0, 0)

    metrics = serving(FakeBackend([FakeWorker("a", [fake_model(step_seconds={1: 0.01, 16: 0.01, 32: 0.02})])]), body)
    assert value(metrics, "synthesis_task_duration_seconds_count", **TASK, outcome="cancelled") == 20


def test_a_lost_bundle_and_an_absent_worker_are_retries_of_their_own() -> None:
    async def body(dispatcher: Dispatcher, metrics: Metrics) -> None:
        ticket = dispatcher.submit(cats(), model="fake")
        await asyncio.sleep(0.1)
        worker.die()
        await asyncio.sleep(0.5)
        worker.busy = True
        await asyncio.sleep(0.2)
        worker.busy = False
        await ticket

    worker = FakeWorker("a")
    metrics = serving(FakeBackend([worker]), body)
    assert value(metrics, "synthesis_chunk_retries_total", reason="lost") == 1
    assert (value(metrics, "synthesis_chunk_retries_total", reason="unavailable") or 0) >= 1
    assert value(metrics, "synthesis_chunk_retries_total", reason="unreadable") == 0


def test_a_worker_is_up_down_or_gone() -> None:
    backend = FakeBackend([FakeWorker("a"), FakeWorker("b")])
    metrics = Metrics(backend)
    backend.members[1].up = False
    assert [value(metrics, "synthesis_backend_up", backend=name) for name in "ab"] == [1, 0]
    del backend.members[1]
    assert [value(metrics, "synthesis_backend_up", backend=name) for name in "ab"] == [1, None]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (Cancelled("x"), "cancelled"),
        (DeadlineExceeded("x"), "deadline"),
        (NotFound("target", "x", []), "invalid"),
        (JobLost("x"), "lost"),
        (ShuttingDown("x"), "shutdown"),
        (SynthesisError("x"), "failed"),
    ],
)
def test_every_end_of_a_request_has_its_outcome(error: SynthesisError | None, outcome: str) -> None:
    async def body(dispatcher: Dispatcher, metrics: Metrics) -> None:
        ticket = dispatcher.submit(cats(), model="fake")
        if error is None:
            await ticket
        else:
            ticket.fail(error)

    metrics = serving(FakeBackend([FakeWorker("a")]), body)
    for other in {"ok", "failed", *OUTCOMES.values()}:
        count = value(metrics, "synthesis_task_duration_seconds_count", **TASK, outcome=other)
        assert count == (1 if other == outcome else None)


@pytest.mark.parametrize(
    ("error", "reason", "offered"),
    [
        (Overloaded("x", retry_after_seconds=1), "overloaded", True),
        (QuotaExceeded("x", retry_after_seconds=1), "quota", False),
        (DeadlineExceeded("x"), "deadline", True),
        (ShuttingDown("x"), "shutdown", False),
        (InvalidInput("size", "x"), "invalid", False),
        (SynthesisError("x"), "failed", False),
    ],
)
def test_what_more_workers_would_have_let_in_is_offered_for_a_minute(
    error: SynthesisError, reason: str, offered: bool
) -> None:
    now = [100.0]
    metrics = Metrics(FakeBackend([FakeWorker("a")]), clock=lambda: now[0])
    for _ in range(3):
        metrics.request_rejected(cats(count=4), "fake", error)
        now[0] += 0.4
    for other in {"failed", *REJECTIONS.values()}:
        assert value(metrics, "synthesis_rejected_total", reason=other) == (3 if other == reason else 0)
    assert load(metrics) == (0, 0, 3 * 4 * 61 / 16 if offered else 0)
    now[0] += 62
    assert load(metrics) == (0, 0, 0)


def test_cost_is_told_without_a_worker_too() -> None:
    metrics = Metrics(FakeBackend([]), clock=lambda: 0.0)
    metrics.request_rejected(cats(), "fake", Overloaded("x", retry_after_seconds=1))
    large = Request(spec=Generate(target="cat", steps=59), size=128)
    metrics.request_rejected(large, "fake", Overloaded("x", retry_after_seconds=1))
    assert load(metrics)[2] == 61 + 60 * 4


def test_invented_models_and_methods_and_codes_make_no_series() -> None:
    async def body(dispatcher: Dispatcher, metrics: Metrics) -> None:
        for number in range(20):
            dispatcher.submit(cats(), model=f"invented {number}").cancel()
            metrics.call_finished(f"/invented/{number}", f"INVENTED_{number}", 0.1)

    metrics = serving(FakeBackend([]), body)
    assert "invented" not in generate_latest(metrics.registry).decode().lower()
    count = value(metrics, "synthesis_task_duration_seconds_count", task="generate", model=OTHER, outcome="cancelled")
    assert count == 20
    assert value(metrics, "grpc_server_call_duration_seconds_count", grpc_method=OTHER, grpc_code="UNKNOWN") == 20


def test_a_model_keeps_its_name_after_its_last_worker_is_gone() -> None:
    backend = FakeBackend([FakeWorker("a")])

    async def body(dispatcher: Dispatcher, metrics: Metrics) -> None:
        await dispatcher.submit(cats(), model="fake")
        ticket = dispatcher.submit(cats(), model="fake")
        backend.members.clear()
        ticket.cancel()

    metrics = serving(backend, body)
    assert value(metrics, "synthesis_task_duration_seconds_count", **TASK, outcome="cancelled") == 1


def test_calls_go_by_their_full_name() -> None:
    metrics = complete()
    labels = {"grpc_method": GENERATE.removeprefix("/"), "grpc_code": "OK"}
    assert value(metrics, "grpc_server_call_duration_seconds_sum", **labels) == 0.5
    assert {"robust_synthesis.v1.SynthesisService/Edit", "robust_synthesis.v1.ModelService/ListModels"} < METHODS
    assert len(METHODS) == 9 + 4


def test_gpus_are_absent_where_the_gateway_does_not_compute() -> None:
    assert "gpu_" not in generate_latest(Metrics(FakeBackend([])).registry).decode()


def test_clients_that_say_nothing_keep_no_thread_and_hold_no_scrape_up_for_long(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "SECONDS", 0.5)
    url = f"http://127.0.0.1:{unused_tcp_port}/metrics"
    threads = threading.active_count()
    stop = complete().serve("127.0.0.1", unused_tcp_port)
    with contextlib.ExitStack() as stack:
        stack.callback(stop)
        silent = [socket.create_connection(("127.0.0.1", unused_tcp_port), timeout=30) for _ in range(30)]
        for each in silent:
            stack.enter_context(each)
        silent[0].sendall(b"GET /metrics HTT")
        assert [each.recv(1) for each in silent] == [b""] * 30  # hung up on: those beyond the bound at once
        while threading.active_count() > threads + 1:
            time.sleep(0.01)
        with urllib.request.urlopen(url, timeout=10) as response:
            assert response.status == 200


def test_a_scrape_needs_no_event_loop(unused_tcp_port: int) -> None:
    """This one is blocked: by the scrape itself."""

    async def main() -> None:
        stop = complete().serve("127.0.0.1", unused_tcp_port)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{unused_tcp_port}/metrics", timeout=10) as response:
                assert b"synthesis_queue_depth 0.0" in response.read()
        finally:
            stop()

    asyncio.run(main())
