"""Timings that may be compared: subjects take turns within one run, and every figure is a ratio of the turn's own times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median, 10th and 90th percentile."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises StatisticsError for no values."""
        ordered = sorted(values)
        last = len(ordered) - 1
        return cls(statistics.median(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)])

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def percentile(values: Sequence[float], q: float) -> float:
    """The smallest value that `q` of a hundred do not exceed."""
    return sorted(values)[max(0, -int(-q * len(values) // 100) - 1)]


def under_way(intervals: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    """How many pieces of work (from, to) were done between `begin` and `end`: those that reach beyond it count in part."""
    return sum(max(0.0, min(to, end) - max(since, begin)) / (to - since) for since, to in intervals)


def take_turns(subjects: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds that each subject took in each round, after `warm_up` rounds that do not count.

    Which subject begins a round alternates, so that what one leaves in caches favours no other.
    """
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(1 - warm_up, rounds + 1):
        order = list(subjects.items())
        for name, subject in order if turn % 2 else reversed(order):
            begun = time.perf_counter()
            subject()
            if turn > 0:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Spread of over / under, round by round."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)])
