"""Worker agents on other machines: found by name, described, left alone while they fail, and probed until they are back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from ...batch_sizes import checked
from ...bundle import BundleError, BundleTooLarge
from ...credentials import Credentials, Shown
from ...errors import InvalidInput, ModelError, SynthesisError
from ...model_folder import Card
from ...units import CatalogueFiles
from ...v1 import worker_pb2
from ...watched import Watched
from .base import ModelInfo, Worker, WorkerLost, WorkerUnavailable
from .connection import Connection

__all__ = ("DEFAULT_PORT", "Credentials", "Remote", "RemoteWorker", "translate")

log = logging.getLogger(__name__)
DEFAULT_PORT = 50061
_DESCRIBE_SECONDS = 2.0
_BACKOFF = (0.1, 5.0)
"""Seconds between probes of a worker that has failed: first, and at most."""
_LONGEST_BUNDLE = 300.0
_GRACE = 10.0
"""Added to the deadline of a bundle, which the worker may compute after another one."""


class RemoteWorker:
    """One worker agent."""

    def __init__(self, target: str, host: str, secrets: Watched[Shown], on_change: Callable[[], None]) -> None:
        self.name = target
        self.host = host
        self._secrets = secrets
        self._on_change = on_change
        self._models: Sequence[ModelInfo] = ()
        self._up = False
        self._max_bytes = 0
        self._failures = 0
        self._look = asyncio.Event()
        self._said = ""
        self._connection = Connection(target, host, secrets.value)
        self._closing: set[asyncio.Task[None]] = set()
        self._following = asyncio.create_task(self._follow())

    @property
    def up(self) -> bool:
        return self._up

    def models(self) -> Sequence[ModelInfo]:
        return self._models

    async def run(self, bundle: bytes, *, model: str, version: str | None, timeout: float) -> bytes:
        """Raises WorkerLost, WorkerUnavailable, or BundleTooLarge for a bundle that the worker would refuse."""
        if self._max_bytes and len(bundle) > self._max_bytes:
            raise BundleTooLarge(f"bundle: has {len(bundle) >> 20} MiB; {self.name} takes {self._max_bytes >> 20} MiB.")
        connection = self._connection
        if not await connection.ready():
            self._eject("it cannot be reached")
            raise WorkerUnavailable(f"{self.name} cannot be reached.")
        request = worker_pb2.RunRequest(model=model, version=version or "", bundle=bundle, timeout_seconds=timeout)
        try:
            return await connection.run(request, 2 * timeout + _GRACE)
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None

    async def catalogue(self, model: str, version: str) -> CatalogueFiles:
        """Raises WorkerUnavailable."""
        request = worker_pb2.GetCatalogueRequest(model=model, version=version)
        try:
            found = await self._connection.catalogue(request)
        except grpc.aio.AioRpcError as error:
            raise WorkerUnavailable(f"{self.name} shows no catalogue: {error.details()}") from None
        return CatalogueFiles(found.units_json, found.sheet)

    async def close(self, grace: float = 0) -> None:
        """Break off what is under way after a grace."""
        self._following.cancel()
        await asyncio.wait({self._following})
        self._up = False
        await asyncio.gather(self._connection.close(grace), *self._closing)

    def _failed(self, error: grpc.aio.AioRpcError) -> SynthesisError:
        failure = translate(self.name, error)
        code = error.code()
        if code is grpc.StatusCode.NOT_FOUND:
            self._look.set()  # its classifiers have changed
        elif code is not grpc.StatusCode.RESOURCE_EXHAUSTED and not isinstance(failure, BundleError):
            self._eject(str(failure))
        return failure

    def _eject(self, reason: str) -> None:
        """Nothing more for it until a probe finds it serving."""
        if self._up:
            self._up = False
            log.warning("%s is left alone: %s", self.name, reason)
            self._on_change()
        self._look.set()

    async def _follow(self) -> None:
        """Describe it while it is up; probe it while it is not."""
        while True:
            try:
                await self._probe()
            except (grpc.aio.AioRpcError, ModelError) as error:
                self._failures += 1
                self._say(error)
                if self._up:
                    self._up = False
                    self._on_change()
            if self._up:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DESCRIBE_SECONDS):
                        await self._look.wait()
                self._look.clear()
            if not self._up:
                await asyncio.sleep(min(_BACKOFF[0] * 2 ** min(self._failures, 16), _BACKOFF[1]))

    async def _probe(self) -> None:
        self._renew()
        if not self._up and not await self._connection.serves():
            self._failures += 1
            if not self._models:
                await self._describe()  # what it will serve, as far as it knows
            return
        await self._describe()
        self._failures = 0
        self._said = ""
        if not self._up:
            self._up = True
            log.info("%s is up: %s", self.name, ", ".join(f"{m.name} {m.version}" for m in self._models) or "no models")
            self._on_change()

    def _renew(self) -> None:
        """Connect anew where what we show has changed; bundles that are outstanding end on the connection that they have."""
        shown = self._secrets.value
        if shown is self._connection.shown:
            return
        closing = asyncio.create_task(self._connection.close(grace=_LONGEST_BUNDLE))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._connection = Connection(self.name, self.host, shown)

    async def _describe(self) -> None:
        described = await self._connection.describe()
        self._max_bytes = described.limits.max_bundle_bytes
        models = tuple(_model(model) for model in described.models)
        if models != self._models:
            self._models = models
            self._on_change()

    def _say(self, error: Exception) -> None:
        """Once for each reason."""
        reason = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else str(error)
        if reason != self._said:
            self._said = reason
            log.warning("%s does not serve: %s", self.name, reason)


class Remote:
    """Worker agents at addresses `HOST[:PORT]`; a host of several addresses is as many workers."""

    def __init__(
        self, addresses: Sequence[str], credentials: Credentials | None = None, *, resolve_seconds: float = 5
    ) -> None:
        if not addresses:
            raise InvalidInput("workers", "give at least one address HOST:PORT.")
        self.changed = asyncio.Event()
        self._places = [_split(address) for address in addresses]
        self._secrets = (credentials or Credentials()).follow()
        self._resolve_seconds = resolve_seconds
        self._workers: dict[str, RemoteWorker] = {}
        self._unknown: set[str] = set()
        self._resolving: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Does not wait for any worker: jobs wait until there is one."""
        await self._resolve()
        self._resolving = asyncio.create_task(self._go_on())

    async def close(self) -> None:
        if self._resolving is not None:
            self._resolving.cancel()
            await asyncio.wait({self._resolving})
        await asyncio.gather(*(worker.close() for worker in self._workers.values()), *self._closing)
        self._workers.clear()

    def workers(self) -> Sequence[Worker]:
        return tuple(self._workers.values())

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(self._resolve_seconds)
            try:
                await self._resolve()
            except Exception:
                log.exception("cannot look up the workers")

    async def _resolve(self) -> None:
        """Bring the workers in step with what the names stand for; a name that cannot be looked up changes nothing."""
        wanted: dict[str, str] = {}
        failed = set()
        for host, port in self._places:
            found = await _addresses(host, port)
            if found is None:
                failed.add(host)
                if host not in self._unknown:
                    log.warning("no address is known of %s", host)
            for address in found or ():
                wanted[f"[{address}]:{port}" if ":" in address else f"{address}:{port}"] = host
        self._unknown = failed
        for target, host in wanted.items():
            if target not in self._workers:
                self._workers[target] = RemoteWorker(target, host, self._secrets, self.changed.set)
                self.changed.set()
        for target, worker in list(self._workers.items()):
            if target not in wanted and worker.host not in failed:
                log.info("%s is gone", target)
                del self._workers[target]
                task = asyncio.create_task(worker.close(grace=60))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
                self.changed.set()


def translate(name: str, error: grpc.aio.AioRpcError) -> SynthesisError:
    """What a failed call means, as worker.proto says; whatever does not say that the bundle did not run, may have run it."""
    code, details = error.code(), error.details() or ""
    trailing: Any = error.trailing_metadata() or ()
    refused = dict(trailing).get("bundle-ran") == "no"
    if not refused:
        reason = "lost the bundle" if code is grpc.StatusCode.ABORTED else f"failed with {code.name}"
        return WorkerLost(f"{name} {reason}: {details}")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return BundleError(details)
    return WorkerUnavailable(f"{name} refused the bundle: {details}")


def _model(model: worker_pb2.Model) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        version=model.version,
        card=Card.from_json(model.card_json),
        current=model.current,
        step_seconds=dict(model.step_seconds),
        batch_sizes=checked(model.batch_sizes),
        protocol=model.protocol,
    )


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":") if not address.endswith("]") else (address, "", "")
    if not colon:
        host, port = address, str(DEFAULT_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidInput("workers", f"{address!r} is no address; give HOST:PORT.")
    return host.strip("[]"), int(port)


async def _addresses(host: str, port: int) -> list[str] | None:
    """Of the family that the system prefers: one machine may have an address of each."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return None
    return sorted({str(address[0]) for family, _, _, _, address in found if family == found[0][0]})
