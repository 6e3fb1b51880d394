"""What a gateway has before it, and what it was offered: the numbers to scale its workers by."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..defaults import PAPER
from ..model_folder import Card
from ..specs import Spec
from .lines import Candidate, Status
from .tickets import Ticket

RECENT = 60.0
"""Seconds that a request which was turned away counts as offered."""
UNIT_SIZE = 64


@dataclass(frozen=True)
class Cost:
    """Of one picture of a request."""

    evaluations: int
    side: int
    """Of the picture, pixels."""

    @classmethod
    def of(cls, spec: Spec, size: int | None, card: Card | None) -> Cost:
        """A guess from the task alone where the classifier is not known."""
        if card is None:
            return cls(int(spec.steps or PAPER[spec.task]["steps"]) + 1, size or UNIT_SIZE)
        job = Candidate(card.name, spec, size=size)
        return cls(job.evaluations(card), job.side(card))

    def image_steps(self, remaining: int | None = None) -> float:
        """Of what remains, or of all: one is an evaluation at 64 pixels."""
        return (self.evaluations if remaining is None else remaining) * (self.side / UNIT_SIZE) ** 2


@dataclass(frozen=True)
class Snapshot:
    """Pictures that wait for their first bundle, those that have begun, and the image-steps of all with what was turned away."""

    queued: int
    in_flight: int
    offered: float


class Load:
    """Kept by the event loop, read by scrapes in other threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[Ticket, Cost] = {}
        self._turned_away: deque[tuple[int, float]] = deque()
        """Image-steps by the second."""

    def enter(self, ticket: Ticket, card: Card | None) -> None:
        first = ticket.jobs[0].candidate
        with self._lock:
            self._open[ticket] = Cost.of(first.spec, first.size, card)

    def leave(self, ticket: Ticket) -> None:
        with self._lock:
            self._open.pop(ticket, None)

    def turn_away(self, spec: Spec, size: int | None, card: Card | None) -> None:
        """There was no room for a request."""
        second, work = int(self._clock()), spec.pictures * Cost.of(spec, size, card).image_steps()
        with self._lock:
            if self._turned_away and self._turned_away[-1][0] == second:
                work += self._turned_away.pop()[1]
            self._turned_away.append((second, work))
            self._forget()

    def snapshot(self) -> Snapshot:
        with self._lock:
            self._forget()
            offered = sum(work for _, work in self._turned_away)
            tickets = list(self._open.items())
        queued = in_flight = 0
        for ticket, cost in tickets:
            for candidate in (job.candidate for job in ticket.jobs):
                if candidate.status is not Status.GONE:
                    queued, in_flight = queued + (not candidate.tried), in_flight + candidate.tried
                    offered += cost.image_steps(candidate.remaining)
        return Snapshot(queued, in_flight, offered)

    def _forget(self) -> None:
        while self._turned_away and self._turned_away[0][0] < self._clock() - RECENT:
            self._turned_away.popleft()
