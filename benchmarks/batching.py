"""Batches that jobs join and leave after every bundle, against batches of whole requests, on the same engine.

Batches of whole requests are what a plain TorchServe handler gets: the first request that waits opens a batch, others join it
for `maxBatchDelay` or until there are `batchSize` of them, the handler runs all of them until the last has taken all of its
steps, and then all are answered. It has no gateway, no bundles and no padding, and of several delays the best counts. One more
lets jobs that are done leave the batch, though not be answered, which would take a handler of its own kind. All compute in this
process with the same engine, have the same largest batch, and get the same requests, of 20 to 60 steps each, at the same
moments: a Poisson process at a share of what joined bundles do at most. One thread computes for all of them: OpenMP has helpers
for each that does, which sleep as soon as there are more of them than cores.

On a CPU a step of 16 pictures takes many times as long as one of a single picture; on a GPU it takes hardly longer. That is
measured with an engine whose steps sleep for 2.5 ms whatever the batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from clients.loadgen.arrivals import arrivals
from clients.loadgen.drive import Drive, Send
from robust_synthesis import imaging, specs
from robust_synthesis.bundle import MAX_JOBS
from robust_synthesis.engine.chunk import advance
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.problem import Problem, State
from robust_synthesis.gateway.backends.engine import EngineBackend
from robust_synthesis.gateway.dispatcher import Dispatcher
from robust_synthesis.gateway.policy import Policy
from robust_synthesis.model_folder import ModelFolder
from robust_synthesis.requests import Request
from robust_synthesis.tasks import Inputs, make_job
from robust_synthesis.testing import tiny_card, tiny_model_folder
from robust_synthesis.worker.engine import InProcess
from robust_synthesis.worker.shelf import Places

from . import simulated
from .chart import Chart
from .figures import Figure, Measured
from .measure import Spread, percentile, ratio, under_way

TITLE = "Jobs that join and leave against batches of whole requests"
STEPS = (20, 60)
LOAD = 0.7
DELAYS = (0.0, 0.1)
"""Seconds that a batch of whole requests waits for more: not at all, and TorchServe's own default."""
CROWD = 32
"""Callers at a time that keep an engine busy with full batches."""
ARRIVALS = 100
"""In a round: at least so many are expected."""
TARGET = 1.5
LEAVING = "handler whose jobs leave"
Submit = Callable[[specs.Spec], Awaitable[object]]


class Handler:
    """Computes batches of whole requests."""

    def __init__(self, folder: ModelFolder, *, leave: bool = False, sleep: float | None = None) -> None:
        self._classifier = Classifier.load(folder.path, precision="auto")
        self._leave = leave
        self._sleep = sleep
        """Seconds of a step that is not computed."""

    def handle(self, batch: Sequence[specs.Spec]) -> list[bytes]:
        """A PNG file for each."""
        inputs = Inputs(self._classifier.card.size)
        jobs = [make_job(spec, inputs, self._classifier) for spec in batch]
        order = sorted(range(len(jobs)), key=lambda i: -int(jobs[i].state.remaining))  # who leaves first is last
        problem = Problem.stack([jobs[i].problem for i in order]).to(self._classifier.device)
        state = State.stack([jobs[i].state for i in order]).to(self._classifier.device)
        ends = state.remaining.tolist()
        pictures, done = state.x.clone(), 0
        for end in sorted(set(ends)) if self._leave else ends[:1]:
            rows = slice(sum(each >= end for each in ends) if self._leave else len(ends))
            state = state.rows(rows)
            if self._sleep is None:
                state, _ = advance(self._classifier, problem.rows(rows), state, end - done)
                pictures[rows] = state.result(problem.rows(rows))
            else:
                time.sleep((end - done) * self._sleep)
            done = end
        files = [imaging.encode(imaging.to_image(picture.numpy())) for picture in pictures.cpu()]
        return [files[order.index(i)] for i in range(len(files))]


class WholeRequests:
    """What TorchServe's frontend does: batches for a handler, one at a time."""

    def __init__(self, handler: Handler, largest: int, delay: float, thread: ThreadPoolExecutor) -> None:
        self._handler = handler
        self._thread = thread
        self._largest = largest
        self._delay = delay
        self._waiting: asyncio.Queue[tuple[specs.Spec, asyncio.Future[None]]] = asyncio.Queue()

    async def submit(self, spec: specs.Spec) -> None:
        """Until it has its picture."""
        answered = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((spec, answered))
        await answered

    async def work(self) -> None:
        """Until it is cancelled."""
        while True:
            batch = [await self._waiting.get()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._delay):  # what waits already is taken even without a delay
                    while len(batch) < self._largest:
                        batch.append(await self._waiting.get())
            handled = [spec for spec, _ in batch]
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._handler.handle, handled)
            except Exception as error:
                for _, answered in batch:
                    answered.set_exception(error)
            else:
                for _, answered in batch:
                    answered.set_result(None)


@contextlib.asynccontextmanager
async def joined(folder: ModelFolder, engine: InProcess) -> AsyncIterator[Submit]:
    """Jobs that join and leave: the gateway's dispatcher."""
    dispatcher = Dispatcher(EngineBackend(engine))
    await dispatcher.start()
    try:
        yield lambda spec: dispatcher.submit(Request(spec=spec), model=folder.card.name)
    finally:
        await dispatcher.close(grace=60)


@contextlib.asynccontextmanager
async def whole(
    folder: ModelFolder, thread: ThreadPoolExecutor, largest: int, delay: float, **how: Any
) -> AsyncIterator[Submit]:
    """Batches of whole requests; `how` is for the handler."""
    handler = await asyncio.get_running_loop().run_in_executor(thread, partial(Handler, folder, **how))
    requests = WholeRequests(handler, largest, delay, thread)
    worker = asyncio.create_task(requests.work())
    try:
        yield requests.submit
    finally:
        worker.cancel()
        await asyncio.wait({worker})


def run(folder: ModelFolder, *, quick: bool) -> Measured:
    """95th percentiles and throughput, with the classifier and with steps that sleep."""
    seconds, rounds = (6, 2) if quick else (40, 5)
    real, lines = asyncio.run(_compare("", folder, None, seconds=seconds, rounds=rounds, leaving=not quick))
    sleep = simulated.SLEEP[64]
    with tempfile.TemporaryDirectory() as scratch, simulated.sleeping(sleep):
        tiny = tiny_model_folder(Path(scratch) / "tiny", tiny_card(size=64))
        asleep, more = asyncio.run(_compare("sleeping steps: ", tiny, sleep, seconds=4 if quick else 20, rounds=3))
    charts = (
        Chart("latency that so many of 100 requests do not exceed, s", "of 100 requests", lines),
        Chart("the same with sleeping steps, s", "of 100 requests", more),
    )
    return Measured((*real, *asleep), charts)


async def _compare(
    kind: str, folder: ModelFolder, sleep: float | None, *, seconds: float, rounds: int, leaving: bool = False
) -> tuple[list[Figure], dict[str, list[tuple[float, float]]]]:
    """Figures, and latency over percentile of both."""
    plain = [f"plain handler, {1000 * delay:.0f} ms" for delay in DELAYS]
    # Where more jobs take no longer, bundles have as many as they may.
    largest = Policy().largest(folder.card.size, 1) if sleep is None else MAX_JOBS
    async with contextlib.AsyncExitStack() as stack:
        engine = InProcess(Places(paths=[folder.path]))
        sides = {"joined": await stack.enter_async_context(joined(folder, engine))}
        others: dict[str, dict[str, Any]] = {
            name: {"delay": delay, "sleep": sleep} for name, delay in zip(plain, DELAYS, strict=True)
        }
        if leaving:
            others[LEAVING] = {"delay": 0.0, "leave": True}
        for name, how in others.items():
            sides[name] = await stack.enter_async_context(whole(folder, engine.thread, largest, **how))
        senders = {name: _sending(submit, folder.card.classes) for name, submit in sides.items()}
        rates: defaultdict[str, list[float]] = defaultdict(list)
        busy = ("joined", plain[0])
        window = max(3.0, *[(await _throughput(senders[name], 1.0))[1] for name in busy])
        for _ in range(2):
            for name in busy:
                rates[name].append((await _throughput(senders[name], window))[0])
        load = LOAD * Spread.of(rates["joined"]).median
        seconds = max(seconds, ARRIVALS / load)
        latencies: defaultdict[str, list[list[float]]] = defaultdict(list)
        for turn in range(rounds):
            for name, send in sorted(senders.items(), reverse=bool(turn % 2)):
                drive = Drive(send)
                await drive.open(arrivals("poisson", load, seconds, seed=turn))
                latencies[name].append([sample.latency for sample in drive.samples])
    tails = {name: [percentile(values, 95) for values in each] for name, each in latencies.items()}
    best = min(plain, key=lambda name: Spread.of(tails[name]).median)
    medians = ", ".join(f"{name} {1000 * Spread.of(each).median:.0f} ms" for name, each in tails.items())
    ours = "p95 of jobs that join and leave"
    at = f"at {LOAD:.0%} load"
    figures = [
        Figure.of(
            f"{kind}p95 of a plain handler {at}",
            ratio(tails[best], tails["joined"]),
            ours,
            target=TARGET,
            detail=f"{load:.1f} jobs/s; {medians}",
        )
    ]
    if leaving:
        faster = ratio(tails[LEAVING], tails["joined"])
        figures.append(Figure.of(f"{kind}p95 of a handler whose jobs leave when they are done, {at}", faster, ours))
    figures.append(
        Figure.of(
            f"{kind}throughput of jobs that join and leave, {CROWD} callers",
            ratio(rates["joined"], rates[plain[0]]),
            "a plain handler",
            detail=f"{Spread.of(rates['joined']).median:.1f} jobs/s",
        )
    )
    lines = {}
    for label, name in (("join and leave", "joined"), ("plain handler", best)):
        values = [value for each in latencies[name] for value in each]
        lines[label] = [(float(q), percentile(values, q)) for q in range(1, 100, 2)]
    return figures, lines


def _sending(submit: Submit, classes: tuple[str, ...]) -> Send:
    """The same numbers have the same specs on both sides."""

    async def send(number: int) -> tuple[str, str]:
        drawn = random.Random(number)
        steps, target = drawn.randint(*STEPS), drawn.choice(classes)
        await submit(specs.Generate(target=target, seed=number, steps=steps, start="noise"))
        return "generate", "OK"

    return send


async def _throughput(send: Send, seconds: float) -> tuple[float, float]:
    """Jobs a second with callers enough, and how long a job took."""
    drive, ramp = Drive(send), seconds / 4
    await drive.closed(CROWD, ramp + seconds)
    done = under_way([(sample.sent, sample.ended) for sample in drive.samples], ramp, ramp + seconds)
    return done / seconds, Spread.of([sample.latency for sample in drive.samples]).median
