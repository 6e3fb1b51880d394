"""How much of some kind of work the workers do in a second, from the step times that the dispatcher has learnt."""

from __future__ import annotations

from collections.abc import Sequence

from .backends.base import Worker
from .policy import Policy
from .queue import Kind, Speed
from .step_times import StepTimes


def speed_of(kind: Kind, workers: Sequence[Worker], times: StepTimes, policy: Policy) -> Speed | None:
    """Of all workers that are up, or of those that should be where none is; None where nothing is known."""
    able = [
        (worker, info) for worker in workers for info in worker.models() if info.name == kind.model and info.current
    ]
    rates, steps = {}, []
    for worker, info in [pair for pair in able if pair[0].up] or able:
        most = 1 if kind.exact else times.fullest(worker.name, info, kind.side, policy.largest(kind.side, 1))
        guesses = {size: times.cost(worker.name, info, kind.side, size) for size in info.batch_sizes if size <= most}
        known = {size: seconds for size, seconds in guesses.items() if seconds}
        if known:
            rates[worker.name] = _rate(known, 2 * policy.chunk_target(kind.side)) * (kind.side / 64) ** 2
            steps.append(known[min(known)])
    return Speed(sum(rates.values()), max(steps), frozenset(rates)) if rates else None


def _rate(seconds: dict[int, float], longest: float) -> float:
    """Of the batch size that computes most in a second; bundles of steps longer than `longest` are not made."""
    return max(size / step for size, step in seconds.items() if step <= longest or size == min(seconds))
