"""The agent's server and the gateway's side of it over real connections, with an engine that computes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from robust_synthesis.batch_sizes import FINE
from robust_synthesis.bundle import PROTOCOL, BundleError
from robust_synthesis.errors import InvalidInput
from robust_synthesis.gateway.backends.base import Worker, WorkerLost, WorkerUnavailable
from robust_synthesis.gateway.backends.engine import EngineBackend
from robust_synthesis.gateway.backends.remote import Credentials, Remote
from robust_synthesis.units import Units
from robust_synthesis.v1 import worker_pb2, worker_pb2_grpc
from robust_synthesis.wire import decode_reply
from robust_synthesis.worker.agent import SERVICE, Agent, Options, Servicer
from robust_synthesis.worker.metrics import Metrics
from robust_synthesis.worker.testing import VERSION, FakeEngine

Serving = health_pb2.HealthCheckResponse


class Running:
    """An agent, its engine, and a backend that knows it."""

    def __init__(self, agent: Agent, engine: FakeEngine, metrics: Metrics, backend: Remote) -> None:
        self.agent = agent
        self.engine = engine
        self.metrics = metrics
        self.backend = backend
        self.ended: asyncio.Task[None]

    @property
    def worker(self) -> Worker:
        (worker,) = self.backend.workers()
        return worker

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)

    async def up(self) -> Worker:
        await self.until(lambda: self.worker.up)
        return self.worker

    async def send(self, bundle: bytes = b"bundle", timeout: float = 20) -> bytes:
        return await self.worker.run(bundle, model="fake", version=VERSION, timeout=timeout)

    def count(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value("worker_bundles_total", {"outcome": outcome})


@contextlib.asynccontextmanager
async def running(
    options: Options, credentials: Credentials | None = None, engine: FakeEngine | None = None
) -> AsyncIterator[Running]:
    engine = engine or FakeEngine()
    metrics = Metrics(engine)
    agent = Agent(engine, options, metrics)
    task = asyncio.create_task(agent.run())
    while not agent.port and not task.done():
        await asyncio.sleep(0.01)
    if task.done():
        task.result()
    backend = Remote([f"127.0.0.1:{agent.port}"], credentials)
    await backend.start()
    everything = Running(agent, engine, metrics, backend)
    everything.ended = task
    try:
        yield everything
    finally:
        agent.stop()
        engine.open.set()
        await backend.close()
        await asyncio.wait_for(task, 30)


LOCAL = Options(listen="127.0.0.1:0")


def test_a_bundle_goes_through_and_the_worker_is_described() -> None:
    async def main() -> None:
        async with running(LOCAL) as here:
            worker = await here.up()
            (model,) = worker.models()
            assert (model.name, model.version, model.current, model.protocol) == ("fake", VERSION, True, PROTOCOL)
            assert model.step_seconds == {1: 0.01, 8: 0.05}
            assert model.batch_sizes == FINE
            assert model.card.classes == ("cat", "dog")
            reply = decode_reply(await here.send())
            assert (reply.version, reply.seconds) == (VERSION, 0.25)
            assert here.engine.started == [(b"bundle", 20.0)]
            assert here.count("ok") == 1
            assert here.metrics.registry.get_sample_value(
                "worker_step_seconds_sum", {"model": "fake", "batch_size": "8"}
            ) == pytest.approx(0.04)

    asyncio.run(main())


def test_a_catalogue_is_fetched_and_one_that_is_not_there_is_unavailable() -> None:
    async def main() -> None:
        async with running(LOCAL) as here:
            worker = await here.up()
            files = await worker.catalogue("fake", VERSION)
            assert files == await here.engine.catalogue("fake", VERSION)
            assert Units.from_json(files.units_json).find("ears", 10) == 3
            with pytest.raises(WorkerUnavailable, match="there is no fake other"):
                await worker.catalogue("fake", "other")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "meaning", "outcome"),
    [
        (WorkerLost("the worker process died."), WorkerLost, "lost"),
        (WorkerUnavailable("it starts."), WorkerUnavailable, "unavailable"),
        (BundleError("bundle: too large."), BundleError, "invalid"),
    ],
)
def test_what_the_engine_says_arrives_at_the_gateway(error: Exception, meaning: type[Exception], outcome: str) -> None:
    async def main() -> None:
        async with running(LOCAL) as here:
            await here.up()
            here.engine.error = error
            with pytest.raises(meaning, match=str(error)):
                await here.send()
            assert here.count(outcome) == 1
            here.engine.error = None
            await here.up()
            assert await here.send()

    asyncio.run(main())


def test_an_unknown_version_did_not_run() -> None:
    async def main() -> None:
        async with running(LOCAL) as here:
            worker = await here.up()
            with pytest.raises(WorkerUnavailable, match="there is no fake 77"):
                await worker.run(b"bundle", model="fake", version="77", timeout=5)
            assert (here.count("unknown"), here.engine.started, worker.up) == (1, [], True)

    asyncio.run(main())


def test_a_third_bundle_is_refused_at_once_also_where_a_caller_has_gone() -> None:
    async def main() -> None:
        async with running(LOCAL) as here:
            worker = await here.up()
            here.engine.open.clear()
            first, second = asyncio.create_task(here.send()), asyncio.create_task(here.send())
            await here.until(lambda: len(here.engine.started) == 2)
            with pytest.raises(WorkerUnavailable, match="busy"):
                await here.send()
            assert worker.up
            first.cancel()
            await asyncio.wait({first})
            with pytest.raises(WorkerUnavailable, match="busy"):
                await here.send()
            assert len(here.engine.started) == 2
            here.engine.open.set()
            await second
            await here.until(lambda: here.engine.finished == 2)
            assert await here.send()
            assert (here.count("busy"), here.count("ok")) == (2, 3)

    asyncio.run(main())


class Refusing:
    """A call's context, of which only the refusal matters."""

    async def abort(self, code: grpc.StatusCode, *_: object) -> None:
        raise RuntimeError(code.name)


def test_of_many_bundles_in_the_same_moment_all_but_two_are_refused() -> None:
    async def main() -> list[Any]:
        engine = FakeEngine()
        servicer = Servicer(engine, Metrics(engine), LOCAL)
        context: Any = Refusing()
        request = worker_pb2.RunRequest(model="fake", bundle=b"bundle")
        return await asyncio.gather(*(servicer.Run(request, context) for _ in range(8)), return_exceptions=True)

    answers = asyncio.run(main())
    assert [str(answer) for answer in answers[2:]] == ["RESOURCE_EXHAUSTED"] * 6
    assert all(answer.bundle for answer in answers[:2])


def test_health_follows_the_engine_and_the_gateway_follows_health() -> None:
    async def main() -> None:
        async with running(LOCAL) as here, grpc.aio.insecure_channel(f"127.0.0.1:{here.agent.port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            async def state(service: str) -> int:
                return int((await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)).status)

            await here.up()
            assert [await state(""), await state(SERVICE)] == [Serving.SERVING] * 2
            here.engine.set_up(False)
            with pytest.raises(WorkerUnavailable):
                await here.send()
            assert not here.worker.up
            assert [await state(""), await state(SERVICE)] == [Serving.NOT_SERVING] * 2
            assert here.worker.models()  # it still says what it will serve
            here.backend.changed.clear()
            here.engine.set_up(True)
            await here.up()
            assert here.backend.changed.is_set()

    asyncio.run(main())


class SlowToStart(FakeEngine):
    """Has one classifier, and loads another."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded = asyncio.Event()

    async def start(self) -> None:
        await self.loaded.wait()
        await super().start()


def test_a_worker_that_still_loads_classifiers_says_of_none_so_that_no_request_is_refused_for_those_that_are_missing() -> (
    None
):
    async def main() -> None:
        engine = SlowToStart()
        async with running(LOCAL, engine=engine) as here:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{here.agent.port}") as channel:
                stub = worker_pb2_grpc.WorkerServiceStub(channel)
                assert not (await stub.Describe(worker_pb2.DescribeRequest(), timeout=10)).models
            assert here.backend.workers()[0].models() == ()
            engine.loaded.set()
            await here.until(lambda: [model.name for model in here.worker.models()] == ["fake"])

    asyncio.run(main())


def test_a_stop_finishes_what_is_under_way_and_refuses_the_rest() -> None:
    async def main() -> None:
        async with running(LOCAL) as here:
            await here.up()
            here.engine.open.clear()
            under_way = asyncio.create_task(here.send())
            await here.until(lambda: len(here.engine.started) == 1)
            here.agent.stop()
            await here.until(lambda: here.agent._servicer.draining)
            with pytest.raises(WorkerUnavailable, match="stopping"):
                await here.send()
            here.engine.open.set()
            assert decode_reply(await under_way).version == VERSION
            await asyncio.wait_for(here.ended, 10)

    asyncio.run(main())


def test_a_connection_that_breaks_in_mid_call_loses_the_bundle_and_a_refused_one_does_not() -> None:
    async def main() -> None:
        async with running(Options(listen="127.0.0.1:0", drain_seconds=0)) as here:
            await here.up()
            here.engine.open.clear()
            under_way = asyncio.create_task(here.send())
            await here.until(lambda: len(here.engine.started) == 1)
            here.agent.stop()  # with no patience
            with pytest.raises(WorkerLost):
                await under_way
            here.engine.open.set()
            await asyncio.wait_for(here.ended, 10)
            with pytest.raises(WorkerUnavailable, match="cannot be reached"):
                await here.send()
            assert not here.worker.up

    asyncio.run(main())


@pytest.mark.parametrize(
    ("asked", "given"), [(0.0, 60.0), (0.1, 1.2), (7.0, 7.0), (float("nan"), 60.0), (-3.0, 60.0), (1e9, 300.0)]
)
def test_a_healthy_worker_is_not_killed_for_a_timeout_that_makes_no_sense(asked: float, given: float) -> None:
    async def main() -> None:
        async with running(LOCAL) as here, grpc.aio.insecure_channel(f"127.0.0.1:{here.agent.port}") as channel:
            request = worker_pb2.RunRequest(model="fake", bundle=b"bundle", timeout_seconds=asked)
            await worker_pb2_grpc.WorkerServiceStub(channel).Run(request, timeout=20)
            ((_, timeout),) = here.engine.started
            assert timeout == pytest.approx(given)

    asyncio.run(main())


def test_an_empty_request_is_refused() -> None:
    async def main() -> None:
        async with running(LOCAL) as here, grpc.aio.insecure_channel(f"127.0.0.1:{here.agent.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="must be given") as caught:
                await worker_pb2_grpc.WorkerServiceStub(channel).Run(worker_pb2.RunRequest(), timeout=20)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(main())


def test_a_bundle_above_the_limit_is_not_sent() -> None:
    async def main() -> None:
        async with running(Options(listen="127.0.0.1:0", max_bundle_bytes=1000)) as here:
            await here.up()
            with pytest.raises(BundleError, match="has 0 MiB; 127"):
                await here.send(b"x" * 1001)
            assert here.engine.started == []

    asyncio.run(main())


def test_reflection_names_the_service() -> None:
    async def main() -> None:
        async with running(LOCAL) as here, grpc.aio.insecure_channel(f"127.0.0.1:{here.agent.port}") as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
            async for answer in call:
                names = {service.name for service in answer.list_services_response.service}
                assert {SERVICE, "grpc.health.v1.Health"} <= names
                break

    asyncio.run(main())


class Authority:
    """A certificate authority, a server's and a client's certificate, and a key file."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        ca.cert_pem.write_to_path(self.ca)
        server = ca.issue_cert("127.0.0.1", "localhost")
        server.private_key_pem.write_to_path(self.key)
        server.cert_chain_pems[0].write_to_path(self.cert)
        self.keys = folder / "keys"
        self.keys.write_text(hashlib.sha256(b"open sesame").hexdigest() + " test\n")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def test_with_tls_and_keys_only_a_key_gets_through(authority: Authority) -> None:
    options = Options(listen="127.0.0.1:0", tls_cert=authority.cert, tls_key=authority.key, keys=authority.keys)

    async def main() -> None:
        good = Credentials(tls_ca=authority.ca, key="open sesame")
        async with running(options, good) as here:
            await here.up()
            assert await here.send()
            target = f"127.0.0.1:{here.agent.port}"
            secrets = good.channel()
            assert secrets is not None
            async with grpc.aio.secure_channel(target, secrets) as channel:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
                for metadata in ((), (("authorization", "Bearer guess"),)):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await worker_pb2_grpc.WorkerServiceStub(channel).Run(
                            worker_pb2.RunRequest(model="fake", bundle=b"b"), metadata=metadata, timeout=10
                        )
                    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert (here.count("unauthenticated"), here.count("ok")) == (2, 1)

    asyncio.run(main())


@pytest.mark.parametrize("key", [None, "guess"])
def test_a_gateway_without_the_key_finds_no_worker_up(
    authority: Authority, key: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    options = Options(listen="127.0.0.1:0", tls_cert=authority.cert, tls_key=authority.key, keys=authority.keys)

    async def main() -> None:
        async with running(options, Credentials(tls_ca=authority.ca, key=key)) as here:
            await here.until(lambda: "UNAUTHENTICATED" in caplog.text)
            with pytest.raises(WorkerUnavailable, match=r"authorization: (show the key|this key is not known)"):
                await here.send()
            assert not here.worker.up

    asyncio.run(main())


def test_with_a_client_authority_a_certificate_is_needed(authority: Authority) -> None:
    options = Options(listen="127.0.0.1:0", tls_cert=authority.cert, tls_key=authority.key, tls_ca=authority.ca)

    async def main() -> None:
        mutual = Credentials(tls_ca=authority.ca, tls_cert=authority.cert, tls_key=authority.key)
        async with running(options, mutual) as here:
            await here.up()
            assert await here.send()
            for wrong in (Credentials(tls_ca=authority.ca), Credentials()):
                other = Remote([f"127.0.0.1:{here.agent.port}"], wrong)
                await other.start()
                with pytest.raises(WorkerUnavailable, match="cannot be reached"):
                    await other.workers()[0].run(b"bundle", model="fake", version=None, timeout=5)
                await other.close()

    asyncio.run(main())


def test_a_gateway_shows_new_certificates_and_keys_without_a_restart_and_loses_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robust_synthesis.watched.INTERVAL", 0)
    monkeypatch.setattr("robust_synthesis.gateway.backends.remote._DESCRIBE_SECONDS", 0.05)
    own = tmp_path / "gateway"
    own.mkdir()
    shown = Credentials(own / "ca.pem", own / "cert.pem", own / "key.pem", key_file=own / "key")

    def accepting(version: str, listen: str) -> Options:
        """Show and demand those of a new authority; the gateway's own files are replaced by what it then needs."""
        folder = tmp_path / version
        folder.mkdir()
        authority = Authority(folder)
        authority.keys.write_text(hashlib.sha256(version.encode()).hexdigest() + " gateway\n")
        for file in (authority.ca, authority.cert, authority.key):
            (own / file.name).write_bytes(file.read_bytes())
        (own / "key").write_text(f"{version}\n")
        files: dict[str, Any] = {
            "tls_cert": authority.cert,
            "tls_key": authority.key,
            "tls_ca": authority.ca,
            "keys": authority.keys,
        }
        return Options(listen=listen, **files)

    async def main() -> None:
        async with running(accepting("first", "127.0.0.1:0"), shown) as here:
            await here.up()
            here.engine.open.clear()
            outstanding = asyncio.create_task(here.send())
            await here.until(lambda: len(here.engine.started) == 1)
            options = accepting("second", f"127.0.0.1:{here.agent.port}")
            await here.until(lambda: not here.worker.up)  # connected anew, and refused: the worker has not changed yet
            here.engine.open.set()
            assert await outstanding
            here.agent.stop()
            await here.ended
            engine = FakeEngine()
            second = Agent(engine, options, Metrics(engine))
            serving = asyncio.create_task(second.run())
            await here.up()
            assert await here.send()
            assert engine.started == [(b"bundle", 20.0)]
            second.stop()
            await serving

    asyncio.run(main())


def test_a_host_of_another_name_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    stranger = trustme.CA().issue_cert("elsewhere.example")
    stranger.private_key_pem.write_to_path(tmp_path / "key.pem")
    stranger.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    options = Options(listen="127.0.0.1:0", tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")

    async def main() -> None:
        async with running(options, Credentials(tls_ca=authority.ca)) as here:
            with pytest.raises(WorkerUnavailable, match="cannot be reached"):
                await here.send()

    asyncio.run(main())


def test_a_taken_port_is_said(unused_tcp_port: int) -> None:
    async def main() -> None:
        async with running(LOCAL) as here:
            engine = FakeEngine()
            with pytest.raises(InvalidInput, match=r"cannot listen on 127\.0\.0\.1:\d+; is the port taken"):
                await Agent(engine, Options(listen=f"127.0.0.1:{here.agent.port}"), Metrics(engine)).run()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"listen": "nowhere"}, "give HOST:PORT"),
        ({"listen": "127.0.0.1:99999"}, "give HOST:PORT"),
        ({"listen": "0.0.0.0:1"}, "--tls-cert and --tls-key, or --insecure"),
        ({"listen": "0.0.0.0:1", "tls_cert": Path("c"), "tls_key": Path("k")}, "--keys or --tls-ca"),
        ({"tls_cert": Path("c")}, "needs --tls-key"),
        ({"tls_ca": Path("c")}, "needs --tls-cert and"),
    ],
)
def test_what_would_be_open_or_makes_no_sense_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Options(**options)  # type: ignore[arg-type]


def test_a_key_that_is_not_the_certificates_is_refused(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path)
    options = Options(listen="127.0.0.1:0", tls_cert=authority.cert, tls_key=other.key)

    async def main() -> None:
        engine = FakeEngine()
        with pytest.raises(InvalidInput, match="are no PEM pair"):
            await Agent(engine, options, Metrics(engine)).run()

    asyncio.run(main())


def test_addresses_are_read_and_wrong_ones_refused() -> None:
    async def main() -> None:
        backend = Remote(["localhost:1", "[::1]:2", "127.0.0.2"])
        await backend.start()
        names = {worker.name for worker in backend.workers()}
        assert {"[::1]:2", "127.0.0.2:50061"} <= names
        assert len(names) == 3  # localhost counts once, though it may have an address of each family
        await backend.close()
        for wrong in ("host:", ":5", "host:0", "host:http"):
            with pytest.raises(InvalidInput, match="give HOST:PORT"):
                Remote([wrong])

    asyncio.run(main())


def test_workers_come_and_go_with_the_name_and_stay_while_it_cannot_be_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[list[str] | None] = [["10.0.0.1", "10.0.0.2"], None, ["10.0.0.2"]]

    async def addresses(host: str, port: int) -> list[str] | None:
        return answers[0]

    monkeypatch.setattr("robust_synthesis.gateway.backends.remote._addresses", addresses)

    async def main() -> None:
        backend = Remote(["workers:7"], resolve_seconds=3600)
        await backend.start()
        seen = []
        for _ in range(3):
            await backend._resolve()
            seen.append({worker.name for worker in backend.workers()})
            answers.pop(0) if len(answers) > 1 else None
        assert seen == [{"10.0.0.1:7", "10.0.0.2:7"}, {"10.0.0.1:7", "10.0.0.2:7"}, {"10.0.0.2:7"}]
        await backend.close()

    asyncio.run(main())


def test_an_engine_is_a_backend_of_one_worker() -> None:
    async def main() -> None:
        engine = FakeEngine()
        backend = EngineBackend(engine)
        await backend.start()
        (worker,) = backend.workers()
        assert worker.up
        assert backend.changed.is_set()
        assert decode_reply(await worker.run(b"b", model="fake", version=None, timeout=5)).version == VERSION
        await backend.close()
        assert not worker.up
        with pytest.raises(WorkerUnavailable):
            await worker.run(b"b", model="fake", version=None, timeout=5)

    asyncio.run(main())
