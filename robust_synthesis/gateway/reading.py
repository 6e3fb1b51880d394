"""The innermost interceptor: takes requests in within bounds, and reads and writes messages, large ones off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from ..errors import InvalidInput
from . import calls
from .errors import DeadlineExceeded
from .handlers import INFRASTRUCTURE, method_of
from .uploads import UploadLimits, Uploads

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]

P = ParamSpec("P")
T = TypeVar("T")
LARGE = 2**20
"""Bytes from which on a message is read, written and converted in another thread: it takes a millisecond and more."""


async def aside(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns or raises; off the event loop where it handles many bytes."""
    return await asyncio.to_thread(work, *args, **kwargs) if size > LARGE else work(*args, **kwargs)


class Reading(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Asks gRPC for a request once there is room for the largest: what is not asked for stays with the caller.

    A unary request counts until it is let in, or its call has ended; one of a stream, while it is looked at. Streams that
    wait for their next request count for nothing: who serves them bounds how many there are.
    """

    def __init__(self, limits: UploadLimits, largest: int) -> None:
        """Raises InvalidInput."""
        limits.check(largest)
        self.uploads = Uploads(limits)
        self._limits = limits
        self._largest = largest

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(details)
        if handler is None or details.method.startswith(INFRASTRUCTURE):
            return handler
        if handler.response_streaming:  # all take their requests from a stream, whatever the method does
            return grpc.stream_stream_rpc_method_handler(partial(self._stream, handler))
        return grpc.stream_unary_rpc_method_handler(partial(self._answer, handler))

    async def _answer(self, handler: Handler, raw: AsyncIterator[bytes], context: Context) -> bytes:
        async with self._request(handler, raw) as request:
            return await _written(handler, await method_of(handler)(request, context))

    async def _stream(self, handler: Handler, raw: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async with (
            self._request(handler, raw) as request,
            contextlib.aclosing(method_of(handler)(request, context)) as responses,
        ):
            async for response in responses:
                yield await _written(handler, response)

    @contextlib.asynccontextmanager
    async def _request(self, handler: Handler, raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        """What the method is called with: a message, or an iterator of them."""
        if handler.request_streaming:
            async with contextlib.aclosing(self._requests(handler, raw)) as requests:
                yield requests
            return
        call = calls.current()
        held = await self.uploads.room(call.caller, call.share, self._largest)
        try:
            body = await self._arrived(raw)
            held.change(len(body))
            call.size, call.let_in = len(body), held.release
            request = await aside(len(body), _read, handler, body)
            del body
            yield request
        finally:
            held.release()

    async def _arrived(self, raw: AsyncIterator[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._limits.arrival):
                return await anext(raw)
        except TimeoutError:
            message = f"deadline: the request did not arrive within {self._limits.arrival:g} s; send it faster."
            raise DeadlineExceeded(message) from None
        except StopAsyncIteration:
            raise InvalidInput("request", "is missing; send one message.") from None

    async def _requests(self, handler: Handler, raw: AsyncIterator[bytes]) -> AsyncGenerator[Any, None]:
        call = calls.current()
        async for body in raw:
            held = await self.uploads.room(call.caller, call.share, len(body))
            call.size = len(body)
            try:
                yield await aside(len(body), _read, handler, body)
            finally:
                held.release()


async def _written(handler: Handler, response: Any) -> bytes:
    return await aside(_weight(response), handler.response_serializer, response)  # type: ignore[arg-type]


def _read(handler: Handler, body: bytes) -> Any:
    try:
        return handler.request_deserializer(body)  # type: ignore[misc]
    except DecodeError as error:
        raise InvalidInput("request", "cannot be read as a message of this method; texts must be UTF-8.") from error


def _weight(message: Any, most: int = LARGE) -> int:
    """Bytes of the files in a message; stops beyond `most`. (`ByteSize` would write the message, to see.)"""
    found = 0
    for _, value in message.ListFields():
        for each in (value,) if isinstance(value, (bytes, Message)) else value if _repeats(value) else ():
            found += len(each) if isinstance(each, bytes) else _weight(each, most - found)
            if found > most:
                break
    return found


def _repeats(value: Any) -> bool:
    """Whether it is a list of messages or files."""
    return (
        not isinstance(value, (str, int, float)) and len(value) > 0 and isinstance(next(iter(value)), (bytes, Message))
    )
