"""How much of a worker's time the way to it costs: bundles through TorchServe, and in this process, against steps alone.

A step sleeps as long whatever the batch, as a GPU computes (2.5 ms at 64 pixels, 15 ms at 224), which leaves the CPU to the
transport. Callers make one job of 60 steps after the other. The ideal is a worker that does nothing but steps, in full batches,
so that starting jobs and encoding PNG files count against it, too. `busy` is the share of time in which the worker had a bundle.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

from clients.loadgen.drive import Drive
from robust_synthesis import specs
from robust_synthesis.bundle import MAX_JOBS
from robust_synthesis.gateway.backends.engine import EngineBackend
from robust_synthesis.gateway.dispatcher import Dispatcher
from robust_synthesis.model_folder import ModelFolder
from robust_synthesis.requests import Request
from robust_synthesis.testing import tiny_card, tiny_model_folder
from robust_synthesis.worker.engine import Engine, InProcess
from robust_synthesis.worker.shelf import Places
from robust_synthesis.worker.torchserve import TorchServe
from robust_synthesis.worker.torchserve.config import Settings

from . import simulated
from .figures import Figure, Measured
from .measure import Spread, under_way

TITLE = "The way to a worker"
STEPS = 60
ENGINES = ("inprocess", "torchserve")


class Recorded:
    """An engine, and the seconds that it computed, as its replies say."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def run(self, bundle: bytes, **options: Any) -> bytes:
        reply = await self._engine.run(bundle, **options)
        (length,) = struct.unpack_from("<Q", reply)
        self.seconds += json.loads(json.loads(reply[8 : 8 + length])["__metadata__"]["bundle"])["seconds"]
        return reply


def run(folder: ModelFolder, *, quick: bool) -> Measured:
    """Throughput as a share of the ideal. The classifier is a tiny one."""
    del folder
    figures = []
    for side in (64,) if quick else (64, 224):
        with tempfile.TemporaryDirectory() as scratch, simulated.sleeping(simulated.SLEEP[side]):
            tiny = tiny_model_folder(Path(scratch) / "tiny", tiny_card(size=side)).path
            for kind in ENGINES:
                callers = (1, 16) if quick else (1, 8, 16, 32)
                figures += asyncio.run(_measure(kind, tiny, side, callers, rounds=3 if quick else 6))
    return Measured(tuple(figures))


async def _measure(kind: str, folder: Path, side: int, crowds: tuple[int, ...], rounds: int) -> list[Figure]:
    """A figure for each number of callers."""
    recorded = Recorded(_engine(kind, folder, simulated.SLEEP[side]))
    dispatcher = Dispatcher(EngineBackend(recorded))
    figures = []
    async with contextlib.AsyncExitStack() as stack:
        await dispatcher.start()
        stack.push_async_callback(dispatcher.close, 5)
        (model,) = recorded.models()

        async def send(number: int) -> tuple[str, str]:
            spec = specs.Generate(target=model.card.classes[1], seed=number, steps=STEPS, start="noise")
            await dispatcher.submit(Request(spec=spec), model=model.name)
            return "generate", "OK"

        await Drive(send).closed(max(crowds), 1.0)
        for callers in crowds:
            batch = min(callers, MAX_JOBS)
            ideal = batch / ((STEPS + 1) * simulated.SLEEP[side])
            shares, busy, latencies = [], [], []
            seconds = max(2.0, 4 * callers / ideal)
            for _ in range(rounds):
                drive, before, begun = Drive(send), recorded.seconds, time.perf_counter()
                await drive.closed(callers, seconds)
                busy.append((recorded.seconds - before) / (time.perf_counter() - begun))
                done = [(sample.sent, sample.ended) for sample in drive.samples]
                shares.append(under_way(done, seconds / 4, seconds) / (0.75 * seconds * ideal))
                latencies += [sample.latency for sample in drive.samples]
            figures.append(
                Figure.of(
                    f"{kind}, {side} px, {callers} callers, throughput",
                    Spread.of(shares),
                    f"a worker of steps only, batch {batch}",
                    detail=f"busy {Spread.of(busy).median:.0%}, {1000 * Spread.of(latencies).median:.0f} ms a job",
                )
            )
    return figures


def _engine(kind: str, folder: Path, step_seconds: float) -> Engine:
    places = Places(paths=[folder])
    if kind == "inprocess":
        return InProcess(places)
    return TorchServe(places, settings=Settings(environment=simulated.environment(step_seconds)))
