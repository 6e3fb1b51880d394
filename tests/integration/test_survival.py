"""Jobs through a real TorchServe whose processes are killed, stopped and made to crash: nothing is lost, nothing changes."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import robust_synthesis
from robust_synthesis import specs
from robust_synthesis.gateway.backends.engine import EngineBackend
from robust_synthesis.gateway.dispatcher import Dispatcher
from robust_synthesis.gateway.errors import Cancelled, JobLost
from robust_synthesis.gateway.tickets import Outcome, Ticket
from robust_synthesis.requests import Request
from robust_synthesis.testing import mask, picture, tiny_card, tiny_model_folder
from robust_synthesis.worker.engine import Engine, InProcess
from robust_synthesis.worker.shelf import Places
from robust_synthesis.worker.torchserve import TorchServe

from .injected import batches, injected

pytestmark = pytest.mark.real
LONG = 300
"""Steps of a job that is disturbed."""
log = logging.getLogger(__name__)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


IMAGE, MASK = png(picture(seed=3)), png(mask())
TASKS = (
    Request(spec=specs.Generate(target="square", seed=5, exact=True)),
    Request(spec=specs.Generate(target="circle", seed=6, exact=True, start="noise")),
    Request(spec=specs.Inpaint(target="waves", seed=1, exact=True), image=IMAGE, mask=MASK),
    Request(spec=specs.Translate(target="waves", seed=1, exact=True), image=IMAGE),
    Request(spec=specs.SuperResolve(factor=2, seed=1, exact=True), image=IMAGE),
    Request(spec=specs.SketchToImage(target="stripes", seed=1, exact=True), image=IMAGE),
    Request(spec=specs.PaintFeatures(unit=1, seed=1, exact=True), image=IMAGE, box=(2, 2, 7, 7)),
    Request(spec=specs.MaximizeClass(target="waves", seed=2, exact=True), image=IMAGE),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a size at which 300 steps last a while, but not long."""
    architecture = {"kind": "resnet", "block": "basic", "depths": [1, 1], "width": 8, "stem": "small"}
    return tiny_model_folder(tmp_path_factory.mktemp("store") / "tiny", tiny_card(architecture=architecture)).path


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher(EngineBackend(engine))
    await dispatcher.start()
    try:
        yield dispatcher
    finally:
        await dispatcher.close(grace=1)


def run(scenario: Coroutine[Any, Any, Any], seconds: float = 240) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(seconds):
            return await scenario

    return asyncio.run(bounded())


def long_jobs(count: int, steps: int) -> list[Request]:
    return [Request(spec=specs.Generate(target="square", seed=i, steps=steps, exact=True)) for i in range(count)]


def files(outcomes: Sequence[Outcome]) -> list[bytes]:
    return [picture.file for outcome in outcomes for picture in outcome.pictures]


async def all_of(dispatcher: Dispatcher, requests: Sequence[Request]) -> list[Outcome]:
    return list(await asyncio.gather(*(dispatcher.submit(request, model="tiny") for request in requests)))


def test_every_task_through_torchserve_is_the_embedded_backends_bit_for_bit(folder: Path) -> None:
    async def answers(engine: Engine) -> list[Outcome]:
        async with serving(engine) as dispatcher:
            return await all_of(dispatcher, TASKS)

    through, embedded = (
        run(answers(TorchServe(Places(paths=[folder])))),
        run(answers(InProcess(Places(paths=[folder])))),
    )
    assert files(through) == files(embedded)
    synthesizer = robust_synthesis.load(folder)
    for outcome, other, request in zip(through, embedded, TASKS, strict=True):
        assert outcome.pictures[0].loss == other.pictures[0].loss
        assert outcome.pictures[0].report == other.pictures[0].report
        expected = synthesizer.answer(request)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(outcome.pictures[0].file))), np.asarray(expected.image))
        assert outcome.version == expected.version


def test_killed_and_stopped_workers_lose_no_job_and_change_no_bit(
    folder: Path, record_property: Callable[[str, object], None]
) -> None:
    jobs = long_jobs(8, LONG)

    async def undisturbed(dispatcher: Dispatcher) -> tuple[list[bytes], float]:
        started = time.monotonic()
        return files(await all_of(dispatcher, jobs)), time.monotonic() - started

    async def disturbed(dispatcher: Dispatcher, engine: TorchServe) -> tuple[list[bytes], float, list[Outcome]]:
        def worker() -> int | None:
            pids = engine.processes()["worker"]
            return pids[0] if pids else None

        async def disturb(tickets: Sequence[Ticket]) -> None:
            for harm in (signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP):
                aim = sum(map(evaluations_done, tickets)) + 60
                while sum(map(evaluations_done, tickets)) < aim or worker() is None:
                    assert not all(ticket.done for ticket in tickets), "all was done before the last disturbance"
                    await asyncio.sleep(0.02)
                pid = worker()
                assert pid is not None
                os.kill(pid, harm)
                while worker() in (None, pid):
                    await asyncio.sleep(0.02)

        started = time.monotonic()
        tickets = [dispatcher.submit(request, model="tiny") for request in jobs]
        disturbing = asyncio.create_task(disturb(tickets))
        outcomes = list(await asyncio.gather(*tickets))
        seconds = time.monotonic() - started
        await disturbing
        return files(outcomes), seconds, outcomes

    async def scenario() -> None:
        engine = TorchServe(Places(paths=[folder]))
        async with serving(engine) as dispatcher:
            expected, calm = await undisturbed(dispatcher)
            found, harmed, outcomes = await disturbed(dispatcher, engine)
        assert found == expected
        assert sum(outcome.timings.retries for outcome in outcomes) >= 3
        record_property("seconds_lost", harmed - calm)
        print(f"\nundisturbed {calm:.1f} s; with two kills and a stop {harmed:.1f} s: {harmed - calm:.1f} s lost")

    run(scenario())


def evaluations_done(ticket: Ticket) -> int:
    return sum(LONG + 1 - job.remaining for job in ticket.jobs if job.remaining)


def test_a_job_that_crashes_the_worker_fails_alone(folder: Path) -> None:
    settings = injected(INJECT_CRASH="666")
    jobs = [Request(spec=specs.Generate(target="square", seed=seed)) for seed in (1, 666, 2, 3)]

    async def scenario() -> list[Outcome | BaseException]:
        async with serving(TorchServe(Places(paths=[folder]), settings=settings)) as dispatcher:
            tickets = [dispatcher.submit(request, model="tiny") for request in jobs]
            return await asyncio.gather(*tickets, return_exceptions=True)

    found = run(scenario())
    assert isinstance(found[1], JobLost)
    assert "stopped 3 times while computing this job alone" in str(found[1])
    assert all(isinstance(outcome, Outcome) for i, outcome in enumerate(found) if i != 1)


def test_a_cancelled_job_stops_after_the_bundles_outstanding(folder: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    settings = injected(INJECT_COUNT=str(count))

    async def scenario() -> None:
        async with serving(TorchServe(Places(paths=[folder]), settings=settings)) as dispatcher:
            ticket = dispatcher.submit(long_jobs(1, 5000)[0], model="tiny")
            async for progress in ticket:
                if progress.step > 100:
                    break
            before = batches(count)
            ticket.cancel()
            with pytest.raises(Cancelled):
                await ticket
            await asyncio.sleep(2)
            after = batches(count)
            assert len(after) - len(before) <= 1
            assert sum(k for _, k in after[len(before) :]) <= 2 * max(k for _, k in before)

    run(scenario())
