"""Send requests and note when; a request's time counts from when it should have been sent.

A generator that waits for an answer before it sends again does not send while the server stalls, so most of the requests that
would have met the stall are never measured (coordinated omission, G. Tene). Here every request has a scheduled time that no
answer moves: of an open loop its arrival, of a paced caller its turn. Callers without a pace have no schedule, so their times
are what such callers would see, and no more.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

Send = Callable[[int], Awaitable[tuple[str, str]]]
"""Make request number N; returns its task and the name of its status."""


@dataclass(frozen=True)
class Sample:
    """A request. Times are seconds from the start."""

    task: str
    code: str
    scheduled: float
    sent: float
    ended: float

    @property
    def latency(self) -> float:
        return self.ended - self.scheduled

    @property
    def service(self) -> float:
        """As a generator would measure that waits for answers."""
        return self.ended - self.sent


class Drive:
    """One run. It ends when the last answer has come."""

    def __init__(self, send: Send) -> None:
        self.samples: list[Sample] = []
        self._send = send
        self._begun = 0.0
        self._number = 0

    async def open(self, arrivals: Iterable[float]) -> None:
        """Send at these times."""
        self._begin()
        async with asyncio.TaskGroup() as under_way:
            for time in arrivals:
                await self._until(time)
                under_way.create_task(self._request(time))

    async def closed(self, callers: int, seconds: float, pace: float | None = None) -> None:
        """So many callers at a time, each with one request after the other, or with one every `pace` seconds if it can."""
        self._begin()
        async with asyncio.TaskGroup() as group:
            for caller in range(callers):
                offset = (pace or 0.0) * caller / callers
                group.create_task(self._caller(offset, seconds, pace))

    async def _caller(self, offset: float, seconds: float, pace: float | None) -> None:
        for turn in itertools.count():
            scheduled = self._now() if pace is None else offset + turn * pace
            if scheduled >= seconds:
                return
            await self._until(scheduled)
            await self._request(scheduled)

    async def _request(self, scheduled: float) -> None:
        number, self._number = self._number, self._number + 1
        sent = self._now()
        task, code = await self._send(number)
        self.samples.append(Sample(task, code, scheduled, sent, self._now()))

    async def _until(self, time: float) -> None:
        await asyncio.sleep(max(0.0, time - self._now()))

    def _begin(self) -> None:
        self._begun = asyncio.get_running_loop().time()

    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self._begun
