"""Who is let in: the queue's bounds, for the requests of a gateway."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from ..model_folder import Card
from ..requests import Request
from . import calls
from .dispatcher import Dispatcher
from .lines import Status
from .load import Cost
from .queue import Bounds, Kind, Place, Queue, Work
from .seams import Admission, Follow
from .tickets import Ticket


class BoundedAdmission(Admission):
    """Lets in what the workers finish in time, and of each caller no more than its share."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()
        self.queue: Queue

    def bind(self, dispatcher: Dispatcher) -> None:
        self.queue = Queue(self._bounds, dispatcher.speed_of, dispatcher.clock)

    @contextlib.asynccontextmanager
    async def admit(
        self, caller: str, request: Request, card: Card | None, *, model: str, interactive: bool, deadline: float
    ) -> AsyncIterator[Follow]:
        work = _work(request, model, card)
        share = calls.current().share
        place = self.queue.enter(caller, work, deadline=deadline, share=share, interactive=interactive)
        try:
            yield lambda ticket: _follow(place, ticket)
        finally:
            self.queue.leave(place)


def _work(request: Request, model: str, card: Card | None) -> Work:
    spec, cost = request.spec, Cost.of(request.spec, request.size, card)
    return Work(Kind(model, cost.side, spec.exact), cost.evaluations, spec.pictures, request.file_bytes)


def _follow(place: Place, ticket: Ticket) -> None:
    """Have the place know what its pictures still need."""
    cost = Cost(place.work.evaluations, place.work.kind.side)

    def left() -> float:
        jobs = [job.candidate for job in ticket.jobs if job.candidate.status is not Status.GONE]
        return sum(cost.image_steps(job.remaining) for job in jobs)

    place.look = left
