"""Ten times more work than the workers can do, over real gRPC: what is accepted is done, the rest is told when to come back.

The workers only sleep. Work is counted in evaluations: those of accepted requests, all of which must end with a result.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from robust_synthesis.gateway.admission import BoundedAdmission
from robust_synthesis.gateway.queue import Bounds
from robust_synthesis.gateway.running import running
from robust_synthesis.gateway.testing import FakeBackend, FakeWorker, fake_model
from robust_synthesis.v1 import synthesis_pb2, synthesis_pb2_grpc, task_pb2

STEP = 0.04
"""Seconds of a step of any batch, so that a worker does at most 400 evaluations a second."""
BATCH = 16
STEPS = (20, 40)
"""Of a request, at least and at most."""
QUEUE = 3.0
"""Seconds of work that are accepted."""
CAPACITY = BATCH / STEP / (1 + sum(STEPS) / 2)
"""Requests in a second."""


@dataclass
class Load:
    """What became of the requests."""

    codes: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    """Seconds, of those with a result."""
    retries: list[float] = field(default_factory=list)
    """Seconds after which the others were told to come back."""
    wrong: list[str] = field(default_factory=list)
    sent: int = 0


class Crowd:
    """Callers of a gateway, on four connections."""

    def __init__(self, target: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self.channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(4)]
        self.stubs: list[Any] = [synthesis_pb2_grpc.SynthesisServiceStub(channel) for channel in self.channels]
        self.random = random.Random(7)
        self.number = 0

    async def ask(self, load: Load) -> None:
        self.number += 1
        load.sent += 1
        descent = task_pb2.Descent(steps=self.random.randint(*STEPS), seed=self.number)
        spec = task_pb2.GenerateSpec(target="cat", descent=descent)
        stub = self.stubs[self.number % len(self.stubs)]
        begun = time.monotonic()
        try:
            answer = await stub.Generate(synthesis_pb2.GenerateRequest(spec=spec), timeout=60)
        except grpc.aio.AioRpcError as error:
            load.codes[error.code().name] += 1
            load.retries += _retry(error)
            return
        load.codes["OK"] += 1
        load.latencies.append(time.monotonic() - begun)
        if answer.result.seed != descent.seed or len(answer.result.pictures[0].losses) != descent.steps + 1:
            load.wrong.append(str(answer.result.task))

    async def one_after_the_other(self, callers: int, seconds: float, load: Load) -> None:
        """So many callers, each of whom waits for its result before it asks again."""
        until = time.monotonic() + seconds

        async def caller() -> None:
            while time.monotonic() < until:
                await self.ask(load)

        await asyncio.gather(*(caller() for _ in range(callers)))

    async def at_a_rate(self, rate: float, seconds: float, load: Load) -> list[asyncio.Task[None]]:
        """So many requests in a second, whatever becomes of them. Returns those, too, that have not ended."""
        begun, tasks = time.monotonic(), []
        while (passed := time.monotonic() - begun) < seconds:
            while load.sent < passed * rate:
                tasks.append(asyncio.create_task(self.ask(load)))
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
        return tasks


def _retry(error: grpc.aio.AioRpcError) -> list[float]:
    """Seconds that RetryInfo says, which must be what gRPC's own retries are told."""
    metadata: Any = error.trailing_metadata()
    trailers = dict(metadata)
    found = []
    for packed in status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details:
        retry = error_details_pb2.RetryInfo()
        if packed.Unpack(retry):
            assert int(trailers["grpc-retry-pushback-ms"]) == retry.retry_delay.ToMilliseconds()
            found.append(retry.retry_delay.ToMilliseconds() / 1000)
    return found


def _resident() -> float:
    """MiB of this process, which is gateway, worker and callers."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _goodput(worker: FakeWorker, warm_up: float, seconds: float) -> float:
    """Evaluations in a second, from after the warm-up on."""
    await asyncio.sleep(warm_up)
    before, begun = sum(worker.evaluations.values()), time.monotonic()
    await asyncio.sleep(seconds - warm_up)
    return (sum(worker.evaluations.values()) - before) / (time.monotonic() - begun)


@pytest.mark.parametrize("seconds", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_ten_times_too_much_is_refused_in_time_and_costs_nobody_else(seconds: float) -> None:
    async def main() -> None:
        worker = FakeWorker(models=[fake_model(step_seconds={1: STEP, BATCH: STEP})], seconds=lambda _: STEP)
        admission = BoundedAdmission(Bounds(seconds=QUEUE))
        async with running(FakeBackend([worker]), admission=admission) as gateway:
            crowd = Crowd(gateway.target)
            calm, storm = Load(), Load()
            _, capacity = await asyncio.gather(crowd.one_after_the_other(BATCH + 8, 12, calm), _goodput(worker, 2, 12))
            memory = _resident()
            tasks, goodput = await asyncio.gather(
                crowd.at_a_rate(10 * CAPACITY, seconds, storm), _goodput(worker, 2, seconds)
            )
            async with asyncio.timeout(60):
                await asyncio.gather(*tasks)
            grown = _resident() - memory
            print(
                f"capacity {capacity:.0f}/s ({capacity * STEP / BATCH:.0%} of the worker), goodput at "
                f"{storm.sent / seconds / CAPACITY:.1f} x: {goodput:.0f}/s ({goodput / capacity:.0%}); {dict(storm.codes)}; "
                f"latency at most {max(storm.latencies):.1f} s, mean {sum(storm.latencies) / len(storm.latencies):.1f} s, "
                f"calm {max(calm.latencies):.1f} s; told to come back after {min(storm.retries):.1f} to "
                f"{max(storm.retries):.1f} s; {grown:.0f} MiB more"
            )
            assert set(calm.codes) == {"OK"}
            assert set(storm.codes) == {"OK", "RESOURCE_EXHAUSTED"}
            assert storm.sent > 9 * CAPACITY * seconds
            assert storm.codes.total() == storm.sent == len(tasks)
            assert len(storm.retries) == storm.codes["RESOURCE_EXHAUSTED"]
            assert min(storm.retries) > 0
            assert calm.wrong == storm.wrong == []
            assert goodput >= 0.9 * capacity
            assert grown < 64
            assert (len(gateway.dispatcher.requests), len(admission.queue), worker.outstanding) == (0, 0, 0)
            await crowd.ask(calm)
            assert set(calm.codes) == {"OK"}
            await asyncio.gather(*(channel.close(None) for channel in crowd.channels))

    asyncio.run(main())
