"""Files that are followed while they change: certificates and keys are replaced without a restart."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from .errors import SynthesisError

log = logging.getLogger(__name__)
T = TypeVar("T")
INTERVAL = 1.0
"""Seconds between two looks at the files."""


class Watched(Generic[T]):
    """What a reader makes of some files, made again when one of them changes.

    What cannot be read later changes nothing, and is said in the log; the same is not tried again before the next change. Files
    are looked at when the value is asked for, at most once in INTERVAL seconds. May be used from any thread.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        """Raises what `read` raises."""
        self._paths = paths
        self._read = read
        self._lock = threading.Lock()
        self._seen = self._look()
        self._value = read()
        self._looked = time.monotonic()

    @property
    def value(self) -> T:
        with self._lock:
            if time.monotonic() >= self._looked + INTERVAL:
                self._looked = time.monotonic()
                self._refresh()
            return self._value

    def _refresh(self) -> None:
        seen = self._look()
        if seen == self._seen:
            return
        names = ", ".join(map(str, self._paths))
        try:
            value = self._read()
        except (SynthesisError, OSError) as error:
            self._seen = seen
            log.error("%s changed, but cannot be used, so nothing changes: %s", names, error)
            return
        if self._look() == seen:  # else a part of what was read may be old: at the next look again
            self._seen, self._value = seen, value
            log.info("%s changed, and counts from now on", names)

    def _look(self) -> Sequence[object]:
        """What changes when a file does: also where it is replaced, as by Kubernetes through a link."""
        return [_identity(path) for path in self._paths]


def _identity(path: Path) -> object:
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_ino, status.st_size
