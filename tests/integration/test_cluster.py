"""A cluster of real processes under load, while workers come, crash and leave, and while a gateway crashes and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from robust_synthesis import imaging, specs
from robust_synthesis.client import AsyncClient
from robust_synthesis.client.errors import Unavailable
from robust_synthesis.client.results import Picture, Result
from robust_synthesis.testing import mask, picture

from . import cluster, proofs
from .cluster import Cluster, Compute, shipped, simulated

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.usefixtures("possible")]
JOBS, KINDS, CALLERS = 200, 40, 40
STEPS = 80
EXACT = 2
"""Every second job."""
SECONDS = 600
PHOTO, MASK = imaging.encode(picture(seed=3)), imaging.encode(mask())
KEDA = cluster.trigger()


CLASSES = {"simulated": ("circle", "square", "waves"), "torchserve": ("dog", "ship", "horse")}


def compute(name: str, folder: Path) -> Compute:
    return simulated(folder, 0.04) if name == "simulated" else shipped("cifar10")


def order(number: int, classes: tuple[str, ...]) -> tuple[specs.Spec, Mapping[str, Any]]:
    kind = number % KINDS
    own: dict[str, Any] = {"target": classes[kind % 3], "seed": kind, "steps": STEPS, "exact": kind % EXACT == 0}
    orders: list[tuple[specs.Spec, Mapping[str, Any]]] = [
        (specs.Generate(**own), {}),
        (specs.Inpaint(**own), {"image": PHOTO, "mask": MASK}),
        (specs.Translate(**own), {"image": PHOTO}),
        (specs.MaximizeClass(random_start=True, **own), {"image": PHOTO}),
        (specs.SketchToImage(**own), {"image": PHOTO}),
    ]
    return orders[kind // EXACT % len(orders)]


def files(result: Result) -> list[bytes]:
    return [made.file for made in result.pictures if isinstance(made, Picture)]


class Jobs:
    """Two hundred, of which every third is a stream, and what became of them."""

    def __init__(self, server: str, classes: tuple[str, ...]) -> None:
        self._server = server
        self._classes = classes
        self.results: dict[int, Result] = {}
        self.ended: list[float] = []
        """Unix times."""
        self.streams_again: list[int] = []
        """Those whose gateway was gone before their result."""

    async def undisturbed(self) -> dict[int, list[bytes]]:
        """Files by kind, of those that are exact."""
        kinds = range(0, KINDS, EXACT)
        async with AsyncClient(self._server, timeout=SECONDS) as client:
            found = await asyncio.gather(*(self._ask(client, kind) for kind in kinds))
        return {kind: files(result) for kind, result in zip(kinds, found, strict=True)}

    async def run(self) -> None:
        numbers = iter(range(JOBS))
        async with AsyncClient(self._server, timeout=SECONDS) as client, asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._calls(client, numbers))

    async def _calls(self, client: AsyncClient, numbers: Iterator[int]) -> None:
        for number in numbers:
            self.results[number] = await self._ask(client, number)
            self.ended.append(time.time())

    async def _ask(self, client: AsyncClient, number: int) -> Result:
        """The client tries calls again by itself, but no stream of which it has had a part."""
        spec, options = order(number, self._classes)
        while True:
            if number % 3:
                return await client.make(spec, **options)
            with contextlib.suppress(Unavailable):
                return await client.stream.make(spec, **options).result()
            self.streams_again.append(number)


class Harm:
    """Done to a cluster one after the other, each when the one before has had its effect."""

    def __init__(self, cluster: Cluster, jobs: Jobs) -> None:
        self._cluster = cluster
        self._jobs = jobs
        self.events: dict[str, float] = {}
        """Unix times."""
        self.lost = 0
        """Requests that the gateway had when it was killed."""

    async def run(self) -> None:
        await self._more(15)
        for what in (self._add_workers, self._kill_worker, self._drain_worker, self._restart_gateway):
            await asyncio.to_thread(what)
            assert len(self._jobs.results) < JOBS - CALLERS / 2, "too few jobs for all harm"
            await self._more(15)

    async def _more(self, results: int) -> None:
        aim = len(self._jobs.results) + results
        while len(self._jobs.results) < aim:
            await asyncio.sleep(0.1)

    def _add_workers(self) -> None:
        self._say("two workers are added")
        self._cluster.grow(gateways=2, workers=6)
        added = self._cluster.workers[4:]
        self._cluster.until(lambda: all(worker.metric("worker_step_seconds_count") for worker in added))
        self._say("both have computed")

    def _kill_worker(self) -> None:
        self._say("a worker is killed")
        worker = self._cluster.workers[0]
        worker.kill()
        self._cluster.until(lambda: self._cluster.connections == 2 * (len(self._cluster.workers) - 1))
        self._cluster.forget(worker)

    def _drain_worker(self) -> None:
        self._say("another is told to stop")
        worker = self._cluster.workers[1]
        assert worker.stop() == 0
        self._cluster.forget(worker)

    def _restart_gateway(self) -> None:
        self._say("a gateway is killed and started")
        gateway = self._cluster.gateways[0]
        self.lost = int(gateway.metric("synthesis_queue_depth") + gateway.metric("synthesis_jobs_in_flight"))
        gateway.kill()
        gateway.start()
        self._cluster.until(lambda: _answers(lambda: gateway.metric("synthesis_task_duration_seconds_count") > 0))
        self._say("it has results")

    def _say(self, what: str) -> None:
        self.events[what] = time.time()


def _answers(condition: Callable[[], bool]) -> bool:
    with contextlib.suppress(OSError):
        return condition()
    return False


@pytest.mark.parametrize("name", CLASSES)
def test_no_job_is_lost_and_no_exact_picture_changes_whatever_comes_and_goes(tmp_path: Path, name: str) -> None:
    with Cluster(tmp_path, compute(name, tmp_path)) as running:
        running.grow(gateways=2, workers=4)
        jobs, keda = Jobs(running.server, CLASSES[name]), KEDA["query"]
        harm = Harm(running, jobs)
        undisturbed = asyncio.run(jobs.undisturbed())
        running.until(lambda: running.prometheus.value(keda) == 0)

        async def scenario() -> None:
            async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
                group.create_task(jobs.run())
                group.create_task(harm.run())

        begun = time.time()
        asyncio.run(scenario())
        ended = time.time()
        running.until(lambda: running.prometheus.value(keda) == 0)
        assert running.connections == 2 * (len(running.workers) - 2)
        time.sleep(3)
        for gateway in running.gateways:
            gateway.kill()
        running.until(lambda: running.prometheus.value(keda) is None)
        gone = time.time()
        shown = {
            "offered": running.prometheus.series(keda, begun - 5, gone + 2),
            "workers": running.prometheus.series("sum(worker_up)", begun - 5, gone + 2),
            "gateways": running.prometheus.series('sum(up{job="gateway"} == 1)', begun - 5, gone + 2),
        }
    same = sum(files(result) == undisturbed[number % KINDS] for number, result in exact_ones(jobs.results))
    assert set(jobs.results) == set(range(JOBS))
    assert same == JOBS // EXACT
    distinct = {file for made in undisturbed.values() for file in made}
    assert len(distinct) >= len(undisturbed) / 2  # not all of them depend on the seed
    assert harm.lost > 0
    assert jobs.streams_again
    found = {
        "jobs": JOBS,
        "seconds": round(ended - begun, 1),
        "exact ones, all with the bits of the undisturbed run": same,
        "requests that the killed gateway had": harm.lost,
        "of these, streams that the caller began again": len(jobs.streams_again),
        "bundles sent again by gateways": sum(result.timings.retries for result in jobs.results.values()),
        "slowest job, seconds": round(max(result.seconds for result in jobs.results.values()), 1),
        "most offered": max(shown["offered"].values()),
        "workers that KEDA would want for it": math.ceil(max(shown["offered"].values()) / float(KEDA["threshold"])),
        "events": {what: round(at - begun, 1) for what, at in harm.events.items()}
        | {"gateways gone": round(gone - begun, 1)},
    }
    print(f"\n{found}")
    found["series"] = {title: proofs.series(values, begun) for title, values in shown.items()}
    proofs.keep(f"cluster-{name}", found, drawn(name, found, [at - begun for at in jobs.ended]))


def exact_ones(results: Mapping[int, Result]) -> Iterator[tuple[int, Result]]:
    return ((number, result) for number, result in results.items() if number % EXACT == 0)


def drawn(name: str, found: Mapping[str, Any], ended: list[float]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    offered, workers, done = figure.subplots(3, 1, sharex=True)
    shown = found["series"]
    offered.step(*shown["offered"].values(), where="post")
    offered.set(ylabel="image-steps", title=f"{KEDA['query']}, {name}", ylim=(0, None))
    for title in ("workers", "gateways"):
        workers.step(*shown[title].values(), where="post", label=f"{title} that Prometheus finds up")
    workers.set(ylim=(0, None))
    workers.legend(loc="lower left", fontsize="small")
    done.plot(sorted(ended), range(1, len(ended) + 1))
    done.set(ylabel="jobs done", ylim=(0, None))
    for number, at in enumerate(found["events"].values(), 1):
        for axes in (offered, workers, done):
            axes.axvline(at, color="0.6", linewidth=0.8, linestyle=":")
        done.annotate(str(number), (at, 1), xycoords=("data", "axes fraction"), va="top", ha="center", fontsize="small")
    said = [f"{number} {what}" for number, what in enumerate(found["events"], 1)]
    done.set_xlabel("seconds: " + ", ".join(said[:4]) + ",\n" + ", ".join(said[4:]), fontsize="small")
    return figure
