"""The whole service against its engine alone: client, gRPC, gateway and worker on the cores that the engine has to itself.

The engine alone is a loop over steps of a full batch, in the benchmark's process, with as many threads as a worker has. It starts
no job, reads no photograph and writes no PNG file, all of which the service does. Clients make one request of
60 steps after the other, of all seven tasks, with photographs of 256 pixels. Engine and back ends take turns, each while the
others idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial

import torch

import robust_synthesis
from clients.loadgen.arrivals import arrivals
from clients.loadgen.drive import Drive, Sample, Send
from clients.loadgen.mix import TASKS, Work
from robust_synthesis.cli.own_gateway import own_gateway
from robust_synthesis.engine.chunk import advance
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.problem import Problem, State
from robust_synthesis.gateway.policy import Policy
from robust_synthesis.imaging import encode
from robust_synthesis.model_folder import ModelFolder

from . import processes
from .chart import Chart
from .figures import Figure, Measured
from .measure import Spread, percentile, ratio, under_way

TITLE = "The service against its engine"
BACKENDS = ("embedded", *(["torchserve"] if importlib.util.find_spec("ts") else []))
STEPS = 60
SIDE = 64
CROWD = 16
"""Clients of the headline figure, and of what counts as capacity."""
LOAD = 0.7
"""Of the capacity, that comes as a Poisson process."""


def run(folder: ModelFolder, *, quick: bool) -> Measured:
    """Throughput and latencies of both back ends."""
    return asyncio.run(_run(folder, quick))


async def _run(folder: ModelFolder, quick: bool) -> Measured:
    classifier = Classifier.load(folder.path, precision="auto")
    figures: list[Figure] = []
    rates: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    tails: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    async with contextlib.AsyncExitStack() as stack:
        mixed = dict.fromkeys(TASKS, 1.0)
        servers = {name: await stack.enter_async_context(_server(folder, name, mixed)) for name in BACKENDS}
        figures += await _lone(folder, servers, rounds=20 if quick else 100)
        for clients in (CROWD,) if quick else (1, 2, 4, 8, CROWD, 32, 64):
            batch = min(clients, Policy().largest(SIDE, clients))
            alone = partial(engine_rate, classifier, SIDE, batch)
            seconds = 6.0 if clients >= CROWD else 3.0
            found, samples = await _crowd(servers, alone, clients, seconds, rounds=3 if quick else 5)
            engines = [engine for name in BACKENDS for _, engine in found[name]]
            rates["engine alone"].append((clients, Spread.of(engines).median / (STEPS + 1)))
            for name in BACKENDS:
                served, engine = zip(*found[name], strict=True)
                jobs = Spread.of(served).median / (STEPS + 1)
                rates[name].append((clients, jobs))
                tails[name].append((clients, percentile([sample.latency for sample in samples[name]], 95)))
                figures.append(
                    Figure.of(
                        f"{name}, {clients} mixed clients, throughput",
                        ratio(served, engine),
                        f"engine alone, batch {batch}",
                        target=0.9 if clients == CROWD else None,
                        detail=f"{jobs:.1f} jobs/s; {latencies(samples[name])}",
                    )
                )
        if not quick:
            for name, server in servers.items():
                figures.append(await _poisson(name, server, LOAD * dict(rates[name])[CROWD], seconds=120))
    charts = (
        Chart("jobs of 60 steps a second", "clients", dict(rates), log_x=True),
        Chart("95th percentile of latency, s", "clients", dict(tails), log_x=True),
    )
    return Measured(tuple(figures), () if quick else charts)


@contextlib.asynccontextmanager
async def _server(folder: ModelFolder, backend: str, weights: Mapping[str, float]) -> AsyncIterator[dict[str, Send]]:
    """A gateway in a process of its own; what sends it one kind of request, and what sends it all."""
    with own_gateway([folder.path], backend=backend) as gateway:
        async with contextlib.AsyncExitStack() as stack:
            senders = {}
            for name, tasks in {"generate": {"generate": 1.0}, "mixed": weights}.items():
                work = Work(tasks, folder.card.name, STEPS, size=SIDE)
                senders[name] = await stack.enter_async_context(processes.sending_to(gateway.server, work))
            yield senders


def engine_rate(classifier: Classifier, side: int, batch: int, seconds: float = 2.0) -> float:
    """Evaluations of a picture a second, of the engine alone."""
    x = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    problem = Problem.stack([Problem.single(each, target=0, epsilon=10.0, step_size=0.1) for each in x])
    state = State.stack([State.start(each, 1_000_000) for each in x])
    problem, state = problem.to(classifier.device), state.to(classifier.device)
    state, _ = advance(classifier, problem, state, 2)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        state, _ = advance(classifier, problem, state, 5)
        count += 5 * batch
    return count / (time.perf_counter() - begun)


async def _lone(folder: ModelFolder, servers: Mapping[str, Mapping[str, Send]], rounds: int) -> list[Figure]:
    """A job that has the service to itself, against the library in this process, PNG file included."""
    library = robust_synthesis.load(folder.path)
    numbers = itertools.count()

    async def alone() -> None:
        target = folder.card.classes[0]
        made = library.generate(target, seed=next(numbers), steps=STEPS, size=SIDE)
        encode(made.image)

    async def call(send: Send) -> None:
        await send(next(numbers))

    seconds: defaultdict[str, list[float]] = defaultdict(list)
    subjects = {"library": alone} | {name: partial(call, senders["generate"]) for name, senders in servers.items()}
    for turn in range(-2, rounds):
        for name, subject in sorted(subjects.items(), reverse=bool(turn % 2)):
            begun = time.perf_counter()
            await subject()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - begun)
    figures = []
    parts = 4
    for name in servers:
        tails = {each: [percentile(seconds[each][i::parts], 95) for i in range(parts)] for each in (name, "library")}
        p95 = percentile(seconds[name], 95) / percentile(seconds["library"], 95)
        spread = ratio(tails[name], tails["library"])
        medians = ratio(seconds[name], seconds["library"])
        figures.append(
            Figure(
                f"{name}, lone job, p95",
                p95,
                min(p95, spread.low),
                max(p95, spread.high),
                "library in this process",
                target=1.1,
                higher_is_better=False,
                detail=f"{1000 * percentile(seconds[name], 95):.0f} ms; round by round {medians}",
            )
        )
    return figures


async def _crowd(
    servers: Mapping[str, Mapping[str, Send]], alone: Callable[[], float], clients: int, seconds: float, rounds: int
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, list[Sample]]]:
    """By round, evaluations a second of each server and of the engine just before and after it; and the samples of all rounds.

    A round counts so many seconds, but at least one and a half times what a job among so many takes, once half a job has passed.
    """
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    for turn in range(rounds):
        engine = alone()  # in the thread of the library, since OpenMP has helpers for each that computes
        job = clients * (STEPS + 1) / engine
        window, ramp = max(seconds, 1.5 * job), max(seconds / 4, 0.5 * job)
        for name, senders in sorted(servers.items(), reverse=bool(turn % 2)):
            drive = Drive(senders["mixed"])
            await drive.closed(clients, ramp + window)
            refused = {sample.code for sample in drive.samples} - {"OK"}
            if refused:
                raise RuntimeError(f"{name} answered with {', '.join(refused)}.")
            samples[name] += [sample for sample in drive.samples if sample.ended > ramp]
            done = under_way([(sample.sent, sample.ended) for sample in drive.samples], ramp, ramp + window)
            before, engine = engine, alone()
            found[name].append((done * (STEPS + 1) / window, (before + engine) / 2))
    return found, samples


async def _poisson(name: str, server: Mapping[str, Send], rate: float, seconds: float) -> Figure:
    """Latencies where requests come when they will."""
    drive = Drive(server["mixed"])
    await drive.closed(1, 1.0)
    lone = Spread.of([sample.latency for sample in drive.samples]).median
    drive = Drive(server["mixed"])
    await drive.open(arrivals("poisson", rate, seconds))
    parts = [percentile([sample.latency for sample in drive.samples[i::4]], 95) / lone for i in range(4)]
    return Figure.of(
        f"{name}, Poisson arrivals at {LOAD:.0%} of its throughput with {CROWD} clients, p95",
        Spread.of(parts),
        "a lone job",
        higher_is_better=False,
        detail=f"{rate:.1f} jobs/s, {latencies(drive.samples)}",
    )


def latencies(samples: list[Sample]) -> str:
    """In words."""
    found = [percentile([sample.latency for sample in samples], q) for q in (50, 95, 99)]
    return "p50 {:.2f}, p95 {:.2f}, p99 {:.2f} s".format(*found)
