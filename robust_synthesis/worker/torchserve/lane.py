"""What is under way in the Python worker of one classifier version, and what it means when that worker dies.

TorchServe keeps a queue per version and has one worker for it, so that bundles run in the order in which they were sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from ...errors import SynthesisError
from ...gateway.backends.base import WorkerLost, WorkerUnavailable
from .client import WorkerDied


@dataclass(eq=False)
class _Call:
    answer: asyncio.Future[bytes]
    timeout: float


class Lane:
    """One classifier version in one life of TorchServe."""

    def __init__(
        self, name: str, version: str, *, on_death: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.version = version
        self.archive = ""
        """In the model store."""
        self.pid: int | None = None
        """Of the worker, while it is ready."""
        self.dead: int | None = None
        """Of the last worker that died, which TorchServe may still take for alive."""
        self._on_death = on_death
        self._clock = clock
        self._calls: list[_Call] = []
        self._turn = clock()
        """When the first of the calls began, or could have; or when the worker died."""

    @property
    def outstanding(self) -> int:
        return len(self._calls)

    def ready(self, pid: int) -> None:
        """The worker, or its replacement, takes bundles."""
        self.pid = pid
        self._turn = self._clock()

    def down(self) -> None:
        """The worker has died. Its call, which TorchServe ends with an error, has the news; nothing new is accepted."""
        if self.pid is not None:
            self.dead, self.pid = self.pid, None
            self._turn = self._clock()
            self._on_death()

    def abandon(self, reason: str, *, all_lost: bool = False) -> None:
        """Nobody waits any more for what is under way. The first call may have been running; the others, where `all_lost`.

        TorchServe still runs what it has queued when there is a new worker, so they keep their places here.
        """
        for i, call in enumerate(self._calls):
            if not call.answer.done():
                error = WorkerLost if all_lost or i == 0 else WorkerUnavailable
                call.answer.set_exception(error(reason))

    @property
    def down_for(self) -> float:
        """Seconds since the worker died; 0 while there is one."""
        return 0.0 if self.pid is not None else self._clock() - self._turn

    @property
    def overdue(self) -> bool:
        """Whether the bundle whose turn it is takes longer than it may."""
        return self.pid is not None and bool(self._calls) and self._clock() - self._turn > self._calls[0].timeout

    async def run(self, work: Callable[[], Coroutine[Any, Any, bytes]], timeout: float) -> bytes:
        """The result of `work`, which sends a bundle and goes on even where the caller is cancelled.

        Raises WorkerLost or WorkerUnavailable.
        """
        if self.pid is None:
            raise WorkerUnavailable("the worker process is starting.")
        if not self._calls:
            self._turn = self._clock()
        call = _Call(asyncio.get_running_loop().create_future(), timeout)
        call.answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._calls.append(call)
        task = asyncio.ensure_future(work())
        task.add_done_callback(lambda done: self._ended(call, done))
        return await asyncio.shield(call.answer)

    def _ended(self, call: _Call, done: asyncio.Task[bytes]) -> None:
        self._calls.remove(call)
        error = WorkerLost("TorchServe was stopped.") if done.cancelled() else done.exception()
        if error is not None and not isinstance(error, SynthesisError):
            error = WorkerLost(f"the call failed ({error!r}).")
        if not call.answer.done():
            if error is None:
                call.answer.set_result(done.result())
            else:
                call.answer.set_exception(error)
        if isinstance(error, WorkerDied):
            self.down()
            for other in self._calls:  # this one was running, so those were not
                if not other.answer.done():
                    other.answer.set_exception(WorkerUnavailable("the worker process died before the bundle's turn."))
        elif self.pid is not None:
            self._turn = self._clock()
