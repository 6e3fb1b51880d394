"""The TorchServe engine: a private TorchServe that is started, watched, and replaced when it dies or hangs."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from ... import archive
from ...errors import ModelError, SynthesisError
from ...gateway.backends.base import WorkerUnavailable
from ...units import CatalogueFiles
from ..engine import EngineError, Loaded
from ..shelf import Found, Places, Shelf
from .client import ManagementError
from .config import Settings
from .lane import Lane
from .life import Life, is_alive, is_stopped, kill
from .logs import Line

log = logging.getLogger(__name__)
_TICK = 0.25
_PROBE_EVERY = 5.0
_REPORT_SECONDS = 1.0
"""That TorchServe has to say that a worker died, before we say it."""
_BACKOFF = (1.0, 30.0)
_HEALTHY_AFTER = 60.0


class TorchServe:
    """Runs bundles in the Python workers of a private TorchServe, one per classifier version."""

    kind = "torchserve"

    def __init__(self, places: Places, *, settings: Settings | None = None, grace: float = 60, poll: float = 1) -> None:
        self.settings = settings or Settings()
        self.changed = asyncio.Event()
        self.restarts = {"frontend": 0, "worker": 0}
        self._shelf: Shelf[Lane] = Shelf(places, self._load, self._unload, grace=grace, poll=poll, changed=self.changed)
        self._folder: Path | None = None
        self._life: Life | None = None
        self._watching: asyncio.Task[None] | None = None
        self._reasons: deque[tuple[str, str]] = deque(maxlen=32)
        """(model_version, why) of Python workers that failed."""

    @property
    def up(self) -> bool:
        return any(lane.pid is not None for lane in self._shelf.handles())

    @property
    def metrics_port(self) -> int | None:
        """Of TorchServe's own metrics, on the loopback interface."""
        return None if self._life is None else self._life.metrics_port

    def models(self) -> Sequence[Loaded]:
        return self._shelf.models()

    async def start(self) -> None:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="robust-synthesis-"))
            (self._folder / "store").mkdir()
            self._life = await self._begin()
            await self._shelf.start()
        except BaseException as error:
            await self.close()
            if isinstance(error, OSError):
                raise self._cannot_write(error) from error
            raise
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        await self._shelf.close()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        if self._life is not None:
            life, self._life = self._life, None
            self._all_lost("TorchServe was stopped.")
            await life.stop()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def catalogue(self, model: str, version: str) -> CatalogueFiles:
        return await self._shelf.catalogue(model, version)

    async def reload(self) -> None:
        await self._shelf.reload()

    async def run(self, bundle: bytes, *, model: str, version: str | None, timeout: float) -> bytes:
        with self._shelf.use(model, version) as lane:
            life = self._life
            if life is None:
                raise WorkerUnavailable("TorchServe is starting.")
            return await lane.run(lambda: life.inference.predict(lane.name, lane.version, "bundle", bundle), timeout)

    def processes(self) -> Mapping[str, Sequence[int]]:
        jvm = [self._life.pid] if self._life is not None and self._life.pid is not None else []
        return {"jvm": jvm, "worker": [lane.pid for lane in self._shelf.handles() if lane.pid is not None]}

    async def _begin(self) -> Life:
        """A TorchServe that answers and serves nothing. A port can be taken between our look and its start: try again."""
        assert self._folder is not None
        for attempt in range(3):
            life = Life(self._folder, self.settings, self._note)
            try:
                await life.start()
            except BaseException as error:
                await life.kill()
                if attempt < 2 and isinstance(error, EngineError) and "Failed to bind" in str(error):
                    continue
                raise
            return life
        raise AssertionError

    def _note(self, line: Line) -> None:
        if line.reason is not None:
            self._reasons.append((line.source, line.reason))

    async def _load(self, found: Found) -> tuple[Lane, Loaded]:
        """Into the store, into TorchServe, and then ask it what it is. Raises ModelError or EngineError."""
        assert self._folder is not None
        lane = Lane(found.name, found.version, on_death=lambda: self._worker_died(found))
        lane.archive = f"{found.name}-{found.version}{archive.SUFFIX}"
        target = self._folder / "store" / lane.archive
        try:
            if found.path.is_dir():
                built = await asyncio.to_thread(archive.build, found.path, self._folder / "built")
                built.replace(target)
            else:
                await asyncio.to_thread(shutil.copyfile, found.path, target)  # the original may be overwritten in place
            return lane, await self._register(lane)
        except BaseException as error:
            target.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self._cannot_write(error) from error
            raise

    def _cannot_write(self, error: OSError) -> EngineError:
        place = self._folder or "a temporary directory"
        return EngineError(
            f"torchserve: cannot use {place} ({error.strerror or error}); free some space, or set TMPDIR."
        )

    async def _register(self, lane: Lane) -> Loaded:
        life = self._life
        if life is None:
            raise EngineError("torchserve: is starting.")
        self._reasons.clear()
        try:
            await life.management.register(lane.archive, self.settings.startup_seconds)
            worker = await life.management.worker(lane.name, lane.version)
            if worker is None:
                raise ModelError("its worker died")
            described = await life.inference.predict(lane.name, lane.version, "describe", b"1", 60)
            info = Loaded.of(json.loads(described))
            await life.rehearse(lane.name, lane.version)
        except (SynthesisError, ValueError) as error:
            await self._unregister(life, lane)
            said = [why for source, why in self._reasons if source == f"{lane.name}_{lane.version}"]
            raise ModelError(said[0] if said else f"model: {lane.name} cannot be loaded ({error})") from error
        if (self.settings.device or "cpu") != "cpu" and info.device == "cpu":
            await self._unregister(life, lane)
            raise EngineError(f"device: there is no {self.settings.device} for TorchServe; give --device cpu, or none.")
        lane.ready(worker[0])
        return info

    async def _unregister(self, life: Life, lane: Lane) -> None:
        try:
            await life.management.unregister(lane.name, lane.version)
        except ManagementError as error:
            log.debug("%s", error)

    async def _make_default(self, life: Life, lane: Lane) -> None:
        try:
            await life.management.set_default(lane.name, lane.version)
        except ManagementError as error:
            log.debug("%s", error)

    async def _unload(self, lane: Lane) -> None:
        assert self._folder is not None
        lane.pid = None
        if self._life is not None:
            for other in self._shelf.handles():
                if other.name == lane.name:
                    await self._make_default(self._life, other)  # TorchServe does not part with its default version
            await self._unregister(self._life, lane)
        (self._folder / "store" / lane.archive).unlink(missing_ok=True)

    def _worker_died(self, found: Found) -> None:
        self.restarts["worker"] += 1
        self.changed.set()
        log.warning("the worker process of %s %s died; TorchServe replaces it", found.name, found.version)

    def _all_lost(self, reason: str) -> None:
        for lane in self._shelf.handles():
            lane.pid = None
            lane.abandon(reason, all_lost=True)
        self.changed.set()

    async def _watch(self) -> None:
        """Look after the processes until we are closed."""
        wait = _BACKOFF[0]
        while True:
            begun = time.monotonic()
            try:
                reason = await self._until_trouble()
                log.error("TorchServe is replaced: %s", reason)
            except Exception:
                log.exception("TorchServe is replaced")
            if time.monotonic() - begun > _HEALTHY_AFTER:
                wait = _BACKOFF[0]
            life, self._life = self._life, None
            self._all_lost("TorchServe died or hung.")
            if life is not None:
                await life.kill()
            self.restarts["frontend"] += 1
            while self._life is None:
                try:
                    await self._begin_again()
                except (SynthesisError, OSError) as error:
                    log.error("%s; trying again in %.0f s", error, wait)
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, _BACKOFF[1])

    async def _begin_again(self) -> None:
        """With every classifier that there was; one that does not load any more is forgotten, and tried again later."""
        self._life = await self._begin()
        for lane in self._shelf.handles():
            try:
                await self._register(lane)
            except SynthesisError as error:
                log.error("%s %s cannot be loaded again: %s", lane.name, lane.version, error)
                self._shelf.forget(lane)
            self.changed.set()

    async def _until_trouble(self) -> str:
        """Returns why this life must end."""
        assert self._life is not None
        life = self._life
        suspects: set[int] = set()
        probed = time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            stopped = {pid for lane in self._shelf.handles() if (pid := lane.pid) is not None and is_stopped(pid)}
            for lane in self._shelf.handles():
                self._look_after(lane, stopped & suspects)
                down_for = lane.down_for
                if lane.pid is None and await self._came_back(life, lane):
                    log.info("%s %s is back after %.1f s", lane.name, lane.version, down_for)
                if lane.down_for > self.settings.startup_seconds:
                    return f"it has not replaced the worker of {lane.name} within {lane.down_for:.0f} s"
            suspects = stopped
            jvm = life.pid
            if jvm is None or not is_alive(jvm) or is_stopped(jvm) or time.monotonic() - probed > _PROBE_EVERY:
                if (trouble := await life.trouble()) is not None:
                    return trouble
                probed = time.monotonic()

    def _look_after(self, lane: Lane, stopped: set[int]) -> None:
        """Kill a worker that hangs; TorchServe begins another."""
        pid = lane.pid
        if pid is None:
            if lane.outstanding and lane.down_for > _REPORT_SECONDS:
                lane.abandon("the worker process died.")
        elif not is_alive(pid):
            lane.down()
        elif lane.overdue or pid in stopped:
            log.warning("%s %s hangs; its worker process is replaced", lane.name, lane.version)
            kill(pid)
            lane.down()

    async def _came_back(self, life: Life, lane: Lane) -> bool:
        try:
            worker = await life.management.worker(lane.name, lane.version)
        except ManagementError:
            return False
        if worker is None or not worker[1] or worker[0] == lane.dead or not is_alive(worker[0]):
            return False
        lane.ready(worker[0])
        self.changed.set()
        return True
