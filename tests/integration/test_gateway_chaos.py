"""A gateway process over a real TorchServe, with many callers, while its worker is killed and while it is told to stop itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from robust_synthesis import imaging, keys, specs
from robust_synthesis.client import AsyncClient
from robust_synthesis.client.results import Picture, Result
from robust_synthesis.testing import CLASSES, mask, picture, tiny_card, tiny_model_folder
from robust_synthesis.v1 import synthesis_pb2, synthesis_pb2_grpc, task_pb2

pytestmark = pytest.mark.real
SECONDS = 300
"""For one test, on a machine that is busy otherwise."""
GRACE = 60
PHOTO, MASK = imaging.encode(picture(seed=3)), imaging.encode(mask())


class Server:
    """`robust-synthesis serve --backend torchserve`."""

    def __init__(self, folder: Path, ports: tuple[int, int], *options: str) -> None:
        self.target, self._metrics = f"127.0.0.1:{ports[0]}", ports[1]
        self.log = folder / "log"
        command = [sys.executable, "-m", "robust_synthesis", "serve", "--backend", "torchserve", "--device", "cpu"]
        command += ["--models", str(folder / "models"), "--listen", self.target, "--metrics-port", str(ports[1])]
        command += ["--log-format", "json", "--grace", str(GRACE), *options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stderr=log)

    def worker(self) -> int | None:
        """The process that computes."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(part.endswith("model_service_worker.py") for part in child.cmdline()):
                    return child.pid
        return None

    async def kill_worker(self) -> None:
        """With SIGKILL; returns when another process is in its place."""
        pid = self.worker()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while self.worker() in (None, pid):
            await asyncio.sleep(0.02)

    def sums(self) -> Counter[str]:
        """Its metrics by name, over all labels, with the value of `outcome` or `reason` behind the name."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/metrics", timeout=30) as response:
            families = text_string_to_metric_families(response.read().decode())
        found: Counter[str] = Counter()
        for sample in (sample for family in families for sample in family.samples):
            kind = sample.labels.get("outcome") or sample.labels.get("reason")
            found[f"{sample.name} {kind}" if kind else sample.name] += int(sample.value)
        return found

    def calls(self) -> list[Mapping[str, Any]]:
        """What the log says of calls."""
        lines = map(json.loads, self.log.read_text().splitlines())
        return [line for line in lines if "code" in line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chaos")
    architecture = {"kind": "resnet", "block": "basic", "depths": [1, 1], "width": 8, "stem": "small"}
    tiny_model_folder(folder / "models" / "tiny", tiny_card(architecture=architecture))
    return folder


@pytest.fixture
def serve(folder: Path, unused_tcp_port_factory: Any) -> Iterator[Any]:
    servers: list[Server] = []

    def start(*options: str) -> Server:
        servers.append(Server(folder, (unused_tcp_port_factory(), unused_tcp_port_factory()), *options))
        with grpc.insecure_channel(servers[-1].target) as channel:
            grpc.channel_ready_future(channel).result(120)
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


REQUESTS = 200
KINDS = 56
"""Of requests: every task for every class, exact and not."""
STEPS = 12
CALLERS = 5
EACH = 8
"""Requests that a caller has open at a time."""


def order(number: int) -> tuple[specs.Spec, Mapping[str, Any]]:
    kind = number % KINDS
    target = CLASSES[kind // 14]
    own: dict[str, Any] = {"target": target, "seed": kind, "steps": STEPS, "exact": kind % 2 == 0}
    orders: list[tuple[specs.Spec, Mapping[str, Any]]] = [
        (specs.Generate(count=1 + kind % 3, **own), {}),
        (specs.Inpaint(**own), {"image": PHOTO, "mask": MASK}),
        (specs.Translate(**own), {"image": PHOTO}),
        (specs.SuperResolve(factor=2, **own), {"image": PHOTO, "size": 24}),
        (specs.SketchToImage(**own), {"image": PHOTO}),
        (specs.PaintFeatures(**own), {"image": PHOTO, "box": (2, 2, 7, 7), "paste_back": True}),
        (specs.MaximizeClass(random_start=True, **own), {"image": PHOTO}),
    ]
    return orders[kind % len(orders)]


def files(result: Result) -> list[bytes]:
    return [made.file for made in result.pictures if isinstance(made, Picture)]


async def ask(client: AsyncClient, number: int) -> Result:
    """Every third request as a stream."""
    spec, options = order(number)
    if number % 3:
        return await client.make(spec, timeout=SECONDS, **options)
    events = [event async for event in client.stream.make(spec, timeout=SECONDS, **options)]
    assert isinstance(events[-1], Result)
    return events[-1]


@contextlib.asynccontextmanager
async def callers(server: Server, shown: list[str]) -> AsyncIterator[list[AsyncClient]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(AsyncClient(server.target, key=key)) for key in shown]


def test_two_hundred_requests_survive_a_worker_that_is_killed_again_and_again(serve: Any, folder: Path) -> None:
    shown = [keys.new_key() for _ in range(CALLERS)]
    for number, key in enumerate(shown):
        keys.append(folder / "keys", key, keys.Key(f"caller {number}"))
    server: Server = serve("--keys", str(folder / "keys"))
    exact = [kind for kind in range(KINDS) if order(kind)[0].exact]
    results: dict[int, Result] = {}
    kills = 0

    async def calls_of(client: AsyncClient, numbers: Iterator[int]) -> None:
        for number in numbers:
            results[number] = await ask(client, number)

    async def kill_again_and_again() -> None:
        """2 s or 40 results after the first result since the last time."""
        nonlocal kills
        while True:
            before = len(results)
            while len(results) == before:
                await asyncio.sleep(0.02)
            then = time.monotonic() + 2
            while len(results) < before + 40 and time.monotonic() < then:
                await asyncio.sleep(0.02)
            await server.kill_worker()
            kills += 1

    async def scenario() -> tuple[list[Result], float]:
        async with asyncio.timeout(SECONDS), callers(server, shown) as clients:
            calm = await asyncio.gather(*(ask(clients[0], kind) for kind in exact))
            started, numbers = time.monotonic(), iter(range(REQUESTS))
            killing = asyncio.create_task(kill_again_and_again())
            await asyncio.gather(*(calls_of(client, numbers) for client in clients for _ in range(EACH)))
            seconds = time.monotonic() - started
            assert killing.cancel(), killing.exception()
            return calm, seconds

    calm, seconds = asyncio.run(scenario())
    undisturbed = {kind: files(result) for kind, result in zip(exact, calm, strict=True)}
    assert set(results) == set(range(REQUESTS))
    compared = 0
    for number, result in results.items():
        spec, kind = order(number)[0], number % KINDS
        assert (result.task, len(files(result))) == (spec.task, spec.pictures)
        assert all((made.seed, made.steps) == (kind, STEPS) for made in result.pictures)
        assert all(len(made.losses) == STEPS + 1 for made in result.pictures)
        if kind in undisturbed:
            assert files(result) == undisturbed[kind]
            compared += 1
    assert compared >= REQUESTS / 2
    assert len({file for made in undisturbed.values() for file in made}) == sum(map(len, undisturbed.values()))
    assert kills >= 3
    sums = server.sums()
    assert sums["synthesis_chunk_retries_total lost"] >= 3
    ended = {name: count for name, count in sums.items() if name.startswith("synthesis_task_duration_seconds_count")}
    assert ended == {"synthesis_task_duration_seconds_count ok": REQUESTS + len(exact)}
    assert (sums["synthesis_queue_depth"], sums["synthesis_jobs_in_flight"], sums["synthesis_offered_cost"]) == (
        0,
        0,
        0,
    )
    retries = [result.timings.retries for result in results.values()]
    print(
        f"\n{REQUESTS} results in {seconds:.1f} s, {kills} kills, "
        f"{sums['synthesis_chunk_retries_total lost']} bundles lost, {sum(map(bool, retries))} requests retried; "
        f"{compared} exact ones equal to the bit; slowest {max(result.seconds for result in results.values()):.1f} s"
    )


CLIENTS = 24
LONG = 400
"""Steps, so that some seconds of work are there when the signal comes."""


class Crowd:
    """Clients of a connection each, which ask again and again until they are refused."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.accepted = 0
        """Calls of which the gateway has sent anything."""
        self.finished = 0
        """Calls with their result."""
        self.lost: list[str] = []
        self.refused: Counter[str] = Counter()
        """By what the gateway says."""

    async def run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(CLIENTS)))

    async def _client(self, number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(self._target, options=options) as channel:
            stub: Any = synthesis_pb2_grpc.SynthesisServiceStub(channel)
            descent = task_pb2.Descent(steps=LONG, seed=number)
            task = task_pb2.TaskSpec(generate=task_pb2.GenerateSpec(target="circle", descent=descent))
            while await self._call(stub, synthesis_pb2.StreamSynthesisRequest(task=task)):
                pass

    async def _call(self, stub: Any, request: synthesis_pb2.StreamSynthesisRequest) -> bool:
        last = None
        try:
            async for event in stub.StreamSynthesis(request, timeout=SECONDS):
                self.accepted += last is None
                last = event
        except grpc.aio.AioRpcError as error:
            if last is not None:
                self.lost.append(f"{error.code()}: {error.details()}")
            self.refused[f"{error.code().name}: {error.details()}"] += 1
            return False
        if last is None or len(last.result.pictures[0].losses) != LONG + 1:
            self.lost.append(f"ended with {last}")
        self.finished += 1
        return True


@pytest.mark.parametrize("harm", ["nothing else happens", "its worker is killed, too"])
def test_a_gateway_that_is_told_to_stop_under_load_gives_every_accepted_call_its_result(serve: Any, harm: str) -> None:
    server: Server = serve()
    crowd = Crowd(server.target)

    async def scenario() -> tuple[int, float]:
        async with asyncio.timeout(SECONDS):
            running = asyncio.create_task(crowd.run())
            while crowd.accepted < CLIENTS + 8 or crowd.accepted - crowd.finished < CLIENTS / 2:
                await asyncio.sleep(0.02)
            under_way, stopped = crowd.accepted - crowd.finished, time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            if harm == "its worker is killed, too":
                await asyncio.sleep(0.3)
                await server.kill_worker()
            await running
            assert await asyncio.to_thread(server.process.wait, GRACE) == 0
            return under_way, time.monotonic() - stopped

    under_way, seconds = asyncio.run(scenario())
    print(f"\n{under_way} calls under way at the signal, gone {seconds:.1f} s later; refused: {dict(crowd.refused)}")
    assert crowd.lost == []
    assert crowd.accepted == crowd.finished
    assert seconds < GRACE
    assert crowd.refused.total() == CLIENTS
    assert all(refusal.startswith("UNAVAILABLE: ") for refusal in crowd.refused)
    codes = Counter(call["code"] for call in server.calls())
    assert codes["OK"] == crowd.finished
    assert set(codes) == {"OK", "UNAVAILABLE"}
    assert "Traceback" not in server.log.read_text()
