"""Bytes of requests that arrive, or have arrived and are not let in yet: bounded for each caller, and for all together.

gRPC takes a message in when it is asked to, and says how large it is when it is there. So one that arrives counts as the largest.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from ..errors import InvalidInput
from .errors import Overloaded, QuotaExceeded

COME_BACK = 5.0
"""Seconds after which to try again where there is no room."""


@dataclass(frozen=True)
class UploadLimits:
    """Times are in seconds. Raises InvalidInput for limits that allow nothing."""

    bytes: int = 512 * 2**20
    share: float = 0.5
    """Of them, for one caller that has a name. Anybody may have one request arriving."""
    patience: float = 10.0
    """That a request waits for its turn to arrive."""
    arrival: float = 60.0
    """That it may take then."""

    def check(self, largest: int) -> None:
        """Raises InvalidInput where there is no room for a single request."""
        if self.bytes < largest:
            raise InvalidInput(
                "upload_mib",
                f"is {self.bytes >> 20}; one request may have {-(-largest // 2**20)}, so give at least that.",
            )


class Held:
    """Bytes that count for a caller until they are released."""

    def __init__(self, uploads: Uploads, caller: str, size: int) -> None:
        self.size = 0
        self._uploads = uploads
        self._caller = caller
        self.change(size)

    def change(self, size: int) -> None:
        """They are so many now."""
        self._uploads.count(self._caller, size - self.size)
        self.size = size

    def release(self) -> None:
        self.change(0)


@dataclass(eq=False)
class _Waiter:
    caller: str
    share: float
    size: int
    turn: asyncio.Future[Held]


class Uploads:
    """Who comes first is first, but for callers that have their share."""

    def __init__(self, limits: UploadLimits | None = None) -> None:
        self._limits = limits or UploadLimits()
        self._bytes = 0
        self._own: Counter[str] = Counter()
        self._waiting: dict[_Waiter, None] = {}

    @property
    def bytes(self) -> int:
        """That are held now."""
        return self._bytes

    def part(self, caller: str, share: float | None) -> float:
        """What a caller may hold of all; `share` is its own."""
        return share if share is not None else self._limits.share if caller else 1.0

    async def room(self, caller: str, share: float | None, size: int) -> Held:
        """Wait for room for so many bytes. Raises Overloaded, or QuotaExceeded where it is the caller's own that is missing."""
        waiter = _Waiter(caller, self.part(caller, share), size, asyncio.get_running_loop().create_future())
        if not self._waiting and self._fits(waiter) and self._is_within_share(waiter):
            return Held(self, caller, size)
        self._waiting[waiter] = None
        self._let_in()
        try:
            async with asyncio.timeout(self._limits.patience):
                return await waiter.turn
        except BaseException as error:
            self._waiting.pop(waiter, None)
            if waiter.turn.done() and not waiter.turn.cancelled():
                waiter.turn.result().release()
            if isinstance(error, TimeoutError):
                raise self._refusal(waiter) from None
            raise

    def hold(self, caller: str, share: float | None, size: int) -> Held:
        """The same at once, where there is room."""
        waiter = _Waiter(caller, self.part(caller, share), size, asyncio.get_running_loop().create_future())
        if not (self._fits(waiter) and self._is_within_share(waiter)):
            raise self._refusal(waiter)
        return Held(self, caller, size)

    def count(self, caller: str, size: int) -> None:
        """So many more bytes; fewer where it is negative."""
        self._bytes += size
        self._own[caller] += size
        if not self._own[caller]:
            del self._own[caller]
        if size < 0:
            self._let_in()

    def _let_in(self) -> None:
        for waiter in list(self._waiting):
            if not self._fits(waiter):
                return
            if self._is_within_share(waiter):
                del self._waiting[waiter]
                if not waiter.turn.done():
                    waiter.turn.set_result(Held(self, waiter.caller, waiter.size))

    def _fits(self, waiter: _Waiter) -> bool:
        return not self._bytes or self._bytes + waiter.size <= self._limits.bytes

    def _is_within_share(self, waiter: _Waiter) -> bool:
        own = self._own[waiter.caller]
        return not own or own + waiter.size <= waiter.share * self._limits.bytes

    def _refusal(self, waiter: _Waiter) -> Overloaded:
        if self._is_within_share(waiter):
            held = f"{self._bytes / 2**20:.0f} MiB of requests arrive"
            return Overloaded(f"{held}, as much as this server takes; try again later.", retry_after_seconds=COME_BACK)
        held = f"{self._own[waiter.caller] / 2**20:.0f} MiB of your requests arrive"
        return QuotaExceeded(f"{held}, as much as may; try again later.", retry_after_seconds=COME_BACK)
