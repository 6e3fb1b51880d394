"""What Prometheus reads of a real gateway, whose tiny classifiers compute in its process or in TorchServe: over gRPC and HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from robust_synthesis import imaging
from robust_synthesis.bundle import Reply
from robust_synthesis.errors import SynthesisError
from robust_synthesis.gateway.backends.base import Backend
from robust_synthesis.gateway.backends.engine import EngineBackend
from robust_synthesis.gateway.group import Plan
from robust_synthesis.gateway.metrics import Metrics
from robust_synthesis.gateway.running import embedded, running
from robust_synthesis.gateway.tickets import Ticket
from robust_synthesis.testing import mask, picture
from robust_synthesis.v1 import model_pb2, model_pb2_grpc, synthesis_pb2, synthesis_pb2_grpc, task_pb2
from robust_synthesis.worker.shelf import Places
from robust_synthesis.worker.torchserve import TorchServe

from . import promtool
from .injected import batches, injected

PHOTO = imaging.encode(picture(24, seed=3))
REGION = task_pb2.Region(mask=imaging.encode(mask(24)))
DESCENT = task_pb2.Descent(steps=6, seed=5)
SPECS: Mapping[str, tuple[str, Any]] = {
    "generate": ("Generate", task_pb2.GenerateSpec(target="circle", count=2)),
    "inpaint": ("Inpaint", task_pb2.InpaintSpec(image=PHOTO, region=REGION)),
    "translate": ("Translate", task_pb2.TranslateSpec(image=PHOTO, target="waves")),
    "super_resolve": ("SuperResolve", task_pb2.SuperResolveSpec(image=PHOTO, factor=2)),
    "sketch_to_image": ("SketchToImage", task_pb2.SketchToImageSpec(image=PHOTO, target="square")),
    "paint_features": ("PaintFeatures", task_pb2.PaintFeaturesSpec(image=PHOTO, region=REGION, unit=3)),
    "maximize_class": ("MaximizeClass", task_pb2.MaximizeClassSpec(image=PHOTO, target="stripes")),
}
LONG = synthesis_pb2.StreamSynthesisRequest(
    model="cifar10",
    task=task_pb2.TaskSpec(
        generate=task_pb2.GenerateSpec(target="circle", count=40, descent=task_pb2.Descent(steps=10_000))
    ),
)
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
        text: str = response.read().decode()
    return text


class Watched:
    """A gateway that is called and scraped."""

    def __init__(self, target: str, channel: grpc.aio.Channel, port: int) -> None:
        self.target = target
        self.channel = channel
        self.synthesis: Any = synthesis_pb2_grpc.SynthesisServiceStub(channel)
        self._port = port

    async def text(self) -> str:
        return await asyncio.to_thread(scrape, self._port)

    async def samples(self) -> Samples:
        families = text_string_to_metric_families(await self.text())
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for each in families
            for sample in each.samples
        }

    async def value(self, name: str, **labels: str) -> float | None:
        return (await self.samples()).get((name, frozenset(labels.items())))

    async def load(self) -> tuple[float | None, ...]:
        names = ("queue_depth", "jobs_in_flight", "offered_cost")
        samples = await self.samples()
        return tuple(samples[f"synthesis_{name}", frozenset()] for name in names)

    async def begun(self) -> Any:
        """A call whose first bundle has come back, while many of its pictures wait."""
        call = self.synthesis.StreamSynthesis(LONG, timeout=300)
        while not (await call.read()).HasField("progress"):
            pass
        return call

    async def idle(self) -> None:
        async with asyncio.timeout(10):
            while await self.load() != (0, 0, 0):
                await asyncio.sleep(0.05)


class Bundles(Metrics):
    """Knows, too, which bundles were under way when the first request ended, and what was sent afterwards."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.outstanding: list[Plan] = []
        self.at_the_end: tuple[Plan, ...] | None = None
        self.sent_later: list[Plan] = []
        self.begun: Callable[[], int] = lambda: 0
        """How many batches workers have begun; asked when the first request ends."""
        self.begun_then = 0

    def bundle_sent(self, plan: Plan) -> None:
        super().bundle_sent(plan)
        self.outstanding.append(plan)
        if self.at_the_end is not None:
            self.sent_later.append(plan)

    def bundle_returned(self, plan: Plan, reply: Reply) -> None:
        super().bundle_returned(plan, reply)
        self.outstanding.remove(plan)

    def request_finished(self, ticket: Ticket, error: SynthesisError | None) -> None:
        super().request_finished(ticket, error)
        if self.at_the_end is None:
            self.at_the_end, self.begun_then = tuple(self.outstanding), self.begun()


@contextlib.asynccontextmanager
async def watched(models: Path, port: int) -> AsyncIterator[Watched]:
    backend = embedded(models)
    async with scraped(backend, Metrics(backend), port) as here:
        yield here


@contextlib.asynccontextmanager
async def scraped(backend: Backend, metrics: Metrics, port: int) -> AsyncIterator[Watched]:
    stop = metrics.serve("127.0.0.1", port)
    try:
        async with (
            running(backend, observer=metrics) as gateway,
            grpc.aio.insecure_channel(gateway.target) as channel,
        ):
            yield Watched(gateway.target, channel, port)
    finally:
        stop()


def test_every_task_has_its_histogram_and_promtool_accepts_the_exposition(models: Path, unused_tcp_port: int) -> None:
    async def main() -> tuple[Samples, str]:
        async with watched(models, unused_tcp_port) as here:
            for method, spec in SPECS.values():
                spec.descent.CopyFrom(DESCENT)
                request = getattr(synthesis_pb2, f"{method}Request")(model="cifar10", spec=spec)
                await getattr(here.synthesis, method)(request, timeout=60)
            await here.idle()
            return await here.samples(), await here.text()

    samples, text = asyncio.run(main())
    for task, (method, _) in SPECS.items():
        done = frozenset({"task": task, "model": "cifar10", "outcome": "ok"}.items())
        assert samples["synthesis_task_duration_seconds_count", done] == 1
        assert samples["synthesis_task_duration_seconds_sum", done] > 0
        name = f"robust_synthesis.v1.SynthesisService/{method}"
        called = frozenset({"grpc_method": name, "grpc_code": "OK"}.items())
        assert samples["grpc_server_call_duration_seconds_count", called] == 1
    assert samples["synthesis_queue_wait_seconds_count", frozenset()] == len(SPECS)
    assert samples["synthesis_batch_size_count", frozenset()] >= len(SPECS)
    assert samples["synthesis_backend_up", frozenset({("backend", "inprocess")})] == 1
    try:
        tool = promtool.find()
    except promtool.Missing as error:
        pytest.skip(f"all but promtool's opinion: {error}")
    checked = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_gauges_return_to_zero_after_a_cancel(models: Path, unused_tcp_port: int) -> None:
    async def main() -> None:
        async with watched(models, unused_tcp_port) as here:
            call = await here.begun()
            queued, in_flight, offered = await here.load()
            assert (queued or 0) + (in_flight or 0) == 40
            assert (offered or 0) > 10_000
            call.cancel()
            await here.idle()
            labels = {"task": "generate", "model": "cifar10", "outcome": "cancelled"}
            assert await here.value("synthesis_task_duration_seconds_count", **labels) == 1
            labels = {"grpc_method": "robust_synthesis.v1.SynthesisService/StreamSynthesis", "grpc_code": "CANCELLED"}
            assert await here.value("grpc_server_call_duration_seconds_count", **labels) == 1

    asyncio.run(main())


VANISHING = """
import os, sys, grpc
from robust_synthesis.v1 import synthesis_pb2, synthesis_pb2_grpc
stub = synthesis_pb2_grpc.SynthesisServiceStub(grpc.insecure_channel(sys.argv[1]))
request = synthesis_pb2.StreamSynthesisRequest.FromString(sys.stdin.buffer.read())
for event in stub.StreamSynthesis(request, timeout=300):
    if event.HasField("progress"):
        os.kill(os.getpid(), 9)
"""


async def vanish(target: str) -> None:
    """A client that is killed when the first bundle of its call has come back."""
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", VANISHING, target, stdin=subprocess.PIPE)
    await client.communicate(LONG.SerializeToString())
    assert client.returncode == -signal.SIGKILL


def test_gauges_return_to_zero_after_a_client_is_killed(models: Path, unused_tcp_port: int) -> None:
    async def main() -> None:
        async with watched(models, unused_tcp_port) as here:
            await vanish(here.target)
            await here.idle()
            labels = {"task": "generate", "model": "cifar10", "outcome": "cancelled"}
            assert await here.value("synthesis_task_duration_seconds_count", **labels) == 1

    asyncio.run(main())


@pytest.mark.real
@pytest.mark.parametrize("leaving", ["cancels", "is killed"])
def test_torchserve_computes_nothing_beyond_the_bundles_outstanding_when_a_client(
    models: Path, unused_tcp_port: int, tmp_path: Path, leaving: str
) -> None:
    count = tmp_path / "count"

    async def main() -> tuple[Bundles, float | None]:
        backend = EngineBackend(TorchServe(Places(models), settings=injected(INJECT_COUNT=str(count))))
        bundles = Bundles(backend)
        bundles.begun = lambda: len(batches(count))
        async with scraped(backend, bundles, unused_tcp_port) as here:
            if leaving == "cancels":
                call = await here.begun()
                call.cancel()
            else:
                await vanish(here.target)
            await here.idle()
            await asyncio.sleep(2)  # in which more would be computed
            labels = {"task": "generate", "model": "cifar10", "outcome": "cancelled"}
            return bundles, await here.value("synthesis_task_duration_seconds_count", **labels)

    bundles, cancelled = asyncio.run(main())
    assert cancelled == 1
    assert bundles.at_the_end is not None
    assert bundles.sent_later == bundles.outstanding == []
    later = batches(count)[bundles.begun_then :]
    print(
        f"\n{len(bundles.at_the_end)} bundles outstanding; begun later: {later}, before: {batches(count)[: bundles.begun_then]}"
    )
    assert len(later) <= len(bundles.at_the_end) <= 2
    assert sum(k for _, k in later) <= sum(max(plan.steps) for plan in bundles.at_the_end)


def test_unknown_methods_share_a_label_and_bad_requests_their_status(models: Path, unused_tcp_port: int) -> None:
    async def main() -> None:
        async with watched(models, unused_tcp_port) as here:
            for number in range(5):
                with pytest.raises(grpc.aio.AioRpcError):
                    await here.channel.unary_unary(f"/robust_synthesis.v1.SynthesisService/Method{number}", None, None)(
                        b""
                    )
            with pytest.raises(grpc.aio.AioRpcError):
                await here.synthesis.Generate(synthesis_pb2.GenerateRequest())
            name = "grpc_server_call_duration_seconds_count"
            assert await here.value(name, grpc_method="other", grpc_code="UNIMPLEMENTED") == 5
            method = "robust_synthesis.v1.SynthesisService/Generate"
            assert await here.value(name, grpc_method=method, grpc_code="INVALID_ARGUMENT") == 1

    asyncio.run(main())


def test_the_command_serves_its_metrics(models: Path, unused_tcp_port_factory: Any) -> None:
    target, port = f"127.0.0.1:{unused_tcp_port_factory()}", unused_tcp_port_factory()
    command = [sys.executable, "-m", "robust_synthesis", "serve", "--models", str(models), "--listen", target]
    with subprocess.Popen([*command, "--metrics-port", str(port)], stderr=subprocess.PIPE, text=True) as process:
        try:
            with grpc.insecure_channel(target) as channel:
                grpc.channel_ready_future(channel).result(60)
                stub = model_pb2_grpc.ModelServiceStub(channel)
                stub.ListModels(model_pb2.ListModelsRequest(), timeout=10)
            text = scrape(port)
            taken = subprocess.run([*command, "--metrics-port", str(port)], capture_output=True, text=True, check=False)
        finally:
            process.terminate()
            process.communicate(timeout=30)
    assert 'grpc_method="robust_synthesis.v1.ModelService/ListModels"' in text
    assert "process_resident_memory_bytes" in text
    assert (process.returncode, taken.returncode) == (0, 2)
    assert f"metrics-port: cannot listen on 127.0.0.1 port {port}" in taken.stderr
