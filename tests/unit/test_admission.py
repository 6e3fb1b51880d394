"""The queue's bounds in front of a real dispatcher, on a clock that jumps: minutes of load take a moment."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from robust_synthesis.gateway import calls
from robust_synthesis.gateway.admission import BoundedAdmission
from robust_synthesis.gateway.backends.base import ModelInfo
from robust_synthesis.gateway.desk import Desk
from robust_synthesis.gateway.dispatcher import Dispatcher
from robust_synthesis.gateway.errors import DeadlineExceeded, Overloaded, QuotaExceeded
from robust_synthesis.gateway.models import Models
from robust_synthesis.gateway.orders import Order
from robust_synthesis.gateway.policy import Policy
from robust_synthesis.gateway.queue import LONGEST_RETRY, Bounds, Kind
from robust_synthesis.gateway.speeds import speed_of
from robust_synthesis.gateway.step_times import StepTimes
from robust_synthesis.gateway.testing import FakeBackend, FakeWorker, fake_model, run
from robust_synthesis.requests import Request
from robust_synthesis.specs import Generate

STEP = 0.1
"""Seconds of a batch of any size, so that 32 jobs of 9 steps are done in one second."""


def _seconds(batch: int) -> float:
    del batch
    return STEP


class Scene:
    """A desk whose dispatcher has two workers."""

    def __init__(self, *, workers: int = 2, **bounds: float) -> None:
        info = fake_model(size=16, step_seconds=dict.fromkeys((1, 4, 16), STEP))
        members = [FakeWorker(f"worker {i}", [info], seconds=_seconds) for i in range(workers)]
        self.backend = FakeBackend(members)
        self.clock = asyncio.get_running_loop().time
        self.dispatcher = Dispatcher(self.backend, clock=self.clock)
        self.admission = BoundedAdmission(Bounds(**bounds))  # type: ignore[arg-type]
        self.desk = Desk(self.dispatcher, Models(self.backend, "fake"), admission=self.admission)

    async def ask(self, caller: str = "", *, steps: int = 9, count: int = 1, deadline: float = 1000) -> float:
        """How long it took. Its own task's call is the caller's."""
        calls.begin(calls.Call("/Generate", caller))
        started = self.clock()
        request = Request(spec=Generate(target="cat", steps=steps, count=count, seed=1))
        async with self.desk.ticket(Order(request), deadline) as ticket:
            await ticket
        return self.clock() - started

    def asked(self, caller: str = "", **how: int) -> asyncio.Task[float]:
        return asyncio.create_task(self.ask(caller, **how))


def test_what_was_let_in_is_left_again_however_it_ends() -> None:
    async def main() -> None:
        here = Scene(seconds=10)
        await here.dispatcher.start()
        await here.ask()
        with pytest.raises(DeadlineExceeded):
            await here.ask(steps=9999, deadline=1)
        gone = here.asked()
        await asyncio.sleep(0.5)
        assert len(here.admission.queue) == 1
        assert 0 < here.admission.queue.seconds() < 0.8 / 32  # what is computed already does not count
        gone.cancel()
        await asyncio.sleep(0.1)
        assert len(here.admission.queue) == 0
        assert here.admission.queue.seconds() == 0
        await here.dispatcher.close(0)

    run(main())


def test_a_greedy_caller_is_refused_its_thousand_and_delays_nobody() -> None:
    async def main() -> None:
        here = Scene(seconds=4)
        await here.dispatcher.start()
        greedy = [here.asked("greedy") for _ in range(1000)]
        await asyncio.sleep(0.2)
        assert await here.ask("modest") < 3
        results = await asyncio.gather(*greedy, return_exceptions=True)
        kinds = Counter(type(result) for result in results)
        assert set(kinds) == {float, QuotaExceeded}
        assert kinds[float] == pytest.approx(2 * 32 * 2, abs=4)  # half of four seconds of two workers
        assert all(0 < each.retry_after_seconds <= LONGEST_RETRY for each in results if isinstance(each, QuotaExceeded))
        await here.dispatcher.close(0)

    run(main())


def test_under_ten_times_the_load_the_worker_does_as_much_as_ever_and_all_that_is_let_in_is_done_soon() -> None:
    """Poisson arrivals; who is refused comes back when told to."""

    async def main() -> None:
        here, rng, end = Scene(workers=1, seconds=4, share=1.0), random.Random(3), 15
        await here.dispatcher.start()
        rate = 32 / (10 * STEP)  # requests in a second
        took: list[float] = []
        refusals = 0

        async def caller(name: str) -> None:
            nonlocal refusals
            while here.clock() < end:
                try:
                    took.append(await here.ask(name))
                    return
                except Overloaded as error:
                    refusals += 1
                    wait = error.retry_after_seconds
                await asyncio.sleep(wait)

        tasks = []
        while here.clock() < end:
            await asyncio.sleep(rng.expovariate(10 * rate))
            tasks.append(asyncio.create_task(caller(rng.choice("abcdefgh"))))
        assert here.admission.queue.seconds() <= 4
        await here.dispatcher.close(10)
        await asyncio.gather(*tasks)
        assert max(took) < 10
        assert refusals > 2000
        assert len(took) > 0.9 * rate * end

    run(main())


def _model(**seconds: float) -> ModelInfo:
    return fake_model(size=64, step_seconds={int(size[1:]): value for size, value in seconds.items()})


def test_a_speed_is_that_of_the_best_batch_of_all_workers() -> None:
    workers = [FakeWorker("a", [_model(b1=0.01, b16=0.016)]), FakeWorker("b", [_model(b1=0.01, b16=0.4)])]
    speed = speed_of(Kind("fake", 64), workers, StepTimes(), Policy())
    assert speed is not None
    assert speed.rate == pytest.approx(16 / 0.016 + 1 / 0.01, rel=0.5)
    assert speed.workers == {"a", "b"}
    exact = speed_of(Kind("fake", 64, exact=True), workers, StepTimes(), Policy())
    assert exact is not None
    assert (exact.rate, exact.step) == (200.0, 0.01)


def test_a_job_may_be_as_fast_as_it_is_alone_however_large_the_best_batch_is() -> None:
    worker = FakeWorker("a", [_model(b1=0.01, b16=0.12)])
    speed = speed_of(Kind("fake", 64), [worker], StepTimes(), Policy())
    assert speed is not None
    assert speed.rate > 1.2 / 0.01
    assert speed.step == 0.01


def test_workers_that_are_down_count_only_where_none_is_up() -> None:
    up, down = FakeWorker("a", [_model(b1=0.01, b16=0.01)]), FakeWorker("b", [_model(b1=0.01, b16=0.01)])
    down.up = False

    def names() -> frozenset[str]:
        speed = speed_of(Kind("fake", 64), [up, down], StepTimes(), Policy())
        assert speed is not None
        return speed.workers

    assert names() == {"a"}
    up.up = False
    assert names() == {"a", "b"}


def test_nothing_is_known_of_a_model_that_nobody_has_or_has_measured() -> None:
    worker = FakeWorker("a", [_model()])
    assert speed_of(Kind("fake", 64), [worker], StepTimes(), Policy()) is None
    assert speed_of(Kind("other", 64), [worker], StepTimes(), Policy()) is None
    times = StepTimes()
    times.learn("a", "fake", 64, [(4, 10, 0.1)])
    known = speed_of(Kind("fake", 64), [worker], times, Policy())
    assert known is not None
    assert known.rate >= 400
