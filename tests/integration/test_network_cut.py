"""A worker behind a link that breaks in the middle of jobs, and is mended: nothing is lost, and the worker is used again.

The worker lives in a network namespace, at the other end of a pair of virtual interfaces. Nobody tells the gateway that the link
is down: packets vanish.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from robust_synthesis import specs
from robust_synthesis.client import AsyncClient
from robust_synthesis.client.results import Picture, Result
from robust_synthesis.testing import CLASSES, tiny_card, tiny_model_folder

from .processes import SECONDS, Pod, delayed, free_port

pytestmark = [pytest.mark.real, pytest.mark.slow]
CUT = 10.0
JOBS, STEPS = 24, 60
"""Of which every second is exact. One worker needs half a minute for all."""
DELAY = 0.02
BUNDLES = "worker_compute_seconds_count"


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())


class Link:
    """Between this machine and a network namespace."""

    def __init__(self) -> None:
        own = os.getpid() % 250
        self.namespace, self._here, self._there = f"rs-{own}", f"rsa{own}", f"rsb{own}"
        self.here, self.there = f"10.213.{own}.1", f"10.213.{own}.2"
        ip("netns", "add", self.namespace)
        try:
            ip("link", "add", self._here, "type", "veth", "peer", "name", self._there, "netns", self.namespace)
            ip("addr", "add", f"{self.here}/30", "dev", self._here)
            ip("-n", self.namespace, "addr", "add", f"{self.there}/30", "dev", self._there)
            ip("link", "set", self._here, "up")
            for name in ("lo", self._there):
                ip("-n", self.namespace, "link", "set", name, "up")
        except OSError:
            self.close()
            raise

    def cut(self) -> None:
        """Whatever arrives at the worker's end is dropped, and so is what it sends: on this side nothing has changed."""
        ip("-n", self.namespace, "link", "set", self._there, "down")

    def heal(self) -> None:
        ip("-n", self.namespace, "link", "set", self._there, "up")

    def close(self) -> None:
        ip("netns", "del", self.namespace)


@pytest.fixture
def link() -> Iterator[Link]:
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs Linux, root and the program ip")
    try:
        found = Link()
    except OSError as error:
        pytest.skip(f"network namespaces cannot be used here: {error}")
    yield found
    found.close()


class Site:
    """A gateway here, a worker beyond the link, and perhaps another one here. All end with the `with`."""

    def __init__(self, link: Link, folder: Path, near: int) -> None:
        options = ("worker", "--engine", "inprocess", "--device", "cpu", "--model", folder / "tiny")
        own: Any = {"environment": delayed(DELAY)}
        beyond = ("ip", "netns", "exec", link.namespace)
        self.far = Pod("far", folder, link.there, _ports(), *options, prefix=beyond, **own)
        self.workers = [self.far, *(Pod("near", folder, "127.0.0.1", _ports(), *options, **own) for _ in range(near))]
        workers = ",".join(worker.target for worker in self.workers)
        self.gateway = Pod(
            "gateway", folder, "127.0.0.1", _ports(), "serve", "--workers", workers, "--queue-seconds", 300
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in (self.gateway, *self.workers):
            pod.ask_to_stop()
        for pod in (self.gateway, *self.workers):
            pod.end()

    def ready(self) -> bool:
        try:
            return self.gateway.metric("synthesis_backend_up") == len(self.workers)
        except OSError:
            return False

    def reaches(self, pod: Pod) -> bool:
        host, _, port = pod.target.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            return False
        return True


class Jobs:
    def __init__(self, server: str) -> None:
        self._server = server
        self.results: dict[int, Result] = {}

    async def run(self) -> None:
        async with AsyncClient(self._server, timeout=SECONDS, attempts=1) as client:
            await asyncio.gather(*(self._ask(client, number) for number in range(JOBS)))

    async def _ask(self, client: AsyncClient, number: int) -> None:
        spec = specs.Generate(target=CLASSES[number % 4], seed=number, steps=STEPS, exact=number % 2 == 0)
        self.results[number] = await client.make(spec)

    @property
    def exact(self) -> list[bytes]:
        made = [self.results[number].pictures[0] for number in range(0, JOBS, 2)]
        return [each.file for each in made if isinstance(each, Picture)]


@pytest.mark.parametrize("near", [0, 1], ids=["alone", "with another worker"])
def test_a_worker_that_is_cut_off_for_ten_seconds_loses_nothing_and_is_used_again(
    link: Link, tmp_path: Path, near: int
) -> None:
    tiny_model_folder(tmp_path / "tiny", tiny_card())
    with Site(link, tmp_path, near) as site:
        until(site.ready)
        calm, jobs = Jobs(site.gateway.target), Jobs(site.gateway.target)
        asyncio.run(calm.run())
        before = site.far.metric(BUNDLES)
        seen: dict[str, float] = {}

        async def harm() -> None:
            while await asyncio.to_thread(site.far.metric, BUNDLES) < before + 3:
                await asyncio.sleep(0.1)
            link.cut()
            cut = time.monotonic()
            assert not await asyncio.to_thread(site.reaches, site.far)
            await asyncio.sleep(CUT - (time.monotonic() - cut))
            seen["unfinished when the link was mended"] = JOBS - len(jobs.results)
            link.heal()
            healed = time.monotonic()
            bundles = await asyncio.to_thread(site.far.metric, BUNDLES)
            while await asyncio.to_thread(site.far.metric, BUNDLES) < bundles + 2:
                await asyncio.sleep(0.1)
            seen["seconds until it had computed again"] = round(time.monotonic() - healed, 1)

        async def scenario() -> None:
            async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
                group.create_task(jobs.run())
                group.create_task(harm())

        asyncio.run(scenario())
        seen["bundles sent again"] = int(site.gateway.metric("synthesis_chunk_retries_total"))
    print(f"\n{seen}")
    assert len(jobs.results) == JOBS
    assert jobs.exact == calm.exact
    assert len(set(jobs.exact)) == JOBS / 2
    assert seen["unfinished when the link was mended"] > 0


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def _ports() -> tuple[int, int]:
    return free_port(), free_port()
