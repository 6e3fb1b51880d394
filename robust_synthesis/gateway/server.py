"""The gateway: a backend, the jobs that it computes, the gRPC services in front of them, and their orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from .. import probes
from ..channel import DEADLINE, DEFAULT_PORT, PING_TIMEOUT, SERVER_PING_INTERVAL, SHORTEST_PING_INTERVAL, request_bytes
from ..errors import InvalidInput
from ..memory import settle
from ..security import bind, host_and_port
from ..v1 import model_pb2_grpc, synthesis_pb2_grpc
from . import model_servicer, servicer
from .backends.base import Backend
from .batcher import DEFAULT
from .catalogues import Catalogues
from .desk import Desk
from .dispatcher import Dispatcher
from .edit import SessionLimits
from .interceptor import Calls
from .limits import Limits
from .models import Models
from .policy import Policy
from .reading import Reading
from .seams import Admission, Observer
from .sessions import Sessions
from .uploads import UploadLimits

log = logging.getLogger(__name__)
SERVICES = (servicer.SERVICE, model_servicer.SERVICE)
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
"""Newer clients ask for it; its messages are those of v1alpha."""
METADATA_BYTES = 16 * 2**10
"""Of a call; more is refused before anything reads it, surely where it is twice as much."""
_LAST_WORDS = (0.1, 6.0)
"""Of the grace, and seconds at most: for calls to end after their jobs have, and for the backend to stop."""
_QUIET = 0.25
"""Seconds without a new call before the port is closed: whoever asks at that moment is cancelled, and would not try again."""
_FLUSH = 0.5
"""Seconds for the last bytes to leave, also without a grace; watchers of health are sent away then."""


@dataclass(frozen=True)
class Options:
    """How the gateway serves. Times are in seconds."""

    listen: str = f"127.0.0.1:{DEFAULT_PORT}"
    default_model: str = ""
    """Of requests without one; empty is the only classifier, or the robust one of most classes."""
    limits: Limits = field(default_factory=Limits)
    sessions: SessionLimits = field(default_factory=SessionLimits)
    uploads: UploadLimits = field(default_factory=UploadLimits)
    """Of requests that arrive."""
    deadline: float = DEADLINE
    """Of calls that have none."""
    grace: float = 60.0
    """From SIGTERM to the end of the process; accepted requests have nine tenths of it, or all but six seconds."""
    connection_age: float = 600.0
    """After which a client is asked to connect anew, so that load spreads over new gateways."""
    connection_grace: float = 600.0
    """For the calls of a connection that has reached its age."""
    streams: int = 1000
    """Calls at a time on one connection."""
    health_port: int = 0
    """For probes, in plaintext; 0 is none."""

    def __post_init__(self) -> None:
        host_and_port(self.listen)
        for name in ("deadline", "connection_age", "connection_grace"):
            if not 0 < getattr(self, name) <= 86_400:
                raise InvalidInput(name, f"is {getattr(self, name)}; give seconds above 0, up to a day.")
        if not 0 <= self.grace <= 86_400:
            raise InvalidInput("grace", f"is {self.grace}; give seconds from 0, up to a day.")

    def channel_options(self) -> list[tuple[str, int]]:
        """What gRPC is told; docs/gateway.md has the client's side of it."""
        return [
            ("grpc.so_reuseport", 0),  # else a second gateway on the port would start, and share it
            ("grpc.max_receive_message_length", request_bytes(self.limits.image_bytes)),
            ("grpc.max_send_message_length", -1),  # results are as large as what was asked for
            ("grpc.max_metadata_size", METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", 2 * METADATA_BYTES),
            ("grpc.max_concurrent_streams", self.streams),
            ("grpc.http2.bdp_probe", 0),  # else megabytes that nobody has read yet wait for each of a thousand streams
            ("grpc.keepalive_time_ms", int(1000 * SERVER_PING_INTERVAL)),  # finds clients that have gone without a word
            ("grpc.keepalive_timeout_ms", int(1000 * PING_TIMEOUT)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", int(1000 * SHORTEST_PING_INTERVAL)),
            ("grpc.max_connection_age_ms", int(1000 * self.connection_age)),
            ("grpc.max_connection_age_grace_ms", int(1000 * self.connection_grace)),
        ]


class Gateway:
    """Either `run` until a signal, or `start` and `stop`."""

    def __init__(
        self,
        backend: Backend,
        options: Options | None = None,
        *,
        admission: Admission | None = None,
        observer: Observer | None = None,
        interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = (),
        credentials: grpc.ServerCredentials | None = None,
        policy: Policy = DEFAULT,
    ) -> None:
        self.options = options or Options()
        self.dispatcher = Dispatcher(backend, policy=policy, observer=observer)
        self.models = Models(backend, self.options.default_model)
        self.desk = Desk(
            self.dispatcher,
            self.models,
            limits=self.options.limits,
            admission=admission,
            observer=observer,
            deadline_seconds=self.options.deadline,
        )
        reading = Reading(self.options.uploads, request_bytes(self.options.limits.image_bytes))
        self.uploads = reading.uploads
        self.sessions = Sessions(self.desk, self.options.limits, self.options.sessions, self.uploads)
        self.port = 0
        self._backend = backend
        self._credentials = credentials
        self._calls = Calls(observer)
        self._interceptors = (self._calls, *interceptors, reading)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server: grpc.aio.Server | None = None
        self._probes: grpc.aio.Server | None = None
        self._stop = asyncio.Event()

    @property
    def target(self) -> str:
        """Where it listens, HOST:PORT."""
        return f"{self.options.listen.rpartition(':')[0]}:{self.port}"

    async def start(self) -> None:
        """Raises InvalidInput where it cannot listen, EngineError or ModelError where the backend cannot start."""
        self._server = self._listening()
        await self.dispatcher.start()
        await self._server.start()
        for service in ("", *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        if self.options.health_port:
            host = host_and_port(self.options.listen)[0]
            self._probes = await probes.listen(self._health, host, self.options.health_port)
        log.info("ready on %s: %s", self.target, ", ".join(self.models.current()) or "no models yet")

    async def stop(self, grace: float | None = None) -> None:
        """Health says so first, new calls are refused, and accepted requests may end; all is closed within `grace` seconds.

        A backend that takes longer to stop is waited for.
        """
        grace = self.options.grace if grace is None else grace
        end = time.monotonic() + grace
        share, most = _LAST_WORDS
        await self._health.enter_graceful_shutdown()
        self._calls.draining = True
        self.sessions.drain()
        log.info("stopping: %d requests to finish", len(self.dispatcher.requests))
        await self.dispatcher.finish(grace - min(share * grace, most))
        left, quiet = max(_FLUSH, end - time.monotonic() - _FLUSH), min(share * grace, _QUIET)
        await asyncio.gather(self.dispatcher.close(0), self._calls.idle(left, quiet=quiet))
        servers = [server for server in (self._server, self._probes) if server is not None]
        await asyncio.gather(*(server.stop(_FLUSH) for server in servers))
        log.info("stopped")

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; a second one ends the grace."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        starting = asyncio.create_task(self.start())
        if await self._before_signal(starting):
            starting.result()
            settle()
            await self._stop.wait()
        self._stop.clear()
        stopping = asyncio.create_task(self.stop())
        if await self._before_signal(stopping, max(self.options.grace, _FLUSH) + _FLUSH):
            return
        if self._stop.is_set():
            await self.stop(grace=0)
        else:
            log.warning("the backend did not stop in time; it is left to end by itself")

    async def _before_signal(self, work: asyncio.Task[None], timeout: float | None = None) -> bool:
        """Whether it ended before a signal came, or so many seconds had passed; else it is cancelled."""
        signalled = asyncio.create_task(self._stop.wait())
        await asyncio.wait((work, signalled), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        if work.done():
            return True
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        return False

    def _model_servicer(self) -> model_servicer.ModelServicer:
        return model_servicer.ModelServicer(self.desk, self.models, Catalogues(self._backend))

    def _listening(self) -> grpc.aio.Server:
        server = grpc.aio.server(interceptors=self._interceptors, options=self.options.channel_options())
        synthesis_pb2_grpc.add_SynthesisServiceServicer_to_server(
            servicer.SynthesisServicer(self.desk, self.sessions), server
        )
        model_pb2_grpc.add_ModelServiceServicer_to_server(self._model_servicer(), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        _reflect(server)
        self.port = bind(server, self.options.listen, self._credentials)
        return server


def _reflect(server: grpc.aio.Server) -> None:
    """Under both names that clients know."""
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflector = reflection.aio.ReflectionServicer(names)  # type: ignore[attr-defined]
    method = grpc.stream_stream_rpc_method_handler(
        reflector.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (reflection.SERVICE_NAME, REFLECTION_V1):
        handlers = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method})
        server.add_generic_rpc_handlers((handlers,))
