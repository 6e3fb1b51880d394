"""What a session has to say to a caller who may read slowly, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from typing import Generic, TypeVar

Event = TypeVar("Event")


class Outbox(Generic[Event]):
    """Events in order; iterate over it to take them out, until it is closed and empty.

    One with a `key` is replaced by the next with that key if nobody has taken it out. None is ever refused or lost: whoever
    causes events waits for `room` before.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._events: dict[Hashable, tuple[Event, int]] = {}
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, event: Event, size: int, *, key: Hashable | None = None) -> None:
        """An event that takes about so many bytes."""
        key = object() if key is None else key
        _, replaced = self._events.get(key, (event, 0))
        self._events[key] = event, size
        self._bytes += size - replaced
        self._tell()

    def clear(self) -> None:
        """Forget what nobody has taken out."""
        self._events.clear()
        self._bytes = 0
        self._tell()

    def close(self) -> None:
        """Nothing more is to come."""
        self._closed = True
        self._tell()

    async def room(self) -> None:
        """Until what is not taken out is within the limit."""
        while self._bytes > self._most_bytes:
            await self._changed.wait()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            if self._events:
                event, size = self._events.pop(next(iter(self._events)))
                self._bytes -= size
                self._tell()
                yield event
            elif self._closed:
                return
            else:
                await self._changed.wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
