"""A connection to a worker agent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ...credentials import Shown
from ...v1 import worker_pb2, worker_pb2_grpc

if TYPE_CHECKING:
    from ...v1.worker_pb2_grpc import WorkerServiceAsyncStub  # only in the .pyi

SERVICE = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
_CONNECT_SECONDS = 2.0
_CALL_SECONDS = 5.0


class Connection:
    """A channel with the credentials that it was opened with. Its methods raise AioRpcError."""

    def __init__(self, target: str, host: str, shown: Shown) -> None:
        options: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_retries", 0),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),  # a machine that is gone without a word
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if shown.channel is None:
            self._channel = grpc.aio.insecure_channel(target, options=options)
        else:  # the certificate names the host, and not the address that it had
            options.append(("grpc.ssl_target_name_override", host))
            self._channel = grpc.aio.secure_channel(target, shown.channel, options=options)
        self.shown = shown
        self._stub: WorkerServiceAsyncStub = worker_pb2_grpc.WorkerServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._outstanding = 0

    async def ready(self) -> bool:
        """Waits a moment for it to be there, so that what fails afterwards may have run, and what fails here has not."""
        if self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._channel.channel_ready()
                return True
        return False

    async def run(self, request: worker_pb2.RunRequest, timeout: float) -> bytes:
        """The reply's blob."""
        self._outstanding += 1
        try:
            reply = await self._stub.Run(request, metadata=self.shown.metadata, timeout=timeout)
        finally:
            self._outstanding -= 1
        return reply.bundle

    async def catalogue(self, request: worker_pb2.GetCatalogueRequest) -> worker_pb2.GetCatalogueResponse:
        return await self._stub.GetCatalogue(request, metadata=self.shown.metadata, timeout=_CALL_SECONDS)

    async def describe(self) -> worker_pb2.DescribeResponse:
        request = worker_pb2.DescribeRequest()
        return await self._stub.Describe(request, metadata=self.shown.metadata, timeout=_CALL_SECONDS)

    async def serves(self) -> bool:
        """Whether the worker says that it can run bundles."""
        state = await self._health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=_CALL_SECONDS)
        return bool(state.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self, grace: float) -> None:
        """Break off what is under way after so many seconds."""
        end = time.monotonic() + grace
        while self._outstanding and time.monotonic() < end:
            await asyncio.sleep(0.1)
        await self._channel.close(None)
