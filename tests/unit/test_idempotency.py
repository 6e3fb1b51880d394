"""Repeats of requests, with a real dispatcher over a worker that computes next to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from robust_synthesis.bundle import Failure
from robust_synthesis.errors import InvalidInput
from robust_synthesis.gateway.dispatcher import Dispatcher
from robust_synthesis.gateway.errors import Overloaded
from robust_synthesis.gateway.idempotency import Done, Repeats
from robust_synthesis.gateway.testing import FakeBackend, FakeWorker, run
from robust_synthesis.gateway.tickets import Ticket
from robust_synthesis.requests import Request
from robust_synthesis.specs import Generate

NAME = ("studio", "/Generate", "42")


class Scene:
    """A gateway, and requests that are sent to it under a name."""

    def __init__(self, **limits: float) -> None:
        self.worker = FakeWorker()
        self.clock = asyncio.get_running_loop().time
        self.dispatcher = Dispatcher(FakeBackend([self.worker]), clock=self.clock)
        self.repeats = Repeats(self.clock, **limits)  # type: ignore[arg-type]
        self.seed = 0
        self.refusal: Exception | None = None
        self.tickets: weakref.WeakSet[Ticket] = weakref.WeakSet()

    @contextlib.asynccontextmanager
    async def _submitted(self) -> AsyncIterator[Ticket]:
        if self.refusal is not None:
            raise self.refusal
        self.seed += 1
        request = Request(spec=Generate(target="cat", steps=60, seed=self.seed))
        ticket = self.dispatcher.submit(request, model="fake")
        self.tickets.add(ticket)
        try:
            yield ticket
        finally:
            ticket.cancel()

    async def send(self, name: tuple[str, str, str] = NAME, body: bytes = b"cat") -> int:
        """The seed of the result, which tells runs apart."""
        async with self.repeats.join(name, body, self._submitted) as ticket:
            return (await ticket).seed

    @property
    def computed(self) -> dict[int, int]:
        return self.worker.evaluations


def play(story: Callable[[Scene], Awaitable[None]], **limits: float) -> None:
    async def main() -> None:
        scene = Scene(**limits)
        await scene.dispatcher.start()
        await story(scene)
        await asyncio.sleep(1)
        assert not scene.dispatcher.requests
        await scene.dispatcher.close()

    run(main())


def test_a_repeat_joins_the_running_request_and_later_gets_its_result() -> None:
    async def story(scene: Scene) -> None:
        assert await asyncio.gather(*(scene.send() for _ in range(3))) == [1, 1, 1]
        assert await scene.send() == 1
        assert scene.computed == {1: 61}

    play(story)


def test_names_are_the_callers_own_and_of_one_method() -> None:
    async def story(scene: Scene) -> None:
        seeds = [await scene.send(name) for name in (NAME, ("other", *NAME[1:]), ("studio", "/Inpaint", "42"))]
        assert seeds == [1, 2, 3]

    play(story)


def test_the_same_name_for_another_request_is_refused_running_and_done() -> None:
    async def story(scene: Scene) -> None:
        first = asyncio.create_task(scene.send())
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(InvalidInput, match=r"request_id: was used for another request"):
                await scene.send(body=b"dog")
            assert await first == 1

    play(story)


def test_a_caller_who_leaves_stops_nobody_and_the_last_one_stops_the_computation() -> None:
    async def story(scene: Scene) -> None:
        first, second, third = (asyncio.create_task(scene.send()) for _ in range(3))
        await asyncio.sleep(0.1)
        first.cancel()
        assert await second == 1
        assert await third == 1
        assert scene.computed == {1: 61}
        others = [asyncio.create_task(scene.send((*NAME[:2], "43"))) for _ in range(2)]
        await asyncio.sleep(0.1)
        for other in others:
            other.cancel()
        await asyncio.sleep(1)
        assert scene.computed[2] < 61
        assert await scene.send((*NAME[:2], "43")) == 3

    play(story)


def test_what_fails_is_not_remembered() -> None:
    async def story(scene: Scene) -> None:
        scene.worker.failures[1] = Failure("invalid", "cannot be used.", "image")
        for result in await asyncio.gather(scene.send(), scene.send(), return_exceptions=True):
            assert isinstance(result, InvalidInput)
        assert await scene.send() == 2
        scene.refusal = Overloaded("full.", retry_after_seconds=1)
        for result in await asyncio.gather(*(scene.send(("", "", "7")) for _ in range(2)), return_exceptions=True):
            assert isinstance(result, Overloaded)
        scene.refusal = None
        assert await scene.send(("", "", "7")) == 3

    play(story)


def test_results_are_kept_for_five_minutes() -> None:
    async def story(scene: Scene) -> None:
        assert await scene.send() == 1
        await asyncio.sleep(299)
        assert await scene.send() == 1
        await asyncio.sleep(2)
        assert await scene.send() == 2

    play(story)


def test_memory_is_bounded_by_number_and_by_bytes_and_the_oldest_goes_first() -> None:
    async def story(scene: Scene) -> None:
        for name in "abcd":
            await scene.send(("", "", name))
        assert len(scene.repeats) == 2
        assert [await scene.send(("", "", name)) for name in "cda"] == [3, 4, 5]

    play(story, most=2)
    play(story, most_bytes=9000)  # a result is about 4,000


def test_of_a_finished_request_only_the_result_is_kept() -> None:
    async def story(scene: Scene) -> None:
        await scene.send()
        await asyncio.sleep(1)
        gc.collect()
        assert not scene.tickets
        async with scene.repeats.join(NAME, b"cat", scene._submitted) as ticket:
            assert isinstance(ticket, Done)
            assert [news async for news in ticket.news()] == []

    play(story)
