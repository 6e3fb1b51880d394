"""Spans of calls: none unless asked for; as the caller saw the call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from robust_synthesis.gateway import tracing
from robust_synthesis.gateway.running import running
from robust_synthesis.gateway.testing import FakeBackend, FakeWorker
from robust_synthesis.v1 import model_pb2, model_pb2_grpc, synthesis_pb2, synthesis_pb2_grpc, task_pb2


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_SDK_DISABLED", tracing.EXPORTER, *tracing.ENDPOINTS):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_traces_are_made_where_the_environment_asks_for_them(
    variables: dict[str, str], asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.configured() == asked


def test_nothing_is_imported_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert tracing.interceptors() == ()


def test_what_is_asked_for_and_not_installed_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(tracing.EXPORTER, "otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.grpc", None)
    with caplog.at_level(logging.WARNING):
        assert tracing.interceptors() == ()
    assert "pip install 'robust-synthesis[tracing]'" in caplog.text


@pytest.fixture
def spans() -> Iterator[tuple[Any, Any]]:
    """A provider, and what keeps its spans."""
    pytest.importorskip("opentelemetry.instrumentation.grpc", reason="the extra `tracing` is not installed")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider, kept = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    yield provider, kept
    provider.shutdown()


def test_a_span_has_method_status_and_id_as_the_caller_saw_them(spans: tuple[Any, Any]) -> None:
    provider, kept = spans

    async def main() -> list[tuple[str, grpc.StatusCode, str]]:
        async with (
            running(FakeBackend([FakeWorker()]), interceptors=tracing.interceptors(provider)) as gateway,
            grpc.aio.insecure_channel(gateway.target) as channel,
        ):
            stub = synthesis_pb2_grpc.SynthesisServiceStub(channel)
            spec = task_pb2.GenerateSpec(target="cat", start=task_pb2.START_NOISE)
            task = task_pb2.TaskSpec(generate=spec)
            calls: list[Any] = [
                model_pb2_grpc.ModelServiceStub(channel).ListModels(model_pb2.ListModelsRequest()),
                stub.Generate(synthesis_pb2.GenerateRequest(spec=spec)),
                stub.Generate(synthesis_pb2.GenerateRequest(spec=spec, model="nobody")),
                stub.StreamSynthesis(synthesis_pb2.StreamSynthesisRequest(task=task)),
                stub.StreamSynthesis(synthesis_pb2.StreamSynthesisRequest()),
            ]
            seen = []
            for name, call in zip(("ListModels", "Generate", "Generate", *["StreamSynthesis"] * 2), calls, strict=True):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    _ = [event async for event in call] if name == "StreamSynthesis" else await call
                trailing = dict(await call.trailing_metadata())
                seen.append((name, await call.code(), str(trailing["request-id"])))
            return seen

    seen = asyncio.run(main())
    assert [code.name for _, code, _ in seen] == ["OK", "OK", "NOT_FOUND", "OK", "INVALID_ARGUMENT"]
    found = {span.attributes[tracing.REQUEST_ID]: span for span in kept.get_finished_spans()}
    assert len(found) == len(seen)
    for name, code, number in seen:
        span = found[number]
        assert span.name.endswith(f"/{name}")
        assert span.attributes["rpc.grpc.status_code"] == code.value[0]
        assert span.status.is_ok == (code is grpc.StatusCode.OK)
