"""The port for probes of a worker and of a gateway: health without TLS or key, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from robust_synthesis import probes
from robust_synthesis.errors import InvalidInput
from robust_synthesis.gateway.running import running
from robust_synthesis.gateway.server import Options as GatewayOptions
from robust_synthesis.gateway.testing import FakeBackend, FakeWorker
from robust_synthesis.v1 import worker_pb2, worker_pb2_grpc
from robust_synthesis.worker.agent import SERVICE, Agent, Options
from robust_synthesis.worker.metrics import Metrics
from robust_synthesis.worker.testing import FakeEngine


async def says(port: int, service: str = "") -> int:
    """The exit code that a container's health check would have."""
    return await asyncio.to_thread(probes.main, [str(port), service] if service else [str(port)])


@contextlib.asynccontextmanager
async def agent(engine: FakeEngine, port: int, **options: Any) -> AsyncIterator[Agent]:
    worker = Agent(engine, Options(listen="127.0.0.1:0", health_port=port, **options), Metrics(engine))
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        while await says(port, probes.LIVE) and not task.done():
            await asyncio.sleep(0.01)
    try:
        yield worker
    finally:
        worker.stop()
        await asyncio.wait_for(task, 30)


@pytest.mark.asyncio
async def test_a_worker_that_cannot_compute_is_alive_and_does_not_serve(
    unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine()
    async with agent(engine, unused_tcp_port):
        assert await says(unused_tcp_port, SERVICE) == 0
        engine.set_up(False)
        capsys.readouterr()
        while await says(unused_tcp_port, SERVICE) == 0:
            await asyncio.sleep(0.01)
        assert capsys.readouterr().out.splitlines()[-1] == "NOT_SERVING"
        assert await says(unused_tcp_port, probes.LIVE) == 0
        assert await says(unused_tcp_port, "nobody") == 1
        assert capsys.readouterr().out.splitlines()[-1] == "NOT_FOUND"
    assert await says(unused_tcp_port) == 1


@pytest.mark.asyncio
async def test_beside_tls_the_port_has_health_in_plaintext_and_no_service(unused_tcp_port: int, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    both = tmp_path / "both.pem"
    async with agent(FakeEngine(), unused_tcp_port, tls_cert=both, tls_key=both, tls_ca=tmp_path / "ca.pem") as worker:
        assert await says(worker.port) == 1
        assert await says(unused_tcp_port) == 0
        async with grpc.aio.insecure_channel(f"127.0.0.1:{unused_tcp_port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await worker_pb2_grpc.WorkerServiceStub(channel).Describe(worker_pb2.DescribeRequest())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.asyncio
async def test_a_gateway_serves_on_its_port_for_probes_until_it_stops(unused_tcp_port: int) -> None:
    async with running(FakeBackend([FakeWorker()]), GatewayOptions(health_port=unused_tcp_port)) as gateway:
        for service in ("", "robust_synthesis.v1.SynthesisService", probes.LIVE):
            assert await says(unused_tcp_port, service) == 0
        with pytest.raises(InvalidInput, match="cannot listen"):
            await probes.listen(gateway._health, "127.0.0.1", unused_tcp_port)
    assert await says(unused_tcp_port) == 1
