"""What a worker keeps from one bundle to the next, within bounds."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Things by their key, the most recently used of them; many threads may use it.

    Each is kept for a number of bundles after its last use: its job has gone elsewhere by then, or was cancelled. Beyond a number
    of bytes only what the current bundle uses is kept.
    """

    def __init__(self, max_bytes: int = 64 * 2**20, max_age: int = 128) -> None:
        self.max_bytes = max_bytes
        self.max_age = max_age
        self._things: OrderedDict[str, tuple[T, int, int]] = OrderedDict()
        """With their bytes and the bundle that used them last; the least recently used is first."""
        self._bytes = 0
        self._bundle = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._things)

    def next_bundle(self) -> None:
        """Another bundle begins."""
        with self._lock:
            self._bundle += 1
            while self._things and self._bundle - self._oldest() > self.max_age:
                self._forget(next(iter(self._things)))

    def get(self, key: str) -> T | None:
        """It counts as used."""
        with self._lock:
            if key not in self._things:
                return None
            thing, size, _ = self._things[key]
            self._things[key] = thing, size, self._bundle
            self._things.move_to_end(key)
            return thing

    def put(self, key: str, thing: T, size: int) -> None:
        """Keep a thing of so many bytes, in place of what had the key."""
        with self._lock:
            self._forget(key)
            self._things[key] = thing, size, self._bundle
            self._bytes += size
            while self._bytes > self.max_bytes and self._oldest() < self._bundle:
                self._forget(next(iter(self._things)))

    def pop(self, key: str) -> T | None:
        """It is not kept any longer."""
        with self._lock:
            return self._forget(key)

    def _oldest(self) -> int:
        """Bundle that used the least recently used thing."""
        return next(iter(self._things.values()))[2]

    def _forget(self, key: str) -> T | None:
        if key not in self._things:
            return None
        thing, size, _ = self._things.pop(key)
        self._bytes -= size
        return thing
