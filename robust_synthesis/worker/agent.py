"""The worker agent: what the network sees of a worker. It authenticates, limits, and passes bundles on to an engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from .. import probes
from ..bundle import MAX_BYTES, PROTOCOL
from ..errors import SynthesisError, Unauthenticated
from ..exposition import HOST
from ..gateway.backends.base import WorkerLost, WorkerUnavailable
from ..keys import KeyFile
from ..memory import settle
from ..security import HEALTH, Endpoint, bind
from ..v1 import worker_pb2, worker_pb2_grpc
from .engine import Engine, UnknownVersion, uncancelled
from .metrics import Metrics

if TYPE_CHECKING:
    _Context = grpc.aio.ServicerContext[Any, Any]
    _Handler = grpc.RpcMethodHandler[Any, Any]

log = logging.getLogger(__name__)
SERVICE = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
DID_NOT_RUN = ("bundle-ran", "no")
"""Trailing metadata of a refusal, which tells it from a connection that broke in mid-call."""
_DEFAULT_TIMEOUT = 60.0
_LONGEST_TIMEOUT = 300.0
"""TorchServe's own, in deploy/torchserve/model-config.yaml."""
_STEPS_ALLOWED = 4.0
"""A bundle is never taken for hung before this many times the slowest step that was measured."""


@dataclass(frozen=True, kw_only=True)
class Options(Endpoint):
    """How the agent is reached, and how much it takes."""

    metrics_port: int | None = None
    metrics_host: str = HOST
    health_port: int | None = None
    """For probes, in plaintext."""
    max_bundles: int = 2
    max_bundle_bytes: int = MAX_BYTES
    drain_seconds: float = 30


class Servicer(worker_pb2_grpc.WorkerServiceServicer):
    """Converts, limits, and says what became of a bundle."""

    def __init__(self, engine: Engine, metrics: Metrics, options: Options) -> None:
        self._engine = engine
        self._metrics = metrics
        self._options = options
        self.started = False
        """Until then some classifiers are missing, and a gateway that heard of the others would refuse requests for those."""
        self.draining = False
        self.outstanding = 0

    async def Run(self, request: worker_pb2.RunRequest, context: _Context) -> worker_pb2.RunResponse:  # noqa: N802
        if self.draining:
            await self._refuse(context, grpc.StatusCode.UNAVAILABLE, "unavailable", "the worker is stopping.")
        if self.outstanding >= self._options.max_bundles:
            await self._refuse(
                context, grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", "busy: the worker has enough bundles."
            )
        if not request.model or not request.bundle:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "invalid", "model, bundle: must be given.")
        try:
            self.outstanding += 1  # at once: others are counted before this one's task begins
            return worker_pb2.RunResponse(bundle=await uncancelled(self._run(request)))
        except UnknownVersion as error:
            await self._refuse(context, grpc.StatusCode.NOT_FOUND, "unknown", str(error))
        except WorkerUnavailable as error:
            await self._refuse(context, grpc.StatusCode.UNAVAILABLE, "unavailable", str(error))
        except WorkerLost as error:
            self._metrics.count("lost")
            await context.abort(grpc.StatusCode.ABORTED, str(error))
        except SynthesisError as error:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "invalid", str(error))

    async def Describe(self, *_: object) -> worker_pb2.DescribeResponse:  # noqa: N802
        return worker_pb2.DescribeResponse(
            models=[
                worker_pb2.Model(
                    name=model.name,
                    version=model.version,
                    current=model.current,
                    card_json=model.card.to_json(),
                    step_seconds=dict(model.step_seconds),
                    batch_sizes=model.batch_sizes,
                    device=model.device,
                    precision=model.precision,
                    protocol=model.protocol,
                )
                for model in (self._engine.models() if self.started else ())
            ],
            protocol=PROTOCOL,
            limits=worker_pb2.Limits(
                max_bundles=self._options.max_bundles, max_bundle_bytes=self._options.max_bundle_bytes
            ),
            engine=self._engine.kind,
        )

    async def GetCatalogue(  # noqa: N802
        self, request: worker_pb2.GetCatalogueRequest, context: _Context
    ) -> worker_pb2.GetCatalogueResponse:
        try:
            files = await self._engine.catalogue(request.model, request.version)
        except (SynthesisError, OSError) as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return worker_pb2.GetCatalogueResponse(units_json=files.units_json, sheet=files.sheet)

    async def _run(self, request: worker_pb2.RunRequest) -> bytes:
        """Holds its place until the engine is done, even where the caller has gone."""
        self._metrics.outstanding.inc()
        try:
            reply = await self._engine.run(
                request.bundle,
                model=request.model,
                version=request.version or None,
                timeout=self._timeout(request.timeout_seconds),
            )
        finally:
            self.outstanding -= 1
            self._metrics.outstanding.dec()
        self._metrics.count("ok")
        self._metrics.ran(request.model, len(request.bundle), reply)
        return reply

    def _timeout(self, asked: float) -> float:
        slowest = max((max(model.step_seconds.values(), default=0) for model in self._engine.models()), default=0)
        wanted = asked if math.isfinite(asked) and asked > 0 else _DEFAULT_TIMEOUT
        return min(max(wanted, 1 + _STEPS_ALLOWED * slowest), _LONGEST_TIMEOUT)

    async def _refuse(self, context: _Context, code: grpc.StatusCode, outcome: str, message: str) -> NoReturn:
        self._metrics.count(outcome)
        await context.abort(code, message, (DID_NOT_RUN,))
        raise AssertionError


class _Authentication(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Every method but health needs a key: probes cannot show one."""

    def __init__(self, keys: KeyFile, metrics: Metrics) -> None:
        self._keys = keys
        self._metrics = metrics

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]], details: grpc.HandlerCallDetails
    ) -> _Handler:
        if not details.method.startswith(HEALTH):
            try:
                self._keys.find(details.invocation_metadata or ())
            except Unauthenticated as error:
                return self._refusal(str(error))
        return await continuation(details)

    def _refusal(self, message: str) -> _Handler:
        async def refuse(_: object, context: _Context) -> None:
            self._metrics.count("unauthenticated")
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, message, (DID_NOT_RUN,))

        return grpc.unary_unary_rpc_method_handler(refuse)


class Agent:
    """An engine, the server in front of it, and their orderly end."""

    def __init__(self, engine: Engine, options: Options, metrics: Metrics) -> None:
        self._engine = engine
        self._options = options
        self._metrics = metrics
        self._servicer = Servicer(engine, metrics, options)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._stop = asyncio.Event()
        self.port = 0

    def stop(self) -> None:
        """Finish what is under way, then end."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop`, SIGTERM or SIGINT. Raises InvalidInput, EngineError or ModelError where it cannot start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        with contextlib.ExitStack() as cleanup:
            if self._options.metrics_port:
                cleanup.callback(self._metrics.serve(self._options.metrics_host, self._options.metrics_port))
            server = self._server()
            await self._set_health()
            await server.start()
            probed = None
            if self._options.health_port:
                probed = await probes.listen(self._health, self._options.host, self._options.health_port)
            try:
                if await self._unless_stopped(self._engine.start()):
                    settle()
                    self._servicer.started = True
                    self._announce()
                    await self._unless_stopped(self._follow_health())
                await self._drain()
            finally:
                await server.stop(1)
                await self._engine.close()
                if probed is not None:
                    await probed.stop(None)

    def _server(self) -> grpc.aio.Server:
        keys = self._options.key_file()
        interceptors = [] if keys is None else [_Authentication(keys, self._metrics)]
        server = grpc.aio.server(
            interceptors=interceptors,
            options=[
                ("grpc.so_reuseport", 0),  # else a second worker on the port would start, and share it
                ("grpc.max_receive_message_length", self._options.max_bundle_bytes + 2**16),
                ("grpc.max_send_message_length", self._options.max_bundle_bytes + 2**16),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        self.port = bind(server, self._options.listen, self._options.credentials())
        return server

    async def _unless_stopped(self, work: Awaitable[None]) -> bool:
        """Whether it ended by itself."""
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            return False
        task.result()
        return True

    async def _follow_health(self) -> None:
        while True:
            await self._set_health()
            await self._engine.changed.wait()
            self._engine.changed.clear()

    async def _set_health(self) -> None:
        states = health_pb2.HealthCheckResponse
        for service in ("", SERVICE):
            await self._health.set(service, states.SERVING if self._engine.up else states.NOT_SERVING)

    async def _drain(self) -> None:
        """No new bundles; those under way are finished. A second signal ends the wait."""
        await self._health.enter_graceful_shutdown()
        self._servicer.draining = True
        self._stop.clear()
        end = asyncio.get_running_loop().time() + self._options.drain_seconds
        if self._servicer.outstanding:
            log.info("stopping: %d bundles to finish", self._servicer.outstanding)
        while self._servicer.outstanding and not self._stop.is_set() and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)

    def _announce(self) -> None:
        models = ", ".join(f"{model.name} {model.version} on {model.device}" for model in self._engine.models())
        log.info(
            "ready on %s:%d (%s, %s): %s",
            self._options.host,
            self.port,
            self._options.transport,
            self._engine.kind,
            models,
        )
