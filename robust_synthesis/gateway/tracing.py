"""OpenTelemetry spans of calls, by its own instrumentation: where it is installed (the extra `tracing`) and configured.

It is configured by OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317. Spans carry the id
that the log has of the call. Health and reflection have none.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from .calls import current
from .handlers import INFRASTRUCTURE, within
from .statuses import status_of

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
    Interceptor = grpc.aio.ServerInterceptor[Any, Any]

log = logging.getLogger(__name__)
EXPORTER = "OTEL_TRACES_EXPORTER"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
REQUEST_ID = "robust_synthesis.request_id"
_STATUS_CODE = "rpc.grpc.status_code"


def configured() -> bool:
    """Whether the environment asks for traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get(EXPORTER) == "none":
        return False
    return any(os.environ.get(name) for name in (EXPORTER, *ENDPOINTS))


def interceptors(provider: Any = None) -> Sequence[Interceptor]:
    """What a gateway's `interceptors` begin with; nothing where traces are not configured, or not installed, which the log says.

    `provider` is a TracerProvider; by default the one that is set, else one for what is configured.
    """
    if provider is None and not configured():
        return ()
    try:
        from opentelemetry.instrumentation import grpc as instrumentation

        provider = provider or _provider()
    except ModuleNotFoundError as error:
        log.warning("no traces: %s is missing; pip install 'robust-synthesis[tracing]'", error.name)
        return ()
    instrument: Any = instrumentation.aio_server_interceptor  # which has no types
    return (instrument(provider, filter_=lambda details: not details.method.startswith(INFRASTRUCTURE)), _Told())


def _provider() -> Any:
    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return trace.get_tracer_provider()
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    if os.environ.get(EXPORTER) == "console":
        exporter: Any = ConsoleSpanExporter()
    else:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    own = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "robust-synthesis"}
    provider = TracerProvider(resource=Resource.create(own))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider


class _Told(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Tells the span what the caller will be told: the instrumentation knows only statuses that are set inside of it."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(details)
        if handler is None or details.method.startswith(INFRASTRUCTURE):
            return handler
        return within(handler, lambda _: _telling())


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    from opentelemetry.trace import Status, StatusCode, get_current_span

    span = get_current_span()
    span.set_attribute(REQUEST_ID, current().id)
    try:
        yield
    except Exception as error:
        status = status_of(error)
        span.set_attribute(_STATUS_CODE, status.code)
        span.set_status(Status(StatusCode.ERROR, status.message))
        raise
