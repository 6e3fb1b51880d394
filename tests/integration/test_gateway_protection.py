"""What a gateway does to protect itself and its callers, over real gRPC, with workers that compute next to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image

from robust_synthesis.gateway.assembly import gateway_of
from robust_synthesis.gateway.config import load
from robust_synthesis.gateway.seams import Observer
from robust_synthesis.gateway.server import Gateway
from robust_synthesis.gateway.testing import FakeBackend, FakeWorker, fake_model
from robust_synthesis.gateway.tickets import Ticket
from robust_synthesis.v1 import synthesis_pb2, synthesis_pb2_grpc, task_pb2

GENERATE = "/robust_synthesis.v1.SynthesisService/Generate"
Code = grpc.StatusCode


class Watching(Observer):
    """Whose requests were let in."""

    def __init__(self) -> None:
        self.callers: list[str] = []

    def request_queued(self, ticket: Ticket) -> None:
        self.callers.append(ticket.caller)


class Caller:
    """One connection of a caller, who shows a key."""

    def __init__(self, channel: grpc.aio.Channel, key: str = "") -> None:
        self.channel = channel
        self.metadata = (("authorization", f"Bearer {key}"),) if key else ()
        self.stub: Any = synthesis_pb2_grpc.SynthesisServiceStub(channel)
        self.sessions: list[Any] = []

    def generate(self, steps: int = 5, timeout: float | None = 30, **fields: Any) -> Any:
        return self.stub.Generate(_generate(steps, **fields), metadata=self.metadata, timeout=timeout)

    def stream(self, steps: int = 5, timeout: float | None = 30) -> Any:
        request = synthesis_pb2.StreamSynthesisRequest(task=task_pb2.TaskSpec(generate=_generate(steps).spec))
        return self.stub.StreamSynthesis(request, metadata=self.metadata, timeout=timeout)


def _generate(steps: int, *, seed: int | None = 1, target: str = "cat", **fields: Any) -> synthesis_pb2.GenerateRequest:
    spec = {"target": target, "descent": {"steps": steps, "seed": seed}}
    return synthesis_pb2.GenerateRequest(spec=spec, **fields)  # type: ignore[arg-type]


def _translate(image: bytes) -> synthesis_pb2.TranslateRequest:
    return synthesis_pb2.TranslateRequest(spec=task_pb2.TranslateSpec(image=image, target="cat"))


class Scene:
    """A gateway, its worker and its callers."""

    def __init__(
        self, gateway: Gateway, worker: FakeWorker, observer: Watching, stack: contextlib.AsyncExitStack
    ) -> None:
        self.gateway = gateway
        self.worker = worker
        self.observer = observer
        self._stack = stack

    async def caller(self, key: str = "", credentials: grpc.ChannelCredentials | None = None) -> Caller:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), ("grpc.max_metadata_size", 10**7)]
        if credentials is None:
            channel = grpc.aio.insecure_channel(self.gateway.target, options=options)
        else:
            channel = grpc.aio.secure_channel(self.gateway.target, credentials, options=options)
        return Caller(await self._stack.enter_async_context(channel), key)


@contextlib.asynccontextmanager
async def scene(workers: int = 1, step: float = 0.0005, **settings: Any) -> AsyncIterator[Scene]:
    """`step` is in seconds, for a batch of any size."""
    info = fake_model(step_seconds=dict.fromkeys((1, 2, 4, 8, 16), step), size=64)
    worker = FakeWorker("worker", [info], seconds=lambda _: step)
    observer = Watching()
    given = {"listen": "127.0.0.1:0", **{name: str(value) for name, value in settings.items()}}
    gateway = gateway_of(load(given).settings, FakeBackend([worker][:workers]), observer=observer)
    async with contextlib.AsyncExitStack() as stack:
        await gateway.start()
        stack.push_async_callback(gateway.stop, 0)
        yield Scene(gateway, worker, observer, stack)


def _plain(message: bytes) -> bytes:
    return message


async def refused(call: Any, code: Code) -> tuple[str, dict[str, Any]]:
    """What is said of a call that ends with this code: its message, and its details by their type."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code, caught.value
    metadata: Any = caught.value.trailing_metadata()
    trailers: dict[str, Any] = dict(metadata or ())
    found: dict[str, Any] = {"trailers": trailers}
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    for detail in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.BadRequest):
            if detail.Is(kind.DESCRIPTOR):
                found[kind.DESCRIPTOR.name] = kind.FromString(detail.value)
    return caught.value.details() or "", found


def _retry_seconds(details: dict[str, Any]) -> float:
    delay = details["RetryInfo"].retry_delay
    seconds: float = delay.seconds + delay.nanos / 1e9
    assert int(details["trailers"]["grpc-retry-pushback-ms"]) == pytest.approx(1000 * seconds)
    return seconds


def _keys(path: Path, **settings: str) -> Path:
    """A file of keys: caller `studio`, say, shows `studio-key`."""
    lines = [f"{hashlib.sha256(f'{name}-key'.encode()).hexdigest()} {name} {more}" for name, more in settings.items()]
    path.write_text("\n".join(lines))
    return path


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def _most_work(here: Scene, condition: Callable[[], bool]) -> int:
    """The most evaluations that the gateway has before it at a time, until the condition holds."""
    most, card = 0, here.worker.models()[0].card

    def holds() -> bool:
        nonlocal most
        jobs = [job.candidate for ticket in here.gateway.dispatcher.requests for job in ticket.jobs]
        most = max(most, sum(job.evaluations(card) for job in jobs))
        return condition()

    await _until(holds)
    return most


# Who calls.


def test_only_a_key_that_is_known_and_not_expired_gets_in_and_its_name_is_the_callers(tmp_path: Path) -> None:
    keys = _keys(tmp_path / "keys", studio="", old="expires=2020-01-01")

    async def main() -> None:
        async with scene(keys=keys) as here:
            for key, said in (("", "show the key"), ("guess", "not known"), ("old-key", "expired after 2020-01-01")):
                caller = await here.caller(key)
                for call in (caller.generate(), caller.stream().read()):
                    message, details = await refused(call, Code.UNAUTHENTICATED)
                    assert said in message
                    assert details["ErrorInfo"].reason == "UNAUTHENTICATED"
                    assert details["trailers"]["request-id"]
            await (await here.caller("studio-key")).generate()
            assert here.observer.callers == ["studio"]
            health = health_pb2_grpc.HealthStub((await here.caller()).channel)
            assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=10)).status == 1
            models = "/robust_synthesis.v1.ModelService/ListModels"
            other = (await here.caller()).channel.unary_unary(models, _plain, _plain)
            await refused(other(b"", timeout=10), Code.UNAUTHENTICATED)
            reflection = (await here.caller()).channel.stream_stream(
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", _plain, _plain
            )
            await refused(reflection(iter([b""]), timeout=10).read(), Code.UNAUTHENTICATED)

    asyncio.run(main())


def test_a_certificate_names_its_caller(tmp_path: Path) -> None:
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    files: dict[str, Any] = {name: tmp_path / f"{name}.pem" for name in ("tls_ca", "tls_cert", "tls_key")}
    authority.cert_pem.write_to_path(files["tls_ca"])
    server.cert_chain_pems[0].write_to_path(files["tls_cert"])
    server.private_key_pem.write_to_path(files["tls_key"])

    def shown(*names: str, common_name: str | None = None) -> grpc.ChannelCredentials:
        own = authority.issue_cert(*names, common_name=common_name)
        pems = own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes()
        return grpc.ssl_channel_credentials(authority.cert_pem.bytes(), *pems)

    async def main() -> None:
        async with scene(**files) as here:
            await (await here.caller(credentials=shown("a.example", common_name="studio"))).generate()
            await (await here.caller(credentials=shown("batch.example"))).generate()
            assert here.observer.callers == ["studio", "batch.example"]
            stranger = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
            await refused((await here.caller(credentials=stranger)).generate(), Code.UNAVAILABLE)

    asyncio.run(main())


def test_a_key_that_is_taken_away_counts_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robust_synthesis.watched.INTERVAL", 0)
    keys = _keys(tmp_path / "keys", studio="", batch="")

    async def main() -> None:
        async with scene(keys=keys) as here:
            studio = await here.caller("studio-key")
            await studio.generate()
            _keys(keys, batch="", late="")
            await refused(studio.generate(), Code.UNAUTHENTICATED)
            await (await here.caller("late-key")).generate()

    asyncio.run(main())


def test_a_keys_rate_and_its_open_requests_are_bounded_and_say_when_to_come_back(tmp_path: Path) -> None:
    keys = _keys(tmp_path / "keys", slow="rate=2", narrow="concurrent=2")

    async def main() -> None:
        async with scene(keys=keys) as here:
            slow = await here.caller("slow-key")
            await slow.generate()
            await slow.generate()
            message, details = await refused(slow.generate(), Code.RESOURCE_EXHAUSTED)
            assert "2 requests a minute" in message
            assert details["ErrorInfo"].reason == "QUOTA_EXCEEDED"
            assert 25 < _retry_seconds(details) <= 30
            narrow = await here.caller("narrow-key")
            open_ = [narrow.generate(steps=9000) for _ in range(2)]
            await _until(lambda: here.observer.callers.count("narrow") == 2)
            message, details = await refused(narrow.generate(), Code.RESOURCE_EXHAUSTED)
            assert "2 requests open" in message
            assert _retry_seconds(details) > 0
            for call in open_:
                call.cancel()
            await _until(lambda: not here.gateway.dispatcher.requests)
            await narrow.generate()

    asyncio.run(main())


def test_a_caller_with_all_its_requests_open_can_still_ask_what_there_is(tmp_path: Path) -> None:
    keys = _keys(tmp_path / "keys", narrow="concurrent=1")

    async def main() -> None:
        async with scene(keys=keys) as here:
            narrow = await here.caller("narrow-key")
            open_ = narrow.generate(steps=9000)
            await _until(lambda: here.observer.callers == ["narrow"])
            reflection: Any = reflection_pb2_grpc.ServerReflectionStub(narrow.channel)
            question = reflection_pb2.ServerReflectionRequest(list_services="")
            answers = reflection.ServerReflectionInfo(iter([question]), metadata=narrow.metadata, timeout=30)
            names = [service.name async for answer in answers for service in answer.list_services_response.service]
            assert GENERATE.split("/")[1] in names
            assert not open_.done()
            open_.cancel()

    asyncio.run(main())


# How much is taken on.


def test_beyond_its_bound_the_queue_refuses_and_says_when_to_come_back() -> None:
    async def main() -> None:
        async with scene(queue_seconds=1, step=0.01) as here:
            caller = await here.caller()
            calls = [asyncio.ensure_future(refused_or_result(caller.generate(steps=99))) for _ in range(256)]
            most = await _most_work(here, lambda: all(call.done() for call in calls))
            assert 1600 <= most <= 3300  # a second has 100 batches of 32
            overloads = [result for call in calls if (result := call.result()) is not None]
            assert overloads
            for message, details in overloads:
                assert "as much as is accepted" in message
                assert details["ErrorInfo"].reason == "OVERLOADED"
                assert 0 < _retry_seconds(details) <= 60
            assert len(here.gateway.dispatcher.requests) == 0
            await caller.generate()

    async def refused_or_result(call: Any) -> tuple[str, dict[str, Any]] | None:
        try:
            await call
        except grpc.aio.AioRpcError:
            return await refused(call, Code.RESOURCE_EXHAUSTED)
        return None

    asyncio.run(main())


def test_a_thousand_requests_of_one_caller_neither_fill_the_queue_nor_delay_another(tmp_path: Path) -> None:
    keys = _keys(tmp_path / "keys", greedy="", modest="")

    async def main() -> None:
        async with scene(keys=keys, queue_seconds=4, concurrent=2000, step=0.01) as here:
            greedy, modest = await here.caller("greedy-key"), await here.caller("modest-key")
            calls = [asyncio.ensure_future(_code(greedy.generate(steps=99))) for _ in range(1000)]
            most = await _most_work(here, lambda: sum(call.done() for call in calls) > 900)
            assert 2000 <= most <= 6500  # half of 4 s, each of 100 batches of 32
            started = time.monotonic()
            await modest.generate(steps=20)
            assert time.monotonic() - started < 2  # the greedy one's takes as long as it may
            codes = await asyncio.gather(*calls)
            assert set(codes) == {Code.OK, Code.RESOURCE_EXHAUSTED}

    asyncio.run(main())


async def _code(call: Any) -> Code:
    code: Code = await call.code()
    return code


def test_a_client_that_opens_a_thousand_streams_and_reads_none_is_bounded(tmp_path: Path) -> None:
    keys = _keys(tmp_path / "keys", careless="concurrent=50", careful="")

    async def main() -> None:
        async with scene(keys=keys, streams=2000, queue_seconds=3600) as here:
            careless, careful = await here.caller("careless-key"), await here.caller("careful-key")
            streams = [careless.stream(steps=10_000, timeout=None) for _ in range(1000)]
            await _until(lambda: sum(stream.done() for stream in streams) >= 950)
            assert here.observer.callers == ["careless"] * 50
            events = [event async for event in careful.stream()]
            assert events[-1].WhichOneof("event") == "result"
            assert [await stream.code() for stream in streams if stream.done()] == [Code.RESOURCE_EXHAUSTED] * 950
            for stream in streams:
                stream.cancel()
            await _until(lambda: not here.gateway.dispatcher.requests)
            await careless.generate()

    asyncio.run(main())


def test_no_caller_has_more_sessions_of_edits_than_its_share(tmp_path: Path) -> None:
    keys = _keys(tmp_path / "keys", greedy="", careful="", modest="share=0.1")

    async def main() -> None:
        async with scene(keys=keys, sessions=4, queue_share=0.5) as here:
            greedy, careful, modest = [await here.caller(f"{name}-key") for name in ("greedy", "careful", "modest")]
            assert [await _opened(caller) for caller in (greedy, greedy, modest)] == ["current"] * 3
            for caller in (greedy, modest):
                with pytest.raises(grpc.aio.AioRpcError, match="as many as you may") as raised:
                    await _opened(caller)
                assert raised.value.code() is Code.RESOURCE_EXHAUSTED
            assert await _opened(careful) == "current"
            with pytest.raises(grpc.aio.AioRpcError, match="as many as this server allows"):
                await _opened(careful)

    asyncio.run(main())


async def _opened(caller: Caller) -> str | None:
    """What a new session of edits says first; it stays open."""
    call = caller.stub.Edit(metadata=caller.metadata, timeout=30)
    await call.write(synthesis_pb2.EditRequest(open=synthesis_pb2.OpenPicture()))
    event: synthesis_pb2.EditResponse = await call.read()
    caller.sessions.append(call)
    return event.WhichOneof("event")


def test_a_deadline_that_the_queue_will_miss_is_missed_at_once() -> None:
    async def main() -> None:
        async with scene(queue_seconds=30, step=0.01) as here:
            caller = await here.caller()
            long = [caller.generate(steps=1500, timeout=60) for _ in range(2)]
            await _until(lambda: len(here.observer.callers) == 2)
            started = time.monotonic()
            message, details = await refused(caller.generate(steps=1000, timeout=5), Code.DEADLINE_EXCEEDED)
            assert time.monotonic() - started < 2
            assert "the result is expected after" in message
            assert details["ErrorInfo"].reason == "DEADLINE_EXCEEDED"
            for call in long:
                call.cancel()

    asyncio.run(main())


def test_without_a_worker_a_request_waits_until_its_deadline() -> None:
    async def main() -> None:
        async with scene(workers=0, default_model="fake") as here:
            caller = await here.caller()
            started = time.monotonic()
            codes = await asyncio.gather(*(_code(caller.generate(steps=10_000, timeout=1)) for _ in range(50)))
            assert set(codes) == {Code.DEADLINE_EXCEEDED}
            assert time.monotonic() - started >= 0.9

    asyncio.run(main())


def test_what_was_accepted_is_done_within_the_grace_period() -> None:
    async def main() -> None:
        async with scene(grace=5, step=0.01) as here:
            caller = await here.caller()
            calls = [asyncio.ensure_future(_code(caller.generate(steps=99))) for _ in range(200)]
            await _until(lambda: sum(call.done() for call in calls) + len(here.gateway.dispatcher.requests) == 200)
            await here.gateway.stop()
            codes = await asyncio.gather(*calls)
            assert set(codes) == {Code.OK, Code.RESOURCE_EXHAUSTED}
            assert codes.count(Code.OK) == len(here.observer.callers) > 10

    asyncio.run(main())


# Repeats.


def test_a_repeat_with_its_request_id_gets_the_same_result_and_the_seed_follows_the_id() -> None:
    async def main() -> None:
        async with scene() as here, scene() as elsewhere:
            caller = await here.caller()
            both = await asyncio.gather(*(caller.generate(request_id="a 1", seed=None) for _ in range(2)))
            again = await (await here.caller()).generate(request_id="a 1", seed=None)
            assert both[0].result.pictures == both[1].result.pictures == again.result.pictures
            assert len(here.observer.callers) == 1
            other = await (await elsewhere.caller()).generate(request_id="a 1", seed=None)
            assert (other.result.seed, other.result.pictures) == (again.result.seed, again.result.pictures)
            _, details = await refused(
                caller.generate(request_id="a 1", seed=None, target="dog"), Code.INVALID_ARGUMENT
            )
            assert [each.field for each in details["BadRequest"].field_violations] == ["request_id"]

    asyncio.run(main())


# What is too much, or no message.


def test_a_body_of_100_mib_is_refused_with_both_sizes() -> None:
    async def main() -> None:
        async with scene() as here:
            caller = await here.caller()
            request = _translate(b"x" * (100 * 2**20))
            message, _ = await refused(caller.stub.Translate(request, timeout=30), Code.RESOURCE_EXHAUSTED)
            assert "larger than max" in message
            await caller.generate()

    asyncio.run(main())


def _bomb(width: int, height: int) -> bytes:
    """A PNG of so many pixels in a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


def _picture(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_pixels_are_counted_before_anything_is_decoded() -> None:
    async def main() -> None:
        async with scene(max_pixels=10_000) as here:
            caller = await here.caller()
            for image, said in ((_bomb(60_000, 60_000), "60000 x 60000"), (_picture(101, 100), "101 x 100")):
                request = _translate(image)
                message, details = await refused(caller.stub.Translate(request, timeout=30), Code.INVALID_ARGUMENT)
                assert said in message
                assert [each.field for each in details["BadRequest"].field_violations] == ["spec.image"]
            assert not here.observer.callers

    asyncio.run(main())


@pytest.mark.parametrize(
    ("limit", "spec", "field"),
    [
        ("max_steps", {"descent": {"steps": 11}}, "spec.descent.steps"),
        ("max_pictures", {"count": 11}, "spec.count"),
    ],
)
def test_a_server_may_allow_less_than_the_contract(limit: str, spec: dict[str, Any], field: str) -> None:
    async def main() -> None:
        async with scene(**{limit: 10}) as here:
            caller = await here.caller()
            request = synthesis_pb2.GenerateRequest(spec={"target": "cat", **spec})  # type: ignore[arg-type]
            message, details = await refused(caller.stub.Generate(request, timeout=30), Code.INVALID_ARGUMENT)
            assert "is 11; this server allows up to 10" in message
            assert [each.field for each in details["BadRequest"].field_violations] == [field]

    asyncio.run(main())


def test_huge_metadata_is_refused_and_the_connection_goes_on() -> None:
    async def main() -> None:
        async with scene() as here:
            caller = await here.caller()
            for size in (40_000, 1_000_000):
                call = caller.stub.Generate(_generate(5), metadata=(("x-much", "a" * size),), timeout=30)
                assert await _code(call) is Code.RESOURCE_EXHAUSTED
            await caller.generate()
            await (await here.caller("k" * 8000)).generate()

    asyncio.run(main())


@pytest.mark.parametrize("body", [b"\x0a\x02\xff\xfe", b"\x12\x02\xc3\x28", b"\xff" * 50, b"\x1a\x7f"])
def test_what_is_no_message_is_the_callers_mistake(body: bytes) -> None:
    async def main() -> None:
        async with scene() as here:
            caller = await here.caller()
            message, details = await refused(
                caller.channel.unary_unary(GENERATE, _plain, _plain)(body, timeout=30), Code.INVALID_ARGUMENT
            )
            assert "must be UTF-8" in message
            assert details["BadRequest"].field_violations[0].field == "request"
            await caller.generate()

    asyncio.run(main())
