"""Requests that are sent twice: with a `request_id`, a repeat joins the running request, or gets its result again.

async with repeats.join((caller, method, request_id), order.fingerprint(), lambda: submitted(order)) as ticket:
    outcome = await ticket
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidInput, SynthesisError
from .jobs import Progress, Queued
from .tickets import Outcome, Ticket

Name = tuple[str, str, str]
"""Caller, method, request_id."""
Start = Callable[[], AbstractAsyncContextManager[Ticket]]
"""Submits a request; to leave it cancels the request, if it has not ended."""
_PER_EVALUATION = 64
"""Bytes of a picture's loss and probability."""


class Done:
    """The ticket of a request that has ended well, without what it was made from."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def __await__(self) -> Generator[Any, None, Outcome]:
        return self.result().__await__()

    async def result(self) -> Outcome:
        return self._outcome

    async def news(self) -> AsyncIterator[Queued | Progress]:
        return
        yield  # nothing is new


@dataclass
class _Request:
    """One that is known by its name."""

    fingerprint: bytes
    """Of all that was asked for."""
    ticket: asyncio.Future[Ticket | Done] = field(default_factory=asyncio.Future)
    task: asyncio.Task[None] | None = None
    callers: int = 0
    ended: float | None = None
    bytes: int = 0


class Repeats:
    """Remembers results for `keep` seconds, within `most` requests and `most_bytes`: beyond them the oldest are forgotten."""

    def __init__(
        self, clock: Callable[[], float], *, keep: float = 300.0, most: int = 1000, most_bytes: int = 128 * 2**20
    ) -> None:
        self._clock = clock
        self._keep = keep
        self._most = most
        self._most_bytes = most_bytes
        self._running: dict[Name, _Request] = {}
        self._ended: OrderedDict[Name, _Request] = OrderedDict()
        """Oldest first."""
        self._bytes = 0

    def __len__(self) -> int:
        """How many are remembered, with those that run."""
        return len(self._running) + len(self._ended)

    @contextlib.asynccontextmanager
    async def join(self, name: Name, fingerprint: bytes, start: Start) -> AsyncIterator[Ticket | Done]:
        """The request of this name, which is started if there is none. The last of its callers to leave cancels it.

        Raises InvalidInput where another request had the name, and what `start` raises. A request that fails is not remembered.
        """
        self._forget()
        request = self._running.get(name) or self._ended.get(name)
        if request is None:
            request = self._running[name] = _Request(fingerprint)
            request.task = asyncio.create_task(self._run(name, request, start))
        elif request.fingerprint != fingerprint:
            raise InvalidInput("request_id", "was used for another request within five minutes; choose a new one.")
        request.callers += 1
        try:
            yield await asyncio.shield(request.ticket)
        finally:
            request.callers -= 1
            if not request.callers and self._running.get(name) is request:
                del self._running[name]
                if request.task is not None:
                    request.task.cancel()

    async def _run(self, name: Name, request: _Request, start: Start) -> None:
        """A request from its start to its end, whoever of its callers is still there."""
        try:
            async with start() as ticket:
                request.ticket.set_result(ticket)
                with contextlib.suppress(SynthesisError):
                    self._remember(name, request, await ticket.result())
        except BaseException as error:
            if not request.ticket.done():
                request.ticket.set_exception(error)
                request.ticket.exception()  # so that nobody need fetch it
            if not isinstance(error, Exception):
                raise
        finally:
            if self._running.get(name) is request:
                del self._running[name]

    def _remember(self, name: Name, request: _Request, outcome: Outcome) -> None:
        if self._running.get(name) is not request:
            return  # its last caller has just left
        del self._running[name]
        request.ticket = asyncio.get_running_loop().create_future()
        request.ticket.set_result(Done(outcome))
        request.task = None
        request.ended = self._clock()
        request.bytes = sum(len(each.file) + _PER_EVALUATION * len(each.loss) for each in outcome.pictures)
        self._ended[name] = request
        self._bytes += request.bytes
        self._forget()

    def _forget(self) -> None:
        """What is too old, or too much."""
        now = self._clock()
        while self._ended:
            oldest = next(iter(self._ended.values()))
            old = oldest.ended is not None and now > oldest.ended + self._keep
            if not old and len(self._ended) <= self._most and self._bytes <= self._most_bytes:
                return
            self._bytes -= self._ended.popitem(last=False)[1].bytes
