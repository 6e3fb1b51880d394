"""Jobs from submission to result, with workers that fail on demand, on a clock that jumps."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from robust_synthesis.bundle import MAX_JOBS, PROTOCOL, Bundle, Failure, JobPart, Output
from robust_synthesis.errors import InvalidInput, NotFound, SynthesisError
from robust_synthesis.gateway.batcher import Batcher
from robust_synthesis.gateway.dispatcher import Dispatcher
from robust_synthesis.gateway.errors import Cancelled, DeadlineExceeded, JobLost, ShuttingDown
from robust_synthesis.gateway.group import Plan
from robust_synthesis.gateway.jobs import Progress
from robust_synthesis.gateway.policy import Policy
from robust_synthesis.gateway.testing import FIRST_LEVEL, FakeBackend, FakeWorker, expected, fake_model, run
from robust_synthesis.gateway.tickets import MOST_BYTES, Outcome, Ticket
from robust_synthesis.requests import Request
from robust_synthesis.specs import Generate, MaximizeClass


def now() -> float:
    return asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def running(*workers: FakeWorker) -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher(FakeBackend(workers), clock=now)
    await dispatcher.start()
    try:
        yield dispatcher
    finally:
        await dispatcher.close(grace=0)


def generate(seed: int = 1, steps: int = 60, **fields: Any) -> Request:
    return Request(spec=Generate(target="cat", seed=seed, steps=steps, **fields))


def submit(dispatcher: Dispatcher, seed: int = 1, steps: int = 60, **fields: Any) -> Ticket:
    return dispatcher.submit(generate(seed, steps), model="fake", **fields)


def found(outcome: Outcome) -> dict[str, Any]:
    (picture,) = outcome.pictures
    return dict(json.loads(picture.file))


def parts(bundle: Bundle) -> list[JobPart]:
    return [part for part in bundle.jobs if isinstance(part, JobPart)]


def linear(batch: int) -> float:
    return 0.01 * batch


# From start to end.


def test_a_job_that_fits_in_a_bundle_is_one_round_trip() -> None:
    async def main() -> None:
        worker = FakeWorker(models=[fake_model(step_seconds={1: 0.001})])
        async with running(worker) as dispatcher:
            outcome = await submit(dispatcher, 7)
        assert found(outcome) == expected(seed=7, steps=60)
        assert (outcome.seed, outcome.version, outcome.timings.bundles) == (7, "v1", 1)
        assert outcome.parameters == {"steps": 60}
        assert len(outcome.pictures[0].loss) == len(outcome.pictures[0].probability) == 61
        assert outcome.timings.compute == outcome.timings.total == pytest.approx(0.61)
        assert outcome.timings.queue_wait == 0

    run(main())


@pytest.mark.parametrize("holds", [True, False])
def test_a_bundle_carries_only_what_the_worker_does_not_have(holds: bool) -> None:
    async def main() -> None:
        worker = FakeWorker()
        worker.holds = holds
        async with running(worker) as dispatcher:
            assert found(await submit(dispatcher, steps=100)) == expected(seed=1, steps=100)
        first, *middle, last = [parts(bundle)[0] for bundle in worker.bundles]
        assert len(middle) > 3
        assert first.request is not None
        assert first.state is None
        assert {part.key for part in (first, *middle, last)} == {first.key}
        for part in middle:
            assert (part.request, part.problem, part.output) == (None, None, None)
            assert (part.held is not None, part.state is None) == (holds, holds)
        assert last.output == Output()
        assert last.problem is None
        if not holds:
            assert last.state is not None
            assert last.state.best_x is not None
            assert last.state.best_x[0, 0, 0] == FIRST_LEVEL + 50

    run(main())


def test_the_photo_travels_with_the_first_bundle_and_with_the_last_where_the_edit_is_pasted_back() -> None:
    async def main() -> None:
        for paste_back in (False, True):
            worker = FakeWorker()
            spec = MaximizeClass(target="cat", steps=100, seed=1)
            async with running(worker) as dispatcher:
                await dispatcher.submit(Request(spec=spec, image=b"photo", paste_back=paste_back), model="fake")
            sent = [parts(bundle)[0].request is not None for bundle in worker.bundles]
            assert sent == [True, *[False] * (len(sent) - 2), paste_back]

    run(main())


def test_every_picture_of_a_request_is_a_job_and_they_come_in_order() -> None:
    async def main() -> None:
        workers = [FakeWorker("a"), FakeWorker("b", seconds=linear)]
        async with running(*workers) as dispatcher:
            outcome = await dispatcher.submit(generate(3, 40, count=5), model="fake")
        files = [json.loads(picture.file) for picture in outcome.pictures]
        assert files == [expected(seed=3, steps=40, index=index) for index in range(5)]
        assert [picture.index for picture in outcome.pictures] == [0, 1, 2, 3, 4]

    run(main())


def test_a_request_without_a_seed_gets_one_and_keeps_it() -> None:
    async def main() -> None:
        worker = FakeWorker()
        async with running(worker) as dispatcher:
            spec = Generate(target="cat", steps=30)
            outcome = await dispatcher.submit(Request(spec=spec), model="fake")
        assert found(outcome) == expected(seed=outcome.seed, steps=30)

    run(main())


def test_the_batcher_hears_how_many_jobs_ended_with_a_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[int, int]] = []
    real = Batcher.ended

    def ended(self: Batcher, plan: Plan, jobs: int, now: float) -> None:
        heard.append((len(plan.jobs), jobs))
        real(self, plan, jobs, now)

    async def main() -> None:
        async with running(FakeWorker()) as dispatcher:
            await asyncio.gather(*(submit(dispatcher, seed=steps, steps=steps) for steps in (2, 2, 1000)))

    monkeypatch.setattr(Batcher, "ended", ended)
    asyncio.run(main())
    assert heard == [(3, 2), (1, 1)]


def test_progress_counts_steps_up_to_the_end_with_pictures_where_wanted() -> None:
    async def main() -> None:
        async with running(FakeWorker()) as dispatcher:
            for previews in (False, True):
                ticket = submit(dispatcher, steps=50, previews=previews)
                events = [event async for event in ticket]
                assert [event.step for event in events] == sorted({event.step for event in events})
                assert (events[-1].step, events[-1].steps, events[-1].x) == (50, 50, None)
                assert len(events) > 2
                for event in events[:-1]:
                    assert (event.x is not None) is previews
                    assert event.x is None or event.x[0, 0, 0] == FIRST_LEVEL + event.step
                assert await ticket is await ticket.result()

    run(main())


def test_frames_are_progress_at_even_distances_and_leave_the_neighbours_bundles_as_long_as_they_were() -> None:
    async def main() -> None:
        async with running(FakeWorker(models=[fake_model(step_seconds={1: 0.001, 2: 0.001})])) as dispatcher:
            ticket, neighbour = submit(dispatcher, 1, 60, frames=20), submit(dispatcher, 2, 60)
            steps = [progress.step async for progress in ticket]
            assert found(await ticket) == expected(seed=1, steps=60)
            assert steps == list(range(3, 61, 3))
            assert (await neighbour).timings.bundles == 3

    run(main())


@pytest.mark.parametrize("frames", [7, 35, 49, 59, 60, 99])
def test_there_are_as_many_frames_as_asked_for_or_one_for_every_step(frames: int) -> None:
    async def main() -> None:
        async with running(FakeWorker(models=[fake_model(step_seconds={1: 0.001})])) as dispatcher:
            steps = [progress.step async for progress in submit(dispatcher, steps=60, frames=frames)]
            assert len(steps) >= min(frames, 60)
            assert len({after - before for before, after in itertools.pairwise([0, *steps[:-1]])}) == 1

    run(main())


@pytest.mark.parametrize(
    ("frames", "pictures", "side", "kept"),
    [
        (0, 1, 16, [100]),
        (20, 1, 16, range(5, 101, 5)),
        (35, 1, 16, range(2, 101, 2)),
        (20, 2, 16, range(5, 101, 5)),
        (99, 1, 16, [*range(4, 65, 4), *range(66, 97, 2), *range(97, 101)]),
        (20, 8, 16, [40, 60, 70, 80, 85, 90, 95, 100]),
        (20, 1, 512, [91, 96, 100]),
    ],
)
def test_frames_wait_for_a_slow_reader_until_they_are_many(
    frames: int, pictures: int, side: int, kept: Sequence[int]
) -> None:
    async def main() -> None:
        worker = FakeWorker(models=[fake_model(step_seconds={1: 0.001})])
        async with running(worker) as dispatcher:
            request = dataclasses.replace(generate(steps=100, count=pictures), size=side)
            ticket = dispatcher.submit(request, model="fake", frames=frames, previews=True)
            await ticket
            late = [progress async for progress in ticket]
            for index in range(pictures):
                assert [progress.step for progress in late if progress.index == index] == list(kept)
                assert sum(x.nbytes for progress in late if (x := progress.x) is not None) <= MOST_BYTES

    run(main())


def test_a_job_joins_those_that_run_and_does_not_wait_for_their_end() -> None:
    async def main() -> None:
        models = [fake_model(step_seconds={1: 0.0025, 8: 0.0025})]
        async with running(FakeWorker(models=models, seconds=lambda _: 0.0025)) as dispatcher:
            running_already = [submit(dispatcher, seed, 60) for seed in range(8)]
            await asyncio.sleep(0.04)
            late = await submit(dispatcher, 8, 20)
            assert late.timings.total < 0.08  # 0.0525 of its own; theirs end after 0.1525
            assert not any(ticket.done for ticket in running_already)

    run(main())


def test_bundles_follow_each_other_without_a_pause_where_the_worker_holds_jobs() -> None:
    async def main() -> None:
        took = {}
        for holds in (True, False):
            worker = FakeWorker(models=[fake_model(step_seconds={1: 0.01, 8: 0.01})], latency=0.02)
            worker.holds = holds
            async with running(worker) as dispatcher:
                await submit(dispatcher)  # it has heard whether the worker holds jobs
                begun = now()
                outcomes = await asyncio.gather(*[submit(dispatcher, seed, 300) for seed in range(4)])
                took[holds] = now() - begun
            for seed, outcome in enumerate(outcomes):
                assert found(outcome) == expected(seed=seed, steps=300)
                assert len(outcome.pictures[0].loss) == 301
            assert worker.most_outstanding == (2 if holds else 1)
        assert took[True] == pytest.approx(3.01 + 0.04, abs=0.001)
        assert took[False] > 3.01 + 10 * 0.04

    run(main())


def test_the_way_is_measured_again_while_bundles_follow_each_other() -> None:
    async def main() -> None:
        worker = FakeWorker(latency=0.1)
        async with running(worker) as dispatcher:
            ticket = submit(dispatcher, 1, 10_000)
            await asyncio.sleep(1)
            worker.latency = 0.01
            await asyncio.sleep(2 * Policy().in_a_row * 0.15 + 2)
            assert dispatcher._batcher.times.way("worker", "fake", 16, 1) == pytest.approx(0.02, abs=0.001)
            ticket.cancel()

    run(main())


def test_a_job_that_comes_before_the_next_bundle_is_sent_joins_it() -> None:
    async def main() -> None:
        worker = FakeWorker(latency=0.005)
        async with running(worker) as dispatcher:
            await submit(dispatcher)
            submit(dispatcher, 2, 3000)
            await asyncio.sleep(5)
            late = submit(dispatcher, 3, 30)
            await late
            assert late.timings.total < 0.32 + 0.01 + 2 * 0.15  # its own, the way, and what it waited for
            joined = [len(bundle.jobs) for bundle in worker.bundles if len(bundle.jobs) > 1]
            assert set(joined) == {2}

    run(main())


@pytest.mark.parametrize("seed", range(6))
def test_whatever_becomes_of_workers_every_picture_is_the_one_that_was_asked_for(seed: int) -> None:
    """Workers die, forget, are busy, and hold or do not hold, while bundles follow each other.

    One job in 50,000 is alone with a worker that dies three times in a row, and given up.
    """

    async def main() -> None:
        rng = random.Random(seed)
        workers = [_Unreliable(rng, name, latency=rng.choice([0.0, 0.004, 0.03])) for name in "ab"[: 1 + seed % 2]]
        async with running(*workers) as dispatcher:
            tickets: dict[int, Ticket] = {}
            asked: dict[int, int] = {}
            left: set[int] = set()

            async def trouble() -> None:
                while True:
                    await asyncio.sleep(rng.expovariate(2))
                    worker = rng.choice(workers)
                    rng.choice([worker.die, worker.forget, worker.forget])()
                    worker.holds = rng.random() < 0.8
                    worker.busy = rng.random() < 0.1

            troubles = asyncio.create_task(trouble())
            for number in range(60):
                await asyncio.sleep(rng.expovariate(12))
                asked[number] = rng.randint(5, 120)
                tickets[number] = submit(dispatcher, number, asked[number], caller=rng.choice("xy"))
                if rng.random() < 0.1:
                    left.add(number)
                    asyncio.get_running_loop().call_later(rng.random(), tickets[number].cancel)
            results = await asyncio.gather(*tickets.values(), return_exceptions=True)
            troubles.cancel()
        for number, result in zip(tickets, results, strict=True):
            if isinstance(result, Outcome):
                steps = asked[number]
                assert found(result) == expected(seed=number, steps=steps)
                assert len(result.pictures[0].loss) == steps + 1
            elif not isinstance(result, JobLost):
                assert isinstance(result, Cancelled)
                assert number in left
        assert sum(isinstance(result, JobLost) for result in results) <= 1

    run(main())


def test_a_slow_consumer_gets_only_the_newest_and_a_late_one_too() -> None:
    async def main() -> None:
        async with running(FakeWorker()) as dispatcher:
            ticket = submit(dispatcher, steps=1000)
            seen: list[Progress] = []
            async for event in ticket:
                seen.append(event)
                await asyncio.sleep(3)
            assert 3 <= len(seen) <= 6
            assert seen[1].step > 200
            assert seen[-1].step == 1000
            assert [event.step async for event in ticket] == [1000]

    run(main())


# Many jobs.


def test_overload_is_worked_off_with_full_bundles_and_busy_workers() -> None:
    async def main() -> None:
        workers = [FakeWorker(name, latency=0.01) for name in "abc"]
        async with running(*workers) as dispatcher:
            tickets = [submit(dispatcher, seed, 60 + seed % 7, caller=f"caller {seed % 5}") for seed in range(300)]
            outcomes = await asyncio.gather(*tickets)
            for seed, outcome in enumerate(outcomes):
                assert found(outcome) == expected(seed=seed, steps=60 + seed % 7)
            ideal = sum(61 + seed % 7 for seed in range(300)) * 0.01 / 16 / 3
            assert now() < 1.15 * ideal
        for worker in workers:
            assert worker.most_outstanding == 2
            assert max(len(bundle.jobs) for bundle in worker.bundles) <= 32

    run(main())


@pytest.mark.parametrize(("count", "outstanding"), [(31, 1), (32, 2)])
def test_two_bundles_are_outstanding_only_with_twice_the_jobs_of_one(count: int, outstanding: int) -> None:
    async def main() -> None:
        models = [fake_model(step_seconds={1: 0.001, 32: 0.032})]
        worker = FakeWorker(models=models, seconds=lambda batch: 0.001 * batch)
        worker.holds = False
        async with running(worker) as dispatcher:
            await asyncio.gather(*[submit(dispatcher, seed) for seed in range(count)])
        assert worker.most_outstanding == outstanding

    run(main())


def test_a_straggler_does_not_hold_up_the_rest() -> None:
    async def main() -> None:
        def slow(batch: int) -> float:
            return 0.2

        workers = [FakeWorker("fast"), FakeWorker("slow", seconds=slow)]
        async with running(*workers) as dispatcher:
            tickets = [submit(dispatcher, seed, 100) for seed in range(12)]
            outcomes = await asyncio.gather(*tickets)
        assert [found(outcome) for outcome in outcomes] == [expected(seed=seed, steps=100) for seed in range(12)]
        finished = sorted(outcome.timings.total for outcome in outcomes)
        assert finished[5] < 2
        assert finished[-1] < 6  # alone, the slow one would need 20 s for any job

    run(main())


def test_a_caller_with_one_job_does_not_wait_for_the_hundred_of_another() -> None:
    async def main() -> None:
        async with running(FakeWorker(seconds=linear)) as dispatcher:
            many = [submit(dispatcher, seed, caller="many") for seed in range(100)]
            await asyncio.sleep(5)
            outcome = await submit(dispatcher, 500, caller="one")
            assert outcome.timings.total < 20  # all together need 61 s, and it can have one place in a bundle
            assert sum(ticket.done for ticket in many) < 50

    run(main())


def test_an_interactive_job_gets_short_bundles_before_all_others() -> None:
    async def main() -> None:
        worker = FakeWorker(models=[fake_model(step_seconds={1: 0.01, 16: 0.01})])
        async with running(worker) as dispatcher:
            for seed in range(40):
                submit(dispatcher, seed, 5000)
            await asyncio.sleep(5)
            events = submit(dispatcher, 99, 20, interactive=True).__aiter__()
            started = now()
            first = await anext(events)
            assert first.step <= 5
            assert now() - started <= 2 * 0.15 + 0.05 + 0.01

    run(main())


# Workers that die, hang, refuse, forget.


def test_a_worker_that_dies_costs_a_retry_and_no_job() -> None:
    async def main() -> None:
        worker = FakeWorker()
        worker.restart_seconds = 3.0
        async with running(worker) as dispatcher:
            tickets = [submit(dispatcher, seed, 200) for seed in range(8)]
            for _ in range(2):
                await asyncio.sleep(0.5)
                worker.die()
                await asyncio.sleep(4)
            outcomes = await asyncio.gather(*tickets)
            for seed, outcome in enumerate(outcomes):
                assert found(outcome) == expected(seed=seed, steps=200)
                assert len(outcome.pictures[0].loss) == 201
                assert outcome.timings.retries in (1, 2)
            assert now() < 2.1 + 2 * 5

    run(main())


def test_a_hung_worker_is_given_up_after_the_bundles_timeout_and_another_goes_on() -> None:
    async def main() -> None:
        workers = [FakeWorker("a"), FakeWorker("b")]
        async with running(*workers) as dispatcher:
            await asyncio.gather(*[submit(dispatcher, seed) for seed in range(2)])  # its first use is over
            workers[0].hangs = True
            started = now()
            outcomes = await asyncio.gather(*[submit(dispatcher, seed, 300) for seed in range(2)])
            assert [found(outcome) for outcome in outcomes] == [expected(seed=seed, steps=300) for seed in range(2)]
            assert now() - started < 5 + 2 * 3.1

    run(main())


def test_a_poisonous_job_fails_and_its_neighbours_complete() -> None:
    async def main() -> None:
        worker = FakeWorker()
        worker.poison = {5}
        async with running(worker) as dispatcher:
            tickets = [submit(dispatcher, seed, 100) for seed in range(16)]
            outcomes = await asyncio.gather(*tickets, return_exceptions=True)
        for seed, outcome in enumerate(outcomes):
            if seed == 5:
                assert isinstance(outcome, JobLost)
                assert str(outcome).startswith("the worker stopped 3 times while computing this job alone")
            else:
                assert isinstance(outcome, Outcome)
                assert found(outcome) == expected(seed=seed, steps=100)
                assert outcome.timings.retries <= 4
        assert 5 not in worker.evaluations

    run(main())


def test_a_forgotten_problem_is_sent_again_at_once_and_is_no_loss() -> None:
    async def main() -> None:
        worker = FakeWorker()
        worker.holds = False
        async with running(worker) as dispatcher:
            tickets = [submit(dispatcher, seed, 100) for seed in range(4)]
            await asyncio.sleep(0.6)
            worker.forget()
            for seed, outcome in enumerate(await asyncio.gather(*tickets)):
                assert found(outcome) == expected(seed=seed, steps=100)
                assert outcome.timings.retries == 0
        sent = [[part.problem is not None for part in parts(bundle)] for bundle in worker.bundles]
        assert sent.count([True] * 4) == 1
        refused = sent.index([True] * 4) - 1
        assert sent[refused] == [False] * 4

    run(main())


def test_a_held_job_that_was_forgotten_is_sent_again_at_once_and_is_no_loss() -> None:
    async def main() -> None:
        worker = _Forgetful(latency=0.01)
        async with running(worker) as dispatcher:
            tickets = [submit(dispatcher, seed, 300) for seed in range(4)]
            for seed, outcome in enumerate(await asyncio.gather(*tickets)):
                assert found(outcome) == expected(seed=seed, steps=300)
                assert outcome.timings.retries == 0
        sent_again = [part for bundle in worker.bundles for part in parts(bundle) if part.state is not None]
        assert len(sent_again) >= 4 * 3
        assert all(part.held is None for part in sent_again)

    run(main())


class _Unreliable(FakeWorker):
    """Has not kept some of what it holds."""

    def __init__(self, rng: random.Random, name: str, **how: Any) -> None:
        super().__init__(name, **how)
        self._rng = rng

    async def _answer(self, bundle: Bundle) -> bytes:
        for key in list(self._held) if self._rng.random() < 0.2 else ():
            if self._rng.random() < 0.5:
                del self._held[key]
        return await super()._answer(bundle)


class _Forgetful(FakeWorker):
    """Forgets what it holds before every third bundle."""

    async def _answer(self, bundle: Bundle) -> bytes:
        if len(self.bundles) % 3 == 2:
            self.forget()
        return await super()._answer(bundle)


def test_a_loss_is_the_following_bundles_too_and_counts_once() -> None:
    async def main() -> None:
        worker = FakeWorker(latency=0.02)
        async with running(worker) as dispatcher:
            await submit(dispatcher)
            tickets = [submit(dispatcher, seed, 300) for seed in range(4)]
            while worker.outstanding < 2:
                await asyncio.sleep(0.001)
            worker.die()
            for seed, outcome in enumerate(await asyncio.gather(*tickets)):
                assert found(outcome) == expected(seed=seed, steps=300)
                assert outcome.timings.retries == 1

    run(main())


def test_a_job_that_fails_while_the_next_bundle_is_under_way_is_tried_again_alone() -> None:
    async def main() -> None:
        worker = FakeWorker(latency=0.02)
        async with running(worker) as dispatcher:
            await submit(dispatcher)
            tickets = [submit(dispatcher, seed, 300) for seed in range(4)]
            await asyncio.sleep(1)
            worker.failures = _Once({2: Failure("internal", "RuntimeError: oops.", "")})
            outcomes = await asyncio.gather(*tickets)
        assert [found(outcome) for outcome in outcomes] == [expected(seed=seed, steps=300) for seed in range(4)]
        assert [len(outcome.pictures[0].loss) for outcome in outcomes] == [301] * 4

    run(main())


def test_a_worker_replaced_by_one_of_a_version_before_costs_no_job() -> None:
    async def main() -> None:
        worker = _Before(latency=0.01)
        async with running(worker) as dispatcher:
            tickets = [submit(dispatcher, seed, 300) for seed in range(4)]
            await asyncio.sleep(1)
            worker.holds, worker.old = False, True
            for seed, outcome in enumerate(await asyncio.gather(*tickets)):
                assert found(outcome) == expected(seed=seed, steps=300)
            assert found(await submit(dispatcher, 5, 300)) == expected(seed=5, steps=300)

    run(main())


class _Before(FakeWorker):
    """Of a version that does not know of jobs that are held, once `old`."""

    old = False

    async def _answer(self, bundle: Bundle) -> bytes:
        if self.old:
            missing = Failure("invalid", "is missing; send a state to go on from.", "state")
            jobs = [missing if part.held is not None else part for part in parts(bundle)]
            bundle = dataclasses.replace(bundle, jobs=jobs)
        return await super()._answer(bundle)


def test_a_problem_travels_once_to_every_worker() -> None:
    async def main() -> None:
        workers = [FakeWorker(name) for name in "ab"]
        async with running(*workers) as dispatcher:
            await asyncio.gather(*[submit(dispatcher, seed, 300) for seed in range(40)])
        for worker in workers:
            for seed in range(40):
                sent = [
                    part
                    for bundle in worker.bundles
                    for part in parts(bundle)
                    if part.problem is not None and part.problem.scalars["seed"] == seed
                ]
                assert len(sent) <= 1

    run(main())


def test_a_busy_worker_is_asked_again_later() -> None:
    async def main() -> None:
        worker = FakeWorker()
        worker.busy = True
        async with running(worker) as dispatcher:
            ticket = submit(dispatcher)
            await asyncio.sleep(10)
            assert worker.bundles == []
            worker.busy = False
            outcome = await ticket
            assert found(outcome) == expected(seed=1, steps=60)
            assert outcome.timings.retries == 0
            assert now() < 10 + 2 + 1

    run(main())


def test_jobs_wait_for_a_worker_to_come_up() -> None:
    async def main() -> None:
        worker = FakeWorker()
        worker.up = False
        backend = FakeBackend([worker])
        dispatcher = Dispatcher(backend, clock=now)
        await dispatcher.start()
        ticket = submit(dispatcher)
        await asyncio.sleep(100)
        worker.up = True
        backend.changed.set()
        assert found(await ticket) == expected(seed=1, steps=60)
        assert (await ticket).timings.queue_wait == 100
        await dispatcher.close()

    run(main())


def test_a_worker_that_comes_later_takes_over_running_jobs() -> None:
    async def main() -> None:
        first, second = FakeWorker("a", seconds=linear), FakeWorker("b", seconds=linear)
        backend = FakeBackend([first])
        dispatcher = Dispatcher(backend, clock=now)
        await dispatcher.start()
        tickets = [submit(dispatcher, seed, 500) for seed in range(8)]
        await asyncio.sleep(2)
        backend.members.append(second)
        backend.changed.set()
        outcomes = await asyncio.gather(*tickets)
        assert [found(outcome) for outcome in outcomes] == [expected(seed=seed, steps=500) for seed in range(8)]
        assert sum(second.evaluations.values()) > 0.3 * 8 * 501
        await dispatcher.close()

    run(main())


def test_running_jobs_keep_their_version_while_new_ones_take_the_new() -> None:
    async def main() -> None:
        worker = FakeWorker()
        async with running(worker) as dispatcher:
            old = submit(dispatcher, 1, 200)
            await asyncio.sleep(0.5)
            worker.served = [fake_model(version="v2"), fake_model(version="v1", current=False)]
            new = submit(dispatcher, 2, 200)
            assert [(await ticket).version for ticket in (old, new)] == ["v1", "v2"]
            assert found(await old) == expected(seed=1, steps=200)

    run(main())


def test_a_worker_of_another_protocol_is_left_out_and_named_at_the_deadline() -> None:
    async def main() -> None:
        message = f"protocol: this side speaks bundle protocol {PROTOCOL + 1}; bring both to the same version."
        bad, good = FakeWorker("bad"), FakeWorker("good")
        bad.error = message
        async with running(bad) as dispatcher:
            ticket = submit(dispatcher, deadline=now() + 5)
            with pytest.raises(DeadlineExceeded, match="worker bad: protocol: this side speaks"):
                await ticket
            assert now() == pytest.approx(5)
            assert len(bad.bundles) <= 4
        async with running(bad, good) as dispatcher:
            assert found(await submit(dispatcher)) == expected(seed=1, steps=60)

    run(main())


def test_a_reply_that_cannot_be_read_is_the_workers_fault() -> None:
    async def main() -> None:
        bad, good = FakeWorker("a"), FakeWorker("b")
        bad.garbage = b"\xff" * 100
        async with running(bad, good) as dispatcher:
            outcomes = await asyncio.gather(*[submit(dispatcher, seed) for seed in range(4)])
        assert [found(outcome) for outcome in outcomes] == [expected(seed=seed, steps=60) for seed in range(4)]
        assert len(bad.bundles) <= 2

    run(main())


def test_a_result_tells_each_device_and_precision_that_computed_a_part_of_it_once() -> None:
    async def main() -> None:
        workers = first, second = FakeWorker("a"), FakeWorker("b")
        first.computes, second.computes = ("cuda:0", "bf16"), ("cpu", "fp32")
        async with running(*workers) as dispatcher:
            spec = Generate(target="cat", count=4, seed=1, steps=200)
            both = await dispatcher.submit(Request(spec=spec), model="fake")
            second.up = False
            one = await submit(dispatcher, 1)
            first.computes = ("", "")  # a worker of an earlier version
            none = await submit(dispatcher, 1)
        assert sorted(both.computations) == [("cpu", "fp32"), ("cuda:0", "bf16")]
        assert [*one.computations, *none.computations] == [("cuda:0", "bf16")]

    run(main())


# Jobs that fail.


def test_a_job_that_is_too_large_for_a_worker_fails_alone_and_the_worker_goes_on() -> None:
    async def main() -> None:
        worker = FakeWorker("a")
        worker.max_bytes = 100_000
        async with running(worker) as dispatcher:
            spec = MaximizeClass(target="cat", seed=1, steps=60)
            small = [submit(dispatcher, seed) for seed in range(4)]
            large = dispatcher.submit(Request(spec=spec, image=bytes(100_000)), model="fake")
            with pytest.raises(InvalidInput, match="more work than a worker takes at once") as refused:
                await large
            assert refused.value.field == "image"
            assert [found(await each) for each in small] == [expected(seed=seed, steps=60) for seed in range(4)]
            assert now() < 5

    run(main())


def test_jobs_that_are_too_large_together_are_computed_in_smaller_bundles() -> None:
    async def main() -> None:
        worker = FakeWorker("a")
        worker.max_bytes = 100_000
        async with running(worker) as dispatcher:
            spec = MaximizeClass(target="cat", seed=1, steps=60)
            tickets = [dispatcher.submit(Request(spec=spec, image=bytes(30_000)), model="fake") for _ in range(8)]
            assert len(await asyncio.gather(*tickets)) == 8
            assert now() < 20

    run(main())


def test_what_a_worker_says_of_the_input_reaches_the_caller_and_only_the_one_concerned() -> None:
    async def main() -> None:
        worker = FakeWorker()
        worker.failures = {
            1: Failure("invalid", "is not an image; send a PNG or JPEG.", "image"),
            2: Failure("not_found", "there is no class 'dgo'; did you mean dog?", "target"),
            3: Failure("invalid", "this model cannot do that.", ""),
        }
        async with running(worker) as dispatcher:
            outcomes = await asyncio.gather(*[submit(dispatcher, seed) for seed in range(5)], return_exceptions=True)
        first, second, third = outcomes[1:4]
        assert type(first) is InvalidInput
        assert (first.field, str(first)) == ("image", "image: is not an image; send a PNG or JPEG.")
        assert type(second) is NotFound
        assert (second.field, second.message) == ("target", "there is no class 'dgo'; did you mean dog?")
        assert type(third) is SynthesisError
        for seed in (0, 4):
            outcome = outcomes[seed]
            assert isinstance(outcome, Outcome)
            assert found(outcome) == expected(seed=seed, steps=60)
            assert outcome.timings.retries == 0

    run(main())


def test_one_bad_picture_ends_its_request() -> None:
    async def main() -> None:
        worker = FakeWorker()
        async with running(worker) as dispatcher:
            ticket = dispatcher.submit(generate(1, 500, count=3), model="fake")
            await asyncio.sleep(0.5)
            worker.failures = {1: Failure("invalid", "is not a number; lower the step size.", "loss")}
            with pytest.raises(InvalidInput, match="loss: is not a number"):
                await ticket
            done = len(worker.bundles)
            await asyncio.sleep(10)
            assert len(worker.bundles) == done

    run(main())


@pytest.mark.parametrize(
    ("kind", "attempts", "message"),
    [
        ("memory", 1, "the worker has too little memory for it; ask for a smaller size."),
        ("internal", 3, "workers failed at this job again and again (RuntimeError: oops.); change the request."),
    ],
)
def test_a_job_that_always_fails_ends_with_the_reason(kind: str, attempts: int, message: str) -> None:
    async def main() -> None:
        worker = FakeWorker()
        said = message if kind == "memory" else "RuntimeError: oops."
        worker.failures = {1: Failure(kind, said, "")}
        async with running(worker) as dispatcher:
            with pytest.raises(JobLost) as raised:
                await submit(dispatcher)
        assert str(raised.value) == message
        assert len(worker.bundles) == attempts

    run(main())


def test_too_little_memory_for_many_is_tried_with_fewer() -> None:
    async def main() -> None:
        worker = FakeWorker()
        async with running(worker) as dispatcher:
            tickets = [submit(dispatcher, seed, 200) for seed in range(8)]
            await asyncio.sleep(0.3)
            worker.failures = _Once({1: Failure("memory", "the worker has too little memory for it.", "")})
            outcomes = await asyncio.gather(*tickets)
        assert [found(outcome) for outcome in outcomes] == [expected(seed=seed, steps=200) for seed in range(8)]
        assert [ticket.jobs[0].candidate.most for ticket in tickets] == [32, 4, *[32] * 6]

    run(main())


class _Once(dict[int, Failure]):
    def get(self, key: int, default: Any = None) -> Any:
        return self.pop(key, default)


# Callers that leave, deadlines, the end.


def test_cancel_stops_after_the_outstanding_bundles() -> None:
    async def main() -> None:
        worker = FakeWorker()
        async with running(worker) as dispatcher:
            tickets = [submit(dispatcher, seed, 5000) for seed in range(80)]
            await asyncio.sleep(1.003)
            assert worker.outstanding == 2
            before, bundles = dict(worker.evaluations), len(worker.bundles)
            for ticket in tickets:
                ticket.cancel()
            await asyncio.sleep(60)
            assert len(worker.bundles) <= bundles + 1  # one was computed, one waited at the worker
            after = worker.evaluations
            assert all(after[seed] - before.get(seed, 0) <= 19 for seed in after)
            with pytest.raises(Cancelled):
                await tickets[0]
            assert dispatcher._jobs == {}

    run(main())


def test_a_job_that_is_cancelled_before_it_was_sent_costs_nothing() -> None:
    async def main() -> None:
        worker = FakeWorker()
        async with running(worker) as dispatcher:
            submit(dispatcher).cancel()
            ticket = submit(dispatcher)
            await asyncio.sleep(0)  # planned, not sent
            ticket.cancel()
            ticket.cancel()
            await asyncio.sleep(1)
            assert worker.bundles == []
            assert found(await submit(dispatcher, 2)) == expected(seed=2, steps=60)

    run(main())


def test_cancelled_neighbours_leave_the_others_their_results() -> None:
    async def main() -> None:
        async with running(FakeWorker()) as dispatcher:
            tickets = [submit(dispatcher, seed, 100) for seed in range(8)]
            await asyncio.sleep(0.3)
            for ticket in tickets[::2]:
                ticket.cancel()
            outcomes = await asyncio.gather(*tickets[1::2])
        assert [found(outcome) for outcome in outcomes] == [expected(seed=seed, steps=100) for seed in (1, 3, 5, 7)]

    run(main())


def test_where_a_step_takes_a_second_progress_and_cancel_are_prompt() -> None:
    async def main() -> None:
        worker = FakeWorker(models=[fake_model(step_seconds={1: 1.0})], seconds=float)
        async with running(worker) as dispatcher:
            tickets = [submit(dispatcher, seed, 100) for seed in range(4)]
            assert (await anext(tickets[0].__aiter__())).step == 1
            assert now() == pytest.approx(1)
            await asyncio.sleep(10.5)
            done = sum(worker.evaluations.values())
            for ticket in tickets:
                ticket.cancel()
            await asyncio.sleep(100)
            assert sum(worker.evaluations.values()) <= done + 2
            assert all(len(bundle.jobs) == 1 for bundle in worker.bundles)

    run(main())


def test_a_deadline_ends_a_job_and_says_how_far_it_came() -> None:
    async def main() -> None:
        worker = FakeWorker()
        async with running(worker) as dispatcher:
            ticket = submit(dispatcher, 1, 5000, deadline=now() + 3)
            with pytest.raises(
                DeadlineExceeded, match=r"passed after 3\.0 s with 0 of 1 pictures done; allow more time"
            ):
                await ticket
            assert now() == 3
            await asyncio.sleep(10)
            assert worker.evaluations[1] < 350
            in_time = submit(dispatcher, 2, 60, deadline=now() + 3)
            assert found(await in_time) == expected(seed=2, steps=60)

    run(main())


def test_with_no_worker_up_a_deadline_says_so() -> None:
    async def main() -> None:
        worker = FakeWorker()
        worker.up = False
        async with running(worker) as dispatcher:
            with pytest.raises(DeadlineExceeded, match="no worker with fake is up"):
                await submit(dispatcher, deadline=now() + 2)
        async with running() as dispatcher:
            with pytest.raises(DeadlineExceeded, match="no worker with fake is up"):
                await submit(dispatcher, deadline=now() + 2)

    run(main())


def test_close_lets_running_jobs_finish_and_fails_those_that_do_not() -> None:
    async def main() -> None:
        dispatcher = Dispatcher(FakeBackend([FakeWorker()]), clock=now)
        await dispatcher.start()
        short, long = submit(dispatcher, 1, 100), submit(dispatcher, 2, 5000)
        await asyncio.sleep(0.1)
        closing = asyncio.create_task(dispatcher.close(grace=10))
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown, match="shutting down"):
            submit(dispatcher)
        assert found(await short) == expected(seed=1, steps=100)
        with pytest.raises(ShuttingDown):
            await long
        await closing
        assert now() == pytest.approx(10.1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_close_without_jobs_does_not_wait() -> None:
    async def main() -> None:
        dispatcher = Dispatcher(FakeBackend([FakeWorker()]), clock=now)
        await dispatcher.start()
        await submit(dispatcher)
        started = now()
        await dispatcher.close(grace=1000)
        assert now() == started

    run(main())


def test_what_cannot_be_sent_is_refused_at_submission() -> None:
    async def main() -> None:
        async with running(FakeWorker()) as dispatcher:
            spec = MaximizeClass(target="cat")
            with pytest.raises(InvalidInput, match="image: must be the bytes of a file"):
                dispatcher.submit(Request(spec=spec, image="/etc/passwd"), model="fake")
            with pytest.raises(InvalidInput, match="size: is '16'"):
                dispatcher.submit(Request(spec=spec, image=b"x", size="16"), model="fake")  # type: ignore[arg-type]
            with pytest.raises(NotFound, match="did you mean fake"):
                dispatcher.submit(generate(), model="fke")
            with pytest.raises(DeadlineExceeded, match="has passed already"):
                submit(dispatcher, deadline=now() - 1)
            with pytest.raises(InvalidInput, match="size: is 100000"):
                await dispatcher.submit(Request(spec=Generate(target="cat"), size=100_000), model="fake")

    run(main())


def test_if_the_loop_itself_fails_nobody_waits_for_it() -> None:
    async def main() -> None:
        worker = FakeWorker()
        async with running(worker) as dispatcher:
            ticket = submit(dispatcher, steps=1000)
            await asyncio.sleep(1)
            worker.served = None  # type: ignore[assignment]
            with pytest.raises(SynthesisError, match="the gateway has failed"):
                await ticket

    run(main())


def test_large_bundles_are_encoded_off_the_event_loop() -> None:
    async def main() -> None:
        model = fake_model(size=224, step_seconds={1: 0.001, 8: 0.001})
        worker = FakeWorker(models=[model], seconds=lambda batch: 1e-9 * batch)
        async with running(worker) as dispatcher:
            started = time.monotonic()
            outcomes = await asyncio.gather(*[submit(dispatcher, seed, 400) for seed in range(8)])
            assert [found(outcome) for outcome in outcomes] == [expected(seed=seed, steps=400) for seed in range(8)]
            assert time.monotonic() - started < 30
        assert max(len(bundle.jobs) for bundle in worker.bundles) <= MAX_JOBS

    asyncio.run(main())
