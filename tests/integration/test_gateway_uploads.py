"""Requests that arrive at a gateway: how much of them it holds, and where it reads and writes them, over real gRPC."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from robust_synthesis.gateway.handlers import handler_of
from robust_synthesis.gateway.limits import Limits
from robust_synthesis.gateway.reading import LARGE, Reading
from robust_synthesis.gateway.running import running
from robust_synthesis.gateway.server import Gateway, Options
from robust_synthesis.gateway.testing import FakeBackend, FakeWorker, fake_model
from robust_synthesis.gateway.uploads import UploadLimits
from robust_synthesis.v1 import synthesis_pb2, synthesis_pb2_grpc, task_pb2

from .half_sent import half_sent

MIB = 2**20
TRANSLATE = "/robust_synthesis.v1.SynthesisService/Translate"
GENERATE = synthesis_pb2.GenerateRequest(spec=task_pb2.GenerateSpec(target="cat", descent=task_pb2.Descent(steps=2)))


def gateway(**uploads: Any) -> Any:
    """Takes messages of 16 MiB, three at a time."""
    backend = FakeBackend([FakeWorker("worker", [fake_model(step_seconds={1: 0.001})], seconds=lambda _: 0.001)])
    limits = UploadLimits(**{"bytes": 50 * MIB, "patience": 0.3, **uploads})
    return running(backend, Options(limits=Limits(image_bytes=8 * MIB), uploads=limits))


def held(gateway: Gateway) -> int:
    return gateway.uploads.bytes


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def test_requests_that_never_end_hold_no_more_than_the_bound_and_who_finds_no_room_is_told_when_to_come_back() -> None:
    async def main() -> None:
        async with gateway() as here, grpc.aio.insecure_channel(here.target) as channel:
            stub: Any = synthesis_pb2_grpc.SynthesisServiceStub(channel)
            async with half_sent(here.target) as hostile, half_sent(here.target) as other:
                for client in (hostile, other):
                    for _ in range(20):
                        client.call(TRANSLATE, 16 * MIB, sends=15 * MIB)
                everywhere = [hostile, other]
                await _until(lambda: [n for each in everywhere for n in each.sent.values()].count(15 * MIB) == 3)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.Generate(GENERATE, timeout=20)
                assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                await _until(lambda: sum(len(each.ended) for each in everywhere) == 37)
                taken = sum(sum(each.sent.values()) for each in everywhere)
                assert taken < 3 * 15 * MIB + 37 * 2**17  # what nobody has asked for waits in windows of 64 KiB
                metadata: Any = refused.value.trailing_metadata()
                trailers = dict(metadata)
                retry = error_details_pb2.RetryInfo()
                status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
                assert any(detail.Unpack(retry) for detail in status.details)
                assert retry.retry_delay.seconds == 5
            await stub.Generate(GENERATE, timeout=20)
            await _until(lambda: held(here) == 0)

    asyncio.run(main())


def test_a_request_that_does_not_arrive_in_time_makes_room_for_others() -> None:
    async def main() -> None:
        async with gateway(arrival=1, patience=20) as here, half_sent(here.target) as hostile:
            for _ in range(3):
                hostile.call(TRANSLATE, 16 * MIB, sends=15 * MIB)
            await _until(lambda: len(hostile.sent) == 3 and held(here) > 48 * MIB)
            async with grpc.aio.insecure_channel(here.target) as channel:
                stub: Any = synthesis_pb2_grpc.SynthesisServiceStub(channel)
                await stub.Generate(GENERATE, timeout=20)
            await _until(lambda: hostile.ended == {1, 3, 5} and held(here) == 0)

    asyncio.run(main())


def test_what_is_let_in_counts_no_more_among_what_arrives() -> None:
    async def main() -> None:
        async with running(FakeBackend([])) as here, grpc.aio.insecure_channel(here.target) as channel:
            stub: Any = synthesis_pb2_grpc.SynthesisServiceStub(channel)
            request = synthesis_pb2.GenerateRequest(model="fake", spec=GENERATE.spec)
            calls = [stub.Generate(request, timeout=60) for _ in range(20)]
            await _until(lambda: len(here.dispatcher.requests) == 20)
            assert held(here) == 0
            for call in calls:
                call.cancel()
            await _until(lambda: not here.dispatcher.requests)

    asyncio.run(main())


@pytest.mark.parametrize("request_streaming", [False, True])
@pytest.mark.parametrize("response_streaming", [False, True])
def test_large_messages_are_read_and_written_in_other_threads_than_the_event_loops(
    request_streaming: bool, response_streaming: bool
) -> None:
    """A server of our interceptor and messages, whose reader and writer say where they ran."""
    ran: list[tuple[str, int, bool]] = []

    def read(body: bytes) -> Any:
        ran.append(("read", len(body), threading.current_thread() is threading.main_thread()))
        return synthesis_pb2.TranslateRequest.FromString(body)

    def write(message: synthesis_pb2.TranslateResponse) -> bytes:
        body = message.SerializeToString()
        ran.append(("write", len(body), threading.current_thread() is threading.main_thread()))
        return body

    def _answer(request: synthesis_pb2.TranslateRequest) -> synthesis_pb2.TranslateResponse:
        pictures = [synthesis_pb2.Picture(image=request.spec.image[: LARGE // 2])] * (3 if request.spec.image else 0)
        return synthesis_pb2.TranslateResponse(result=synthesis_pb2.SynthesisResult(pictures=pictures, model="a"))

    async def unary(request: Any, _: object) -> Any:
        return _answer(await anext(request) if request_streaming else request)

    async def stream(request: Any, context: object) -> Any:
        yield await unary(request, context)

    class Service(grpc.GenericRpcHandler):  # type: ignore[type-arg]
        def service(self, _: grpc.HandlerCallDetails) -> Any:
            kind = handler_of(request_streaming, response_streaming)
            return kind(stream if response_streaming else unary, read, write)

    async def main() -> None:
        options = [("grpc.max_receive_message_length", -1)]
        server = grpc.aio.server(interceptors=[Reading(UploadLimits(), 64 * MIB)], options=options)
        server.add_generic_rpc_handlers((Service(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            requests = synthesis_pb2.TranslateRequest.SerializeToString
            call = channel.unary_unary("/any/method", requests, synthesis_pb2.TranslateResponse.FromString)
            for image in (bytes(2 * LARGE), b""):
                await call(synthesis_pb2.TranslateRequest(spec=task_pb2.TranslateSpec(image=image)))
        await server.stop(None)

    asyncio.run(main())
    assert [(what, on_loop) for what, _, on_loop in ran] == [
        ("read", False),
        ("write", False),
        ("read", True),
        ("write", True),
    ]
    assert [size > LARGE for _, size, _ in ran] == [True, True, False, False]
