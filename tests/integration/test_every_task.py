"""Every task with the shipped classifier: embedded, through TorchServe, and through a worker agent, the bits are the same."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from robust_synthesis import specs
from robust_synthesis.gateway.backends.base import Backend
from robust_synthesis.gateway.backends.engine import EngineBackend
from robust_synthesis.gateway.backends.remote import Remote
from robust_synthesis.gateway.dispatcher import Dispatcher
from robust_synthesis.gateway.jobs import Picture
from robust_synthesis.gateway.tickets import Outcome
from robust_synthesis.requests import Request
from robust_synthesis.testing import mask, picture
from robust_synthesis.worker.agent import Agent, Options
from robust_synthesis.worker.engine import InProcess
from robust_synthesis.worker.metrics import Metrics
from robust_synthesis.worker.shelf import Places
from robust_synthesis.worker.torchserve import TorchServe

pytestmark = pytest.mark.real
SHIPPED = Path(__file__).parents[2] / "model_store" / "cifar10"
SECONDS = 240
"""For everything, on a machine that is busy otherwise."""


def file(image: Image.Image, format: str = "PNG") -> bytes:
    written = io.BytesIO()
    image.resize((80, 60), Image.Resampling.BICUBIC).save(written, format)
    return written.getvalue()


PHOTO, MASK = file(picture(seed=3), "JPEG"), file(mask())
STEPS = 12
ANY: dict[str, Any] = {"seed": 7, "steps": STEPS, "exact": True}
REQUESTS = {
    "generate": Request(spec=specs.Generate(target="dog", **ANY)),
    "generate from noise, larger": Request(spec=specs.Generate(target="ship", start="noise", **ANY), size=64),
    "generate three": Request(spec=specs.Generate(target="cat", count=3, **ANY)),
    "inpaint": Request(spec=specs.Inpaint(**ANY), image=PHOTO, mask=MASK),
    "inpaint, pasted back": Request(
        spec=specs.Inpaint(target="bird", **ANY), image=PHOTO, box=(20, 10, 30, 30), paste_back=True
    ),
    "translate": Request(spec=specs.Translate(target="dog", **ANY), image=PHOTO),
    "super-resolve": Request(spec=specs.SuperResolve(factor=4, **ANY), image=PHOTO, fit="pad"),
    "sketch": Request(spec=specs.SketchToImage(target="ship", **ANY), image=PHOTO),
    "paint a unit": Request(spec=specs.PaintFeatures(unit=5, **ANY), image=PHOTO, mask=MASK),
    "paint a class, pasted back": Request(
        spec=specs.PaintFeatures(target="airplane", **ANY), image=PHOTO, mask=MASK, paste_back=True
    ),
    "maximize": Request(spec=specs.MaximizeClass(target="frog", random_start=True, **ANY), image=PHOTO),
    "maximize, the last": Request(spec=specs.MaximizeClass(target="frog", use_best=False, **ANY), image=PHOTO),
}
Answers = dict[str, Sequence[Picture]]


class Running(EngineBackend):
    """An engine that is the agent's to start and to stop."""

    async def start(self) -> None:
        """It runs."""

    async def close(self) -> None:
        """It goes on."""


@asynccontextmanager
async def agent_of(engine: TorchServe) -> AsyncIterator[Remote]:
    agent = Agent(engine, Options(listen="127.0.0.1:0"), Metrics(engine))
    serving = asyncio.create_task(agent.run())
    while not agent.port or not engine.up:
        assert not serving.done(), serving.result()
        await asyncio.sleep(0.05)
    try:
        yield Remote([f"127.0.0.1:{agent.port}"])
    finally:
        agent.stop()
        await serving


async def answers(backend: Backend) -> Answers:
    dispatcher = Dispatcher(backend)
    await dispatcher.start()
    try:
        tickets = {name: dispatcher.submit(request, model="cifar10") for name, request in REQUESTS.items()}
        outcomes: list[Outcome] = await asyncio.gather(*(ticket.result() for ticket in tickets.values()))
    finally:
        await dispatcher.close(grace=1)
    return {name: outcome.pictures for name, outcome in zip(tickets, outcomes, strict=True)}


@pytest.fixture(scope="module")
def computed() -> dict[str, Answers]:
    """What each way gives, one after another, with one TorchServe for both of its."""

    async def main() -> dict[str, Answers]:
        async with asyncio.timeout(SECONDS):
            embedded = await answers(EngineBackend(InProcess(Places(paths=[SHIPPED]))))
            engine = TorchServe(Places(paths=[SHIPPED]))
            async with agent_of(engine) as remote:
                return {
                    "embedded": embedded,
                    "torchserve": await answers(Running(engine)),
                    "agent": await answers(remote),
                }

    return asyncio.run(main())


def test_the_requests_are_of_all_seven_tasks() -> None:
    assert {request.spec.task for request in REQUESTS.values()} == set(specs.SPECS)


@pytest.mark.parametrize("way", ["torchserve", "agent"])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_result_is_the_embedded_backends_bit_for_bit(computed: dict[str, Answers], way: str, name: str) -> None:
    found, expected = computed[way][name], computed["embedded"][name]
    assert len(found) == REQUESTS[name].spec.pictures
    for one, other in zip(found, expected, strict=True):
        assert one.file == other.file
        assert dataclasses.replace(one, file=b"") == dataclasses.replace(other, file=b"")  # report and trace
        assert len(one.loss) == STEPS + 1


def test_the_results_differ_from_each_other(computed: dict[str, Answers]) -> None:
    files = [picture.file for pictures in computed["embedded"].values() for picture in pictures]
    assert len(set(files)) == len(files)
