"""How many requests a caller may send in a minute, and have open at a time."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .errors import QuotaExceeded

RETRY = 1.0
"""Seconds after which one of many open requests may have ended."""
_MANY = 10_000
"""Callers, of whom those are forgotten who have not called for a minute."""


@dataclass
class _Bucket:
    tokens: float
    at: float


class Quotas:
    """Callers go by name."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: Counter[str] = Counter()
        self._buckets: dict[str, _Bucket] = {}

    def spend(self, caller: str, rate: float | None) -> None:
        """A request has come, of `rate` a minute, which may come all at once. Raises QuotaExceeded."""
        if rate is None:
            return
        now, most = self._clock(), max(1.0, rate)
        if len(self._buckets) > _MANY:
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if now < bucket.at + 60}
        bucket = self._buckets.setdefault(caller, _Bucket(most, now))
        bucket.tokens = min(most, bucket.tokens + (now - bucket.at) * rate / 60)
        bucket.at = now
        if bucket.tokens < 1:
            message = f"your key allows {rate:g} requests a minute; try again later."
            raise QuotaExceeded(message, retry_after_seconds=(1 - bucket.tokens) * 60 / rate)
        bucket.tokens -= 1

    @contextlib.contextmanager
    def opened(self, caller: str, most: int) -> Iterator[None]:
        """While a request is open, of at most so many. Raises QuotaExceeded."""
        if self._open[caller] >= most:
            message = f"you have {most} requests open, as many as you may; let some end first."
            raise QuotaExceeded(message, retry_after_seconds=RETRY)
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
