"""The embedded and the TorchServe backend: one worker, an engine that this process drives. TorchServe needs no torch here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ...units import CatalogueFiles
from ...worker.engine import Engine
from .base import ModelInfo, Worker, WorkerUnavailable


class EngineWorker:
    """An engine as a worker."""

    def __init__(self, engine: Engine) -> None:
        self.name = engine.kind
        self._engine = engine
        self.closed = False

    @property
    def up(self) -> bool:
        return self._engine.up and not self.closed

    def models(self) -> Sequence[ModelInfo]:
        return self._engine.models()

    async def run(self, bundle: bytes, *, model: str, version: str | None, timeout: float) -> bytes:
        if self.closed:
            raise WorkerUnavailable("the worker is stopping.")
        return await self._engine.run(bundle, model=model, version=version, timeout=timeout)

    async def catalogue(self, model: str, version: str) -> CatalogueFiles:
        return await self._engine.catalogue(model, version)


class EngineBackend:
    """The backend of a gateway that drives one engine: `EngineBackend(TorchServe(Places(directory)))`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._worker = EngineWorker(engine)
        self.changed: asyncio.Event = engine.changed

    async def start(self) -> None:
        """Raises EngineError or ModelError."""
        await self._engine.start()

    async def close(self) -> None:
        self._worker.closed = True
        await self._engine.close()

    def workers(self) -> Sequence[Worker]:
        return (self._worker,)
