"""How a request is made: as one call, a stream, strokes of a session, or by a caller who leaves before there is a result."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from robust_synthesis.bundle import Output
from robust_synthesis.client.aio_edits import AsyncEditSession
from robust_synthesis.client.edits import Book
from robust_synthesis.client.orders import Order
from robust_synthesis.errors import ServerError, SynthesisError

STROKES = 2
LATE = 0.2
"""Seconds that a caller waits who comes too late."""


@dataclass(frozen=True)
class Via:
    """Where calls go, and what they take along."""

    stub: Any
    metadata: Any
    timeout: float


async def unary(order: Order, via: Via) -> str:
    call = getattr(via.stub, order.unary.method)(order.unary.request, metadata=via.metadata, timeout=via.timeout)
    return await _code(call)


async def stream(order: Order, via: Via) -> str:
    """To its end, with previews."""
    call = _streamed(order, via)
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for _ in call:
            pass
    return await _code(call)


async def cancel(order: Order, via: Via) -> str:
    """A stream that is left once it computes."""
    call = _streamed(order, via)
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for response in call:
            if response.WhichOneof("event") == "progress":
                break
    call.cancel()
    return await _code(call)


async def late(order: Order, via: Via) -> str:
    """With a deadline that most jobs miss."""
    return await unary(order, Via(via.stub, via.metadata, min(LATE, via.timeout)))


async def edit(order: Order, via: Via) -> str:
    """A session with some strokes, of which each waits for the one before."""
    book = Book(order.server, model=order.model, size=None, fit="crop", output=Output())
    spec = order.request.spec

    def begin() -> Any:
        return via.stub.Edit(metadata=via.metadata, timeout=via.timeout)

    try:
        async with AsyncEditSession(begin, book, order.request.image) as session:
            box = (0, 0, session.size // 2, session.size // 2) if spec.needs_mask else None
            for _ in range(STROKES):
                await (await session.apply(spec, box=box)).result()
    except ServerError as error:
        return error.code
    except SynthesisError:
        return grpc.StatusCode.INVALID_ARGUMENT.name
    return "OK"


WAYS: Mapping[str, Callable[[Order, Via], Awaitable[str]]] = {
    way.__name__: way for way in (unary, stream, edit, cancel, late)
}
"""Each makes a request, and returns the name of its status."""


def _streamed(order: Order, via: Via) -> Any:
    request = order.streaming(previews=True).request
    return via.stub.StreamSynthesis(request, metadata=via.metadata, timeout=via.timeout)


async def _code(call: Any) -> str:
    return str((await call.code()).name)
