"""How long a step takes, for each worker, classifier, image size and batch size: measured, or guessed until it is.

And how long a bundle takes beside its steps: the way to the worker and back, starting jobs and making pictures of others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..batch_sizes import POWERS, padded
from .backends.base import ModelInfo

HARDLY = 1.2
"""How many times as long a step of twice as many jobs may take, where jobs had better not be spread over two bundles."""
WEIGHT = 0.3
"""Of a new measurement against the average of those before it."""


class StepTimes:
    """Seconds of one step of a batch, and of a bundle beside its steps."""

    def __init__(self) -> None:
        self._measured: dict[tuple[str, str, int], dict[int, float]] = {}
        self._overheads: dict[tuple[str, str, int], dict[int, float]] = {}
        self._ways: dict[tuple[str, str, int], dict[int, float]] = {}

    def learn(self, worker: str, model: str, size: int, batches: Sequence[tuple[int, int, float]]) -> None:
        """Take in what a reply measured: (batch size, steps, seconds) of every batch that ran."""
        measured = self._measured.setdefault((worker, model, size), {})
        for batch in {batch for batch, steps, _ in batches if steps > 0}:
            runs = [(steps, seconds) for size_, steps, seconds in batches if size_ == batch]
            new = sum(seconds for _, seconds in runs) / sum(steps for steps, _ in runs)
            measured[batch] = _average(measured.get(batch, new), new)

    def learn_overhead(self, worker: str, model: str, size: int, jobs: int, seconds: float, way: float) -> None:
        """Take in what a bundle of so many jobs took beside its steps, and of that the way there and back."""
        for times, new in ((self._overheads, seconds), (self._ways, way)):
            measured, batch = times.setdefault((worker, model, size), {}), padded(jobs, POWERS)
            measured[batch] = _average(measured.get(batch, new), new)

    def overhead(self, worker: str, model: str, size: int, jobs: int) -> float:
        """Seconds of a bundle beside its steps; 0 until one of as many jobs has come back."""
        return self._overheads.get((worker, model, size), {}).get(padded(jobs, POWERS), 0.0)

    def fullest(self, worker: str, info: ModelInfo, size: int, batch: int) -> int:
        """The batch size, or that of twice as many jobs, and so on, as long as its steps take hardly longer."""
        while batch < POWERS[-1]:
            known, twice = (self.step(worker, info, size, jobs) for jobs in (batch, 2 * batch))
            if known is None or twice is None or twice > HARDLY * known:
                break
            batch *= 2
        return batch

    def way(self, worker: str, model: str, size: int, jobs: int) -> float:
        """Seconds of the way there and back of about as many jobs; 0 until a bundle has come back."""
        measured = self._ways.get((worker, model, size), {0: 0.0})
        return measured[min(measured, key=lambda known: abs(known - padded(jobs, POWERS)))]

    def forget(self, worker: str) -> None:
        self._measured = {key: times for key, times in self._measured.items() if key[0] != worker}
        self._overheads = {key: times for key, times in self._overheads.items() if key[0] != worker}
        self._ways = {key: times for key, times in self._ways.items() if key[0] != worker}

    def step(self, worker: str, info: ModelInfo, size: int, batch: int) -> float | None:
        """Best guess for a batch of this size; None where nothing is known of this classifier on this worker."""
        measured = self._measured.get((worker, info.name, size))
        pixels = (size / info.card.size) ** 2
        if not measured:
            return _curve(info.step_seconds, batch) * pixels if info.step_seconds else None
        if batch in measured:
            return measured[batch]
        if min(measured) < batch and (batch < max(measured) or {batch // 4, batch // 2} <= measured.keys()):
            return _curve(measured, batch)
        near = min(measured, key=lambda known: max(known / batch, batch / known))
        if info.step_seconds:
            return measured[near] * _curve(info.step_seconds, batch) / _curve(info.step_seconds, near)
        return measured[near] * max(1.0, batch / near)

    def cost(self, worker: str, info: ModelInfo, size: int, batch: int) -> float | None:
        """As `step`, but never more than that of two batches of half the size: for choosing between batch sizes.

        So a batch size whose first use was slow is tried again.
        """
        known = self.step(worker, info, size, batch)
        if known is None or batch == 1:
            return known
        half = self.cost(worker, info, size, math.ceil(batch / 2))
        return known if half is None else min(known, 2 * half)


def _average(old: float, new: float) -> float:
    """A first use is much slower than what follows, and should not be remembered for long."""
    return new if new < old / 2 else old + WEIGHT * (new - old)


def _curve(measured: Mapping[int, float], batch: int) -> float:
    """Linear between the batch sizes that were measured, and beyond the last as from half of it: neighbours tell no slope."""
    points = sorted(measured.items())
    below = [point for point in points if point[0] <= batch]
    above = [point for point in points if point[0] > batch]
    if not below:
        return points[0][1]
    if above:
        low, high = below[-1], above[0]
    elif len(below) > 1:
        high = below[-1]
        low = max((point for point in below if 2 * point[0] <= high[0]), default=below[0])
    else:
        return below[0][1] * batch / below[0][0]
    return low[1] + max(0.0, high[1] - low[1]) * (batch - low[0]) / (high[0] - low[0])
