"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self, TypeVar, Unpack

import grpc

from ..bundle import Output
from ..methods import TaskMethods
from ..requests import ImageSource
from ..specs import Spec
from . import orders
from .aio_edits import AsyncEditSession
from .edits import Book
from .errors import Cancelled, ServerFailed, error_of
from .front import Front
from .orders import Call, Event, OnProgress, Options, Way
from .results import Model, ModelSummary, Result, Unit

T = TypeVar("T")


class AsyncClient(Front[Awaitable[Result]]):
    """`Client` for asyncio, with the same parameters: every method is awaited.

        async with AsyncClient("gateway.example:50051", key=KEY, tls=True) as client:
            result = await client.generate("dog", seed=1)
            async for event in client.stream.generate("dog", previews=True): ...

    Files are read, and pictures decoded, off the event loop. To cancel the task that awaits a call stops its computation.
    """

    def _open(self) -> grpc.aio.Channel:
        target, options, secrets = self._connection.target, self._connection.options, self._secrets
        if secrets is None:
            return grpc.aio.insecure_channel(target, options)
        return grpc.aio.secure_channel(target, secrets, options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancels what is under way."""
        if self._opened is not None:
            await self._opened.close(None)

    @property
    def stream(self) -> AsyncStream:
        """The same tasks with their progress: `async for event in client.stream.generate("dog"): ...`."""
        return AsyncStream(self)

    async def make(
        self,
        spec: Spec,
        image: ImageSource | None = None,
        mask: ImageSource | None = None,
        *,
        frames: int = 0,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> Result:
        """Run any spec."""
        order = await asyncio.to_thread(self._order, spec, image, mask, options)
        if not frames and on_progress is None:
            return await self._call(order.unary, timeout)
        way = Way(order, frames, on_progress)
        async for event in self._events(order.streaming(previews=bool(frames), frames=frames), timeout):
            way.take(event)
        return way.result

    async def classify(
        self,
        image: ImageSource,
        *,
        fit: str = "crop",
        top: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, float]:
        """Class probabilities of an image, largest first."""
        call = await asyncio.to_thread(orders.classification, model or self._model, image, fit, top)
        return await self._call(call, timeout)

    async def models(self, *, timeout: float | None = None) -> list[ModelSummary]:
        """The classifiers that the server has."""
        return await self._call(orders.models(), timeout)

    async def model(self, name: str | None = None, *, timeout: float | None = None) -> Model:
        """One of them, with its classes, limits and card."""
        return await self._call(orders.model(name or self._model), timeout)

    async def side(self) -> int:
        """Of results where no size is asked for, pixels; asks the server."""
        return (await self.model()).size

    async def units(
        self,
        model: str | None = None,
        *,
        named_only: bool = False,
        examples: bool = True,
        timeout: float | None = None,
    ) -> list[Unit]:
        """A classifier's latent units, by number, each with the training images that activate it most."""
        found, page = await self._call(orders.units(model or self._model, named_only, examples), timeout)
        while page:
            more, page = await self._call(orders.units(model or self._model, named_only, examples, page), timeout)
            found += more
        return found

    def edit(
        self,
        image: ImageSource | None = None,
        *,
        model: str | None = None,
        size: int | None = None,
        fit: str = "crop",
        format: str = "png",
        quality: int = 90,
    ) -> AsyncEditSession:
        """A session of edits of a picture, flat grey where none is given; enter it with `async with`."""
        book = Book(self.server, model=model or self._model, size=size, fit=fit, output=Output(format, quality))
        return AsyncEditSession(self._begin_edits, book, image)

    async def _call(self, call: Call[T], timeout: float | None) -> T:
        try:
            response = await self._begin(call, timeout)
        except grpc.RpcError as error:
            raise error_of(error, self.server) from None
        return await asyncio.to_thread(call.read, response)

    def _events(self, call: Call[Event], timeout: float | None) -> AsyncEvents:
        return AsyncEvents(self._begin(call, timeout), call.read, self.server)


class AsyncStream(TaskMethods["AsyncEvents"]):
    """The tasks as methods that return at once, with what happens as an asynchronous iterator."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def make(
        self,
        spec: Spec,
        image: ImageSource | None = None,
        mask: ImageSource | None = None,
        *,
        previews: bool = False,
        frames: int = 0,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> AsyncEvents:
        """Run any spec. `previews` asks for the unfinished picture with every progress, `frames` for at least so many of them."""
        order = self._client._order(spec, image, mask, options)
        return self._client._events(order.streaming(previews=previews, frames=frames), timeout)


class AsyncEvents(AsyncIterator[Event]):
    """Queued and Progress as they come, at last a Result; progress that is not fetched in time is replaced by newer, or
    thinned out where `frames` were asked for and more than 64 reports, or 4 MiB of their pictures, wait.

    To leave its `async with`, or to `cancel` it, or the task that waits for it, stops the computation.
    """

    def __init__(self, call: Any, read: Callable[[Any], Event], server: str) -> None:
        self._call = call
        self._responses = aiter(call)
        self._read = read
        self._server = server
        self._dropped = False

    async def __anext__(self) -> Event:
        try:
            response = await anext(self._responses)
        except grpc.RpcError as error:
            raise error_of(error, self._server) from None
        except asyncio.CancelledError:
            if self._dropped:  # else it is the task that is cancelled
                raise Cancelled("cancelled: the caller took the request back.", code="CANCELLED") from None
            raise
        return await asyncio.to_thread(self._read, response)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        self._dropped = True
        self._call.cancel()

    async def result(self) -> Result:
        """Wait for it."""
        async for event in self:
            if isinstance(event, Result):
                return event
        raise ServerFailed(f"server: {self._server} ended the call without a result.")
