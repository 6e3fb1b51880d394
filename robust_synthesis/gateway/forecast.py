"""When requests that wait will begin, as far as it can be told from step times and from whose turn it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ..bundle import MAX_JOBS
from .backends.base import Worker
from .batcher import Batcher
from .fairness import Who
from .jobs import Queued
from .lines import Candidate, Status
from .tickets import Ticket


@dataclass
class _Load:
    """What workers have before them."""

    jobs: int = 0
    seconds: float = 0.0
    """Of one worker."""
    most: int = MAX_JOBS
    """In a full batch, of the jobs whose batches are smallest."""


class Forecast:
    """Callers take turns, so a request is behind one of every other caller for each of its own that came before it."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher

    def places(self, requests: Iterable[Ticket], workers: Sequence[Worker]) -> dict[Ticket, Queued]:
        """Of all that have not begun; `requests` are in the order of their arrival."""
        load, waiting = self._running(requests, workers)
        places = {}
        for place, (_, ticket) in enumerate(_turns(waiting)):
            places[ticket] = Queued(place, self._wait(load, workers))
            self._add(load, ticket, workers)
        return places

    def _running(self, requests: Iterable[Ticket], workers: Sequence[Worker]) -> tuple[_Load, list[Ticket]]:
        """The load of what has begun, and what has not."""
        load, waiting = _Load(), []
        for ticket in requests:
            if ticket.begun:
                self._add(load, ticket, workers)
            else:
                waiting.append(ticket)
        return load, waiting

    def _add(self, load: _Load, ticket: Ticket, workers: Sequence[Worker]) -> None:
        unfinished = [job.candidate for job in ticket.jobs if job.candidate.status is not Status.GONE]
        load.jobs += len(unfinished)
        alike = unfinished if ticket.begun else unfinished[:1]
        seconds = math.fsum(self._seconds(job, load, workers) for job in alike)
        load.seconds += seconds * len(unfinished) / max(1, len(alike))

    def _seconds(self, job: Candidate, load: _Load, workers: Sequence[Worker]) -> float:
        known = self._batcher.seconds(job, workers)
        if known is None:
            return 0.0
        most, seconds = known
        load.most = min(load.most, most)
        return seconds

    def _wait(self, load: _Load, workers: Sequence[Worker]) -> float:
        """Workers take new jobs as soon as they have room: all but the last of a full set must have ended."""
        up = max(1, _up(workers))
        room = up * load.most
        return load.seconds / up * max(0, load.jobs - room + 1) / max(1, load.jobs)


def _turns(waiting: Collection[Ticket]) -> list[tuple[tuple[bool, int], Ticket]]:
    """In the order of their turns: interactive ones, then the first of every caller, then the second."""
    before: Counter[Who] = Counter()
    turns = []
    for ticket in waiting:
        turns.append(((not ticket.who[0], before[ticket.who]), ticket))
        before[ticket.who] += 1
    return sorted(turns, key=lambda turn: turn[0])


def _up(workers: Sequence[Worker]) -> int:
    return sum(worker.up for worker in workers)
