"""Half an hour at seven tenths of what a cluster can do, with callers of every kind: nothing grows, nothing is left behind.

SOAK_MINUTES makes it shorter, or longer. What is kept in deploy/proofs is of half an hour or more.
"""

from __future__ import annotations

import asyncio
import math
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from clients.loadgen.arrivals import arrivals
from clients.loadgen.drive import Drive, Sample
from clients.loadgen.mix import Work, sending
from clients.loadgen.report import percentiles, summary
from robust_synthesis.client.connection import Connection

from . import proofs
from .cluster import Cluster, simulated
from .processes import Pod, Size

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.usefixtures("possible")]
MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
WHOLE = 30.0
GATEWAYS, WORKERS = 2, 4
LOAD = 0.7
DELAY, STEPS, PHOTO = 0.03, 30, 64
MIX = {"generate": 2.0, "inpaint": 1.0, "translate": 1.0, "maximize_class": 1.0, "sketch_to_image": 1.0}
WAYS = {"unary": 6.0, "stream": 2.0, "edit": 0.5, "cancel": 0.75, "late": 0.75}
"""An edit is a session of two strokes, so that a request is one job on average, or a little less."""
EXPECTED = {
    "unary": {"OK"},
    "stream": {"OK"},
    "edit": {"OK"},
    "cancel": {"CANCELLED"},
    "late": {"DEADLINE_EXCEEDED", "OK"},
}
CALLERS = 48
"""Enough for bundles of six at each of the workers' two places."""
SATURATING = 60.0
EVERY = 10.0
"""Seconds between samples."""
WARM_UP = min(5.0, MINUTES / 4)
"""Minutes: gateways keep results for five, for callers who repeat themselves; allocators and pools of threads take less."""
SETTLED, LAST = 3.0, 3.0
"""Minutes that are compared: those after the warm-up, and those at the end."""
GROWTH = 1.05
STABLE = 1.25
"""The median of the last third's minutes' p99, of the first third's after the warm-up."""
SLACK = 2
"""Threads of gRPC, which starts and ends them as it likes."""
CONNECTIONS = 4
GRACE = 60.0
"""Of a gateway, which is the default: whoever has left a call open there shows by how long it takes to stop."""


@dataclass(frozen=True)
class Look:
    """At all processes, so many seconds after the start."""

    at: float
    sizes: dict[str, Size]
    open: float
    """Pictures that wait or are in flight."""


@dataclass
class Watch:
    """Looks from time to time while something is awaited."""

    pods: Sequence[Pod]
    begun: float = field(default_factory=time.monotonic)
    looks: list[Look] = field(default_factory=list)

    async def until(self, done: asyncio.Future[None]) -> None:
        while not done.done():
            self.looks.append(await asyncio.to_thread(self.look))
            await asyncio.wait({done}, timeout=EVERY)
        await done

    def look(self) -> Look:
        return Look(time.monotonic() - self.begun, {pod.name: pod.size for pod in self.pods}, unfinished(self.pods))


def unfinished(pods: Sequence[Pod]) -> float:
    """Jobs at gateways and bundles at workers."""
    gauges = ("synthesis_queue_depth", "synthesis_jobs_in_flight", "worker_bundles_outstanding")
    return sum(pod.metric(gauge) for pod in pods for gauge in gauges)


def settled(pods: Sequence[Pod], before: dict[str, Size]) -> dict[str, Size]:
    """As they are when what callers held has been given back, or after a while in which it was not."""
    end = time.monotonic() + 60
    while time.monotonic() < end and any(pod.size.files > before[pod.name].files for pod in pods):
        time.sleep(1)
    time.sleep(EVERY)
    return {pod.name: pod.size for pod in pods}


def ended(gateway: Pod) -> float:
    """Seconds that it takes to stop: it waits for calls that are open, as long as its grace."""
    begun = time.monotonic()
    assert gateway.stop() == 0
    return time.monotonic() - begun


def way(sample: Sample) -> str:
    return sample.task.partition(" (")[2].rstrip(")") or "unary"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, simulated(tmp_path, DELAY), every=5) as found:
        found.grow(gateways=GATEWAYS, workers=WORKERS)
        yield found


async def saturated(server: str) -> float:
    """Jobs a second with as many callers as help."""
    work = Work(MIX, steps=STEPS, photo=PHOTO)
    async with sending(Connection(server, attempts=1), work, connections=CONNECTIONS) as send:
        drive = Drive(send)
        await drive.closed(CALLERS, SATURATING)
    assert {sample.code for sample in drive.samples} == {"OK"}
    half = sum(SATURATING / 2 <= sample.ended < SATURATING for sample in drive.samples)
    return half / (SATURATING / 2)


async def soaked(server: str, rate: float, pods: Sequence[Pod]) -> tuple[list[Sample], list[Look]]:
    work = Work(MIX, steps=STEPS, photo=PHOTO, seed=1, ways=WAYS)
    async with sending(Connection(server, attempts=1), work, connections=CONNECTIONS) as send:
        drive, watch = Drive(send), Watch(pods)
        await watch.until(asyncio.ensure_future(drive.open(arrivals("poisson", rate, 60 * MINUTES))))
    return drive.samples, watch.looks


def test_half_an_hour_of_load_leaves_processes_as_it_found_them(running: Cluster) -> None:
    pods: Sequence[Pod] = [*running.gateways, *running.workers]
    capacity = asyncio.run(saturated(running.server))
    running.until(lambda: unfinished(pods) == 0)
    time.sleep(EVERY)
    before = {pod.name: pod.size for pod in pods}
    samples, looks = asyncio.run(soaked(running.server, LOAD * capacity, pods))
    running.until(lambda: unfinished(pods) == 0)
    after = settled(pods, before)

    stops = [ended(gateway) for gateway in running.gateways]
    growth = {
        name: memory(looks, name, MINUTES - LAST, MINUTES) / memory(looks, name, WARM_UP, WARM_UP + SETTLED)
        for name in before
    }
    tails = by_minute(samples)
    found = {
        "minutes": MINUTES,
        "capacity, jobs a second": round(capacity, 2),
        "requests": len(samples),
        "codes by way": {each: codes(samples, each) for each in WAYS},
        "measured": summary(samples, 60 * WARM_UP)["latency"],
        "memory at the end, of that after the warm-up": {name: round(each, 4) for name, each in growth.items()},
        "p99 of the last third's minutes, of the first third's": round(tail_ratio(tails), 3),
        "files before and after": {name: (before[name].files, after[name].files) for name in before},
        "threads before and after": {name: (before[name].threads, after[name].threads) for name in before},
        "seconds in which the gateways stopped": [round(each, 1) for each in stops],
        "MB before and after": {name: (before[name].resident >> 20, after[name].resident >> 20) for name in before},
    }
    print(f"\n{found}")
    found |= {
        "p50 by minute": [round(each["p50"], 3) for each in tails],
        "p99 by minute": [round(each["p99"], 3) for each in tails],
    }
    found["seconds"] = [round(look.at) for look in looks]
    found["MB"] = {name: [look.sizes[name].resident >> 20 for look in looks] for name in before}
    found["files"] = {name: [look.sizes[name].files for look in looks] for name in before}
    found["threads"] = {name: [look.sizes[name].threads for look in looks] for name in before}
    found["open"] = [look.open for look in looks]
    figure = drawn(found, looks)
    proofs.keep("soak", found, figure, running.folder)

    for each, expected in EXPECTED.items():
        assert set(codes(samples, each)) <= expected, each
    assert max(growth.values()) <= GROWTH
    for name, size in after.items():
        assert size.files <= before[name].files, name
        assert size.threads <= most_threads(looks, name) + SLACK, name
    assert tail_ratio(tails) <= STABLE
    assert max(stops) < GRACE / 2
    if MINUTES >= WHOLE:
        proofs.keep("soak", found, figure)


def memory(looks: Sequence[Look], name: str, begin: float, end: float) -> float:
    """Mean of a process, between two minutes."""
    return statistics.fmean(look.sizes[name].resident for look in looks if begin <= look.at / 60 <= end)


def most_threads(looks: Sequence[Look], name: str) -> int:
    """Of a process until it had settled: pools start threads as they need them, up to a number."""
    return max(look.sizes[name].threads for look in looks if look.at / 60 <= WARM_UP + SETTLED)


def codes(samples: Sequence[Sample], which: str) -> dict[str, int]:
    found = [sample.code for sample in samples if way(sample) == which]
    return {code: found.count(code) for code in sorted(set(found))}


def by_minute(samples: Sequence[Sample]) -> list[dict[str, float]]:
    """Latencies of whole jobs, from when they should have been sent."""
    whole = [sample for sample in samples if way(sample) in ("unary", "stream")]
    minutes = range(math.floor(MINUTES))
    return [
        percentiles(each.latency for each in whole if minute <= each.scheduled / 60 < minute + 1) for minute in minutes
    ]


def tail_ratio(tails: Sequence[dict[str, float]]) -> float:
    settled = [each["p99"] for each in tails[math.ceil(WARM_UP) :]]
    third = max(1, len(settled) // 3)
    return statistics.median(settled[-third:]) / statistics.median(settled[:third])


def drawn(found: dict[str, Any], looks: Sequence[Look]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained")
    sizes, others, latency = figure.subplots(3, 1, sharex=True)
    minutes = [look.at / 60 for look in looks]
    for name, values in found["MB"].items():
        sizes.plot(minutes, values, label=name)
    sizes.set(
        ylabel="resident, MB",
        ylim=(0, None),
        title=f"{MINUTES:g} minutes at {LOAD:.0%} of {found['capacity, jobs a second']} jobs/s",
    )
    sizes.legend(fontsize="x-small", ncols=3)
    for title in ("files", "threads"):
        others.plot(
            minutes,
            [sum(values[i] for values in found[title].values()) for i in range(len(looks))],
            label=f"{title}, of all",
        )
    others.plot(minutes, found["open"], label="pictures and bundles under way", linewidth=0.7)
    others.set(ylim=(0, None))
    others.legend(fontsize="x-small")
    for name in ("p50", "p99"):
        values = found[f"{name} by minute"]
        latency.step(range(len(values)), values, where="post", label=name)
    latency.set(xlabel="minutes", ylabel="seconds", ylim=(0, None))
    latency.legend(fontsize="x-small")
    return figure
