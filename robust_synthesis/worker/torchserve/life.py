"""One life of a TorchServe: from the start of its JVM to the end of every process below it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from ..engine import EngineError
from . import keeper, logs
from .client import Inference, Management, ManagementError
from .config import Ports, Settings, command, environment, find_java, find_torchserve, prepare

log = logging.getLogger(__name__)
_STARTED = "Model server started."
_LONGEST_LINE = 2**16
_PROBE_SECONDS = 10
_REHEARSALS = 100
"""A third of a second."""
_BUNDLE_BYTES = 30_000
"""Of one with a job of 64 pixels that has been under way."""


class Life:
    """The JVM, its keeper, and clients of it. It serves nothing until classifiers are registered."""

    def __init__(self, folder: Path, settings: Settings, on_line: Callable[[logs.Line], None]) -> None:
        self._root = folder
        self._folder = folder / secrets.token_hex(3)  # short, because the path of a socket must be
        self._store = folder / "store"
        self._settings = settings
        self._on_line = on_line
        self._mark = secrets.token_hex(16)
        self._ports = Ports.free()
        self._keeper: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._trouble = ""
        """The first error that it wrote."""
        self._silent = 0
        self._rehearsed = False
        self.pid: int | None = None
        """Of the JVM."""
        self.inference: Inference
        self.management: Management

    @property
    def metrics_port(self) -> int:
        return self._ports.metrics

    async def start(self) -> None:
        """Until it answers. Raises EngineError, or OSError for a full disk."""
        java, home = find_java(), find_torchserve()
        prepare(self._folder, self._store, self._ports, self._settings)
        own = [sys.executable, "-I", keeper.__file__, str(self._settings.stop_seconds), self._mark, str(self._root)]
        self._keeper = await asyncio.create_subprocess_exec(
            *own,
            *command(java, home, self._folder, self._store, self._settings),
            cwd=self._folder,
            env=environment(self._folder, java, self._settings),
            stdin=asyncio.subprocess.PIPE,  # closes with us
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in our terminal is ours to pass on
        )
        self._reading = asyncio.create_task(self._read())
        await self._wait_until_started()
        try:
            keys = json.loads((self._folder / "key_file.json").read_text())
            inference, management = keys["inference"]["key"], keys["management"]["key"]
        except (OSError, ValueError, KeyError) as error:
            raise EngineError("torchserve: it wrote no token file; check the space on the disk.") from error
        self.inference = Inference(self._ports.grpc_inference, inference, self._settings.max_bundle_bytes)
        self.management = Management(self._ports.management, management)
        await self.management.ping(self._settings.startup_seconds)

    async def rehearse(self, model: str, version: str) -> None:
        """Go the way of a bundle, to the first classifier that there is, until the JVM has compiled its methods.

        Before that a job of some bundles takes it 20 ms, on the cores that compute, and 8 from then on. Raises what
        `Inference.predict` raises.
        """
        if not self._rehearsed:
            self._rehearsed = True
            for _ in range(_REHEARSALS):
                await self.inference.predict(model, version, "describe", bytes(_BUNDLE_BYTES), 60)

    async def _wait_until_started(self) -> None:
        assert self._reading is not None
        started = asyncio.create_task(self._started.wait())
        await asyncio.wait(
            {started, self._reading}, timeout=self._settings.startup_seconds, return_when="FIRST_COMPLETED"
        )
        started.cancel()
        if self._started.is_set():
            return
        if self._reading.done():
            reason = self._trouble or "it ended without a word"
            raise EngineError(f"torchserve: cannot start ({reason}); see its log above.")
        raise EngineError(f"torchserve: did not start within {self._settings.startup_seconds:.0f} s.")

    async def stop(self) -> None:
        """SIGTERM, and after a grace SIGKILL for every process of this life."""
        if self._keeper is not None:
            with contextlib.suppress(ProcessLookupError):
                self._keeper.terminate()
            await self._end(self._settings.stop_seconds + 15)

    async def kill(self) -> None:
        """Now, because it hangs, or did not start."""
        await asyncio.to_thread(keeper.kill, self._mark)
        await self._end(15)

    async def _end(self, patience: float) -> None:
        if self._keeper is not None:
            try:
                await asyncio.wait_for(self._keeper.wait(), patience)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._keeper.kill()
                await self._keeper.wait()
        await asyncio.to_thread(keeper.kill, self._mark)  # in case the keeper itself was killed
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=5)
            self._reading.cancel()
        if hasattr(self, "inference"):
            await self.inference.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def trouble(self) -> str | None:
        """Why this life must end, or None: it has ended, was stopped, or did not answer twice in a row."""
        assert self._keeper is not None
        if self._keeper.returncode is not None or self.pid is None or not psutil.pid_exists(self.pid):
            return "its process is gone"
        if is_stopped(self.pid):
            return "its process is stopped"
        try:
            await self.management.ping(_PROBE_SECONDS)
            self._silent = 0
        except ManagementError:
            self._silent += 1
        return "it does not answer" if self._silent >= 2 else None

    async def _read(self) -> None:
        """Show what it writes, until it ends."""
        assert self._keeper is not None
        assert self._keeper.stdout is not None
        rest = b""
        while chunk := await self._keeper.stdout.read(_LONGEST_LINE):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-_LONGEST_LINE:]
            for raw in lines:
                self._line(logs.parse(raw.decode(errors="replace")))

    def _line(self, line: logs.Line) -> None:
        if line.source == "keeper":
            self.pid = int(line.message)
        elif line.message == _STARTED:
            self._started.set()
        else:
            if line.level >= logging.ERROR:
                self._trouble = self._trouble or line.message
            logs.show(line)
            self._on_line(line)


def is_stopped(pid: int) -> bool:
    """Whether a process has been stopped by a signal, and would answer nobody."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 9)
