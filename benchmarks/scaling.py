"""Workers behind one gateway, and how much work it can hand out.

A step sleeps as long whatever the batch, as a GPU computes, so that the cores are left to gateway, agents and clients, which are
processes of their own on this machine. For the speed-up a step sleeps 30 ms, and each worker has clients for a full bundle.
For the gateway's limit steps take next to no time: clients make requests until no more are answered, and the gateway's own CPU
time says how many one core of it could hand out where clients and workers have cores of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import defaultdict
from pathlib import Path

from clients.loadgen.drive import Drive, Send
from clients.loadgen.mix import Work
from robust_synthesis.bundle import MAX_JOBS
from robust_synthesis.gateway.policy import Policy
from robust_synthesis.model_folder import ModelFolder
from robust_synthesis.testing import tiny_card, tiny_model_folder

from . import processes, simulated
from .chart import Chart
from .figures import Figure, Measured
from .measure import Spread, percentile, ratio, under_way

TITLE = "Workers behind one gateway"
SIDE = 64
STEPS = 60
WORK = Work({"generate": 1.0}, "tiny", STEPS)
STEP_SECONDS = 0.03
EACH = MAX_JOBS
"""Clients for each worker: a full bundle, where more jobs take no longer."""
WORKERS = (1, 2, 4)
TARGETS = {2: 1.7, 4: 3.4}
CROWDS = (8, 16, 32, 64)


def run(folder: ModelFolder, *, quick: bool) -> Measured:
    """Speed-up with more workers, and the gateway's limit. The classifier is a tiny one of 64 pixels."""
    del folder
    with tempfile.TemporaryDirectory() as scratch:
        tiny = tiny_model_folder(Path(scratch) / "tiny", tiny_card(size=SIDE)).path
        speed_up, rates = asyncio.run(_speed_up(tiny, rounds=2 if quick else 5))
        limit, answered = asyncio.run(_limit(tiny, seconds=3.0 if quick else 15.0, rounds=2 if quick else 5))
    ideal = [(float(n), n * rates[0][1]) for n in WORKERS]
    return Measured(
        (*speed_up, *limit),
        (
            Chart("jobs of 60 steps a second", "workers", {"measured": rates, "as many times the first": ideal}),
            Chart("jobs a second where steps take no time", "clients", {"answered": answered}, log_x=True),
        ),
    )


async def _speed_up(folder: Path, rounds: int) -> tuple[list[Figure], list[tuple[float, float]]]:
    rates: defaultdict[int, list[float]] = defaultdict(list)
    latency = (STEPS + 1) * STEP_SECONDS
    async with contextlib.AsyncExitStack() as stack:
        addresses = stack.enter_context(processes.agents(folder, max(WORKERS), STEP_SECONDS))
        fronts = {n: stack.enter_context(processes.gateway(addresses[:n])) for n in WORKERS}
        senders = {
            n: await stack.enter_async_context(processes.sending_to(front.server, WORK)) for n, front in fronts.items()
        }
        for turn in range(rounds):
            for n, send in sorted(senders.items(), reverse=bool(turn % 2)):
                rates[n].append(await _rate(send, EACH * n, ramp=latency, seconds=1.5 * latency))
    figures = [
        Figure.of(
            f"{n} workers",
            ratio(rates[n], rates[1]),
            "1 worker",
            target=TARGETS[n],
            detail=f"{Spread.of(rates[n]).median:.1f} jobs/s, {EACH * n} clients",
        )
        for n in WORKERS[1:]
    ]
    return figures, [(float(n), Spread.of(rates[n]).median) for n in WORKERS]


async def _limit(folder: Path, seconds: float, rounds: int) -> tuple[list[Figure], list[tuple[float, float]]]:
    """Jobs a second through a gateway whose workers are never what it waits for, against one worker with a GPU."""
    one_worker = Policy().largest(SIDE, 1) / ((STEPS + 1) * simulated.SLEEP[SIDE])
    answered: defaultdict[int, list[float]] = defaultdict(list)
    costs: defaultdict[int, list[float]] = defaultdict(list)
    tails: defaultdict[int, list[float]] = defaultdict(list)
    async with contextlib.AsyncExitStack() as stack:
        addresses = stack.enter_context(processes.agents(folder, 2, 1e-5))
        front = stack.enter_context(processes.gateway(addresses))
        send = await stack.enter_async_context(processes.sending_to(front.server, WORK))
        await _rate(send, max(CROWDS), ramp=0.0, seconds=1.0)  # step times
        for _ in range(rounds):
            for clients in CROWDS:
                before = await asyncio.to_thread(front.metrics)
                drive = Drive(send)
                await drive.closed(clients, seconds)
                after = await asyncio.to_thread(front.metrics)
                cpu = after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
                intervals = [(sample.sent, sample.ended) for sample in drive.samples]
                answered[clients].append(under_way(intervals, seconds / 4, seconds) / (0.75 * seconds))
                costs[clients].append(cpu / len(drive.samples))
                tails[clients].append(percentile([sample.latency for sample in drive.samples], 95))
    crowd = max(answered, key=lambda clients: Spread.of(answered[clients]).median)
    here = Spread.of(answered[crowd]).median
    most = [rate / one_worker for rate in answered[crowd]]
    core = [1 / (cost * one_worker) for cost in costs[crowd]]
    cost = 1000 * Spread.of(costs[crowd]).median
    against = f"a worker of {1000 * simulated.SLEEP[SIDE]} ms a step ({one_worker:.0f} jobs/s)"
    figures = [
        Figure.of(
            "most jobs that gateway, clients and workers manage together on these cores",
            Spread.of(most),
            against,
            detail=f"{here:.0f} jobs/s with {crowd} clients, p95 {1000 * Spread.of(tails[crowd]).median:.0f} ms",
        ),
        Figure.of(
            "jobs for which a gateway has the CPU time, with a core of its own",
            Spread.of(core),
            against,
            detail=f"{1000 / cost:.0f} jobs/s, {cost:.1f} ms each",
        ),
    ]
    return figures, [(float(n), Spread.of(rates).median) for n, rates in answered.items()]


async def _rate(send: Send, clients: int, ramp: float, seconds: float) -> float:
    """Jobs a second, once they flow."""
    drive = Drive(send)
    await drive.closed(clients, ramp + seconds)
    if refused := {sample.code for sample in drive.samples} - {"OK"}:
        raise RuntimeError(f"the gateway answered with {', '.join(refused)}.")
    return under_way([(sample.sent, sample.ended) for sample in drive.samples], ramp, ramp + seconds) / seconds
