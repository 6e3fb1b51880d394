"""Progress of a measurement."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""(done, total), in pictures."""


def silent(_done: int, _total: int) -> None:
    """Nobody is watching."""


class Tally:
    """Counts pictures that are done towards a known total; call it with how many more are done."""

    def __init__(self, total: int, on_progress: OnProgress = silent) -> None:
        self.done = 0
        self.total = total
        self._on_progress = on_progress
        on_progress(0, total)

    def __call__(self, count: int) -> None:
        self.done += count
        self._on_progress(self.done, self.total)
