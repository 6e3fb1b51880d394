"""What a worker agent, or the torchserve backend, drives: an engine that runs bundles with several classifiers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .. import torch_environment
from ..batch_sizes import checked
from ..errors import ModelError, SynthesisError
from ..gateway.backends.base import ModelInfo, WorkerLost, WorkerUnavailable
from ..memory import keep_memory
from ..model_folder import Card
from ..units import CatalogueFiles

if TYPE_CHECKING:
    from .compute import Compute
    from .shelf import Found, Places

log = logging.getLogger(__name__)
_HUNG = "the engine still computes a bundle that took too long."
_STOPPED = "the engine has stopped."
T = TypeVar("T")


class EngineError(SynthesisError):
    """The engine cannot be started here: a part of it is missing, or the system refuses."""


class UnknownVersion(WorkerUnavailable):
    """The engine does not have this classifier, or this version of it."""


@dataclass(frozen=True)
class Loaded(ModelInfo):
    """A classifier that can run bundles, and where it does."""

    device: str
    precision: str

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Loaded:
        """From what `Compute.describe` says. Raises ModelError for something else."""
        try:
            card = described["card"]
            return cls(
                name=str(described["name"]),
                version=str(described["version"]),
                card=Card.from_json(card if isinstance(card, str) else json.dumps(card)),
                current=True,
                batch_sizes=checked(map(int, described.get("batch_sizes", ()))),
                step_seconds={int(size): float(seconds) for size, seconds in described["step_seconds"].items()},
                protocol=int(described["protocol"]),
                device=str(described["device"]),
                precision=str(described["precision"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"model: its description cannot be read ({error!r}); build the archive again.") from error


class Engine(Protocol):
    """Runs bundles, one after another per classifier version."""

    kind: str
    """torchserve or inprocess."""
    changed: asyncio.Event
    """Set whenever `up` or `models()` changes."""
    restarts: dict[str, int]
    """How often it replaced what: frontend (the JVM with all below it), worker (the process of one classifier version)."""

    @property
    def up(self) -> bool:
        """Whether any classifier can run a bundle now."""
        ...

    async def start(self) -> None:
        """Until the first classifiers are loaded. Raises EngineError, or ModelError where none can be."""
        ...

    async def close(self) -> None: ...

    def models(self) -> Sequence[Loaded]: ...

    async def run(self, bundle: bytes, *, model: str, version: str | None, timeout: float) -> bytes:
        """A bundle's blob -> its reply's. The timeout begins when the bundle's turn comes.

        Raises WorkerLost, WorkerUnavailable (UnknownVersion among them), or BundleError for one that is too large.
        """
        ...

    async def catalogue(self, model: str, version: str) -> CatalogueFiles:
        """The classifier's latent units. Raises UnknownVersion or ModelError."""
        ...

    async def reload(self) -> None:
        """Look at the models directory now, and wait until what is new has been loaded."""
        ...

    def processes(self) -> Mapping[str, Sequence[int]]:
        """Process ids by role, besides our own."""
        ...


class InProcess:
    """The engine in this process: bundles in one thread of their own, and no protection against what crashes a process."""

    kind = "inprocess"

    def __init__(
        self,
        places: Places,
        *,
        device: str | None = None,
        precision: str = "auto",
        grace: float = 60,
        poll: float = 1,
    ) -> None:
        from .shelf import Shelf

        torch_environment.prepare(os.environ)  # in time: torch is imported with the first classifier
        keep_memory()
        self.changed = asyncio.Event()
        self.restarts: dict[str, int] = {}
        self._options: dict[str, Any] = {"device": device, "precision": precision}
        self._shelf: Shelf[Compute] = Shelf(
            places, self._load, self._unload, grace=grace, poll=poll, changed=self.changed
        )
        self.thread = ThreadPoolExecutor(1, "compute")
        """Which computes, and should be the only one to: OpenMP has helpers for each, which are slow where cores are fewer."""
        self._queued: set[Future[bytes]] = set()
        """Bundles whose turn has not come; the thread takes the next without waiting for the event loop."""
        self._hung = False
        self._closed = False

    @property
    def up(self) -> bool:
        return bool(self._shelf.models()) and not self._hung

    async def start(self) -> None:
        await self._shelf.start()

    async def close(self) -> None:
        await self._shelf.close()
        self._closed = True
        self.thread.shutdown(wait=False, cancel_futures=True)

    def models(self) -> Sequence[Loaded]:
        return self._shelf.models()

    async def catalogue(self, model: str, version: str) -> CatalogueFiles:
        return await self._shelf.catalogue(model, version)

    async def reload(self) -> None:
        await self._shelf.reload()

    def processes(self) -> Mapping[str, Sequence[int]]:
        return {}

    async def run(self, bundle: bytes, *, model: str, version: str | None, timeout: float) -> bytes:
        return await uncancelled(self._run(bundle, model, version, timeout))

    async def _run(self, bundle: bytes, model: str, version: str | None, timeout: float) -> bytes:
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        with self._shelf.use(model, version) as compute:
            if self._hung or self._closed:
                raise WorkerUnavailable(_STOPPED if self._closed else _HUNG)

            def work() -> bytes:
                loop.call_soon_threadsafe(turn.set_result, None)
                return compute.run(bundle)

            submitted = self.thread.submit(work)
            future = asyncio.wrap_future(submitted)
            self._queued.add(submitted)
            await asyncio.wait({turn, future}, return_when=asyncio.FIRST_COMPLETED)
            self._queued.discard(submitted)
            done, _ = await asyncio.wait({future}, timeout=timeout)
            if not done:
                self._hung = True
                self.changed.set()
                future.add_done_callback(self._came_back)
                for waiting in self._queued:
                    waiting.cancel()  # but not one that has begun meanwhile
                raise WorkerLost(f"the bundle did not end within {timeout:.1f} s.")
            if future.cancelled():
                raise WorkerUnavailable(_STOPPED if self._closed else _HUNG)
            try:
                return future.result()
            except Exception as error:
                log.exception("a bundle raised")
                raise WorkerLost(f"the engine failed ({type(error).__name__}: {error}).") from error

    def _came_back(self, future: asyncio.Future[bytes]) -> None:
        self._hung = False
        self.changed.set()
        if not future.cancelled() and (error := future.exception()) is not None:
            log.error("a bundle that took too long raised", exc_info=error)

    async def _load(self, found: Found) -> tuple[Compute, Loaded]:
        # In a thread that ends: every thread that has computed keeps helpers of its own, and where there are more of them than
        # cores OpenMP has all sleep at once while they wait, which takes half of a bundle's time.
        thread = ThreadPoolExecutor(1, "load")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, self._load_now, found)
        finally:
            thread.shutdown(wait=False)

    def _load_now(self, found: Found) -> tuple[Compute, Loaded]:
        from ..engine.classifier import Classifier
        from .compute import Compute

        if found.path.is_dir():
            classifier = Classifier.load(found.path, **self._options)
        else:
            with tempfile.TemporaryDirectory(prefix="robust-synthesis-") as folder:
                with zipfile.ZipFile(found.path) as archive:  # found only after its names and checksums were verified
                    archive.extractall(folder)
                classifier = Classifier.load(Path(folder), **self._options)
        compute = Compute(classifier)
        compute.warm_up()
        return compute, Loaded.of(compute.describe())

    async def _unload(self, compute: Compute) -> None:
        """Nothing: its memory goes with the last reference."""


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """Its result; where the caller is cancelled it goes on all the same, as TorchServe does with what it was sent."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # so that nobody misses it
    return await asyncio.shield(task)
