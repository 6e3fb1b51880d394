"""Who is ahead of whom, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from robust_synthesis.gateway.dispatcher import Dispatcher
from robust_synthesis.gateway.jobs import Progress, Queued
from robust_synthesis.gateway.testing import FakeBackend, FakeWorker, fake_model, run
from robust_synthesis.gateway.tickets import Ticket
from robust_synthesis.requests import Request
from robust_synthesis.specs import Generate

SIDE = 512
"""Bundles of two, of which two are under way."""
STEP = 0.05
TWO: Mapping[int, float] = {1: 0.6 * STEP, 2: STEP}
"""More jobs at a time take longer in proportion."""


def worker() -> FakeWorker:
    return FakeWorker(models=[fake_model(size=SIDE, step_seconds=TWO)], seconds=lambda batch: TWO[batch])


def submit(dispatcher: Dispatcher, caller: str = "", steps: int = 99, **fields: Any) -> Ticket:
    spec = Generate(target="cat", seed=1, steps=steps)
    return dispatcher.submit(Request(spec=spec), model="fake", caller=caller, **fields)


async def started(*workers: FakeWorker) -> Dispatcher:
    dispatcher = Dispatcher(FakeBackend(workers), clock=asyncio.get_running_loop().time)
    await dispatcher.start()
    return dispatcher


def order(dispatcher: Dispatcher, tickets: Sequence[Ticket]) -> list[int]:
    """Positions, as each ticket's watcher would first hear them."""
    places = dispatcher.places()
    return [places[ticket].position for ticket in tickets]


def test_callers_take_turns_and_interactive_requests_come_first() -> None:
    async def main() -> None:
        dispatcher = await started()  # no worker: all wait
        first = [submit(dispatcher, "many") for _ in range(3)]
        other = submit(dispatcher, "one")
        urgent = submit(dispatcher, "many", interactive=True)
        assert order(dispatcher, [urgent, first[0], other, first[1], first[2]]) == [0, 1, 2, 3, 4]
        first[0].cancel()
        assert order(dispatcher, [urgent, first[1], other, first[2]]) == [0, 1, 2, 3]
        await dispatcher.close(0)

    run(main())


def test_the_wait_is_that_for_all_but_the_last_bundle_of_those_ahead() -> None:
    async def main() -> None:
        dispatcher = await started(worker())
        tickets = [submit(dispatcher) for _ in range(10)]
        each = 100 * STEP / 2  # T steps are T + 1 evaluations, two jobs at a time
        waits = [place.estimated_wait for place in dispatcher.places().values()]
        assert waits == pytest.approx(
            [0, 0, each, 2 * each, 3 * each, 4 * each, 5 * each, 6 * each, 7 * each, 8 * each]
        )
        begun = [0.0] * 10

        async def watch(i: int) -> None:
            async for _ in tickets[i]:
                begun[i] = begun[i] or dispatcher.clock()

        await asyncio.gather(*(watch(i) for i in range(10)))
        assert dispatcher.clock() == pytest.approx(10 * each, rel=0.1)
        assert begun[9] == pytest.approx(8 * each, rel=0.4)
        await dispatcher.close(0)

    run(main())


def test_a_watcher_hears_its_place_whenever_that_changes_and_then_its_progress() -> None:
    async def main() -> None:
        dispatcher = await started(worker())
        tickets = [submit(dispatcher, steps=60) for _ in range(8)]
        heard = [event async for event in tickets[7].news()]
        places = [event.position for event in heard if isinstance(event, Queued)]
        assert places[0] == 7
        assert places == sorted(set(places), reverse=True)
        assert len(places) > 2
        assert isinstance(heard[-1], Progress)
        first = next(i for i, event in enumerate(heard) if isinstance(event, Progress))
        assert all(isinstance(event, Progress) for event in heard[first:])
        await dispatcher.close(0)

    run(main())


def test_nobody_looks_at_places_that_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Ticket] = []
    monkeypatch.setattr(Ticket, "move", lambda ticket, _: told.append(ticket))

    async def main() -> None:
        dispatcher = await started(worker())
        await asyncio.gather(*[submit(dispatcher) for _ in range(8)])
        assert not told
        tickets = [submit(dispatcher) for _ in range(8)]
        await anext(aiter(tickets[7]))
        assert tickets[7] in told
        await dispatcher.close(0)

    run(main())
