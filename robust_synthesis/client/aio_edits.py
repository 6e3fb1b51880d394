"""A session of edits, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import grpc
from PIL import Image

from ..errors import ServerError, SynthesisError
from ..requests import Box, ImageSource
from ..specs import Spec
from ..v1 import synthesis_pb2
from .edits import CANCEL, UNDO, Book, Stroke
from .errors import Cancelled, ServerFailed, error_of
from .results import Progress, Result


class AsyncEditSession:
    """`EditSession` for asyncio: enter it with `async with`, and await its methods. Responses are read as they come."""

    def __init__(self, begin: Callable[[], Any], book: Book, image: ImageSource | None) -> None:
        """`begin` starts the call."""
        self._begin = begin
        self._book = book
        self._first = image
        self._changed = asyncio.Event()
        self._call: Any
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        opening = await asyncio.to_thread(self._book.open, self._first)
        self._call = self._begin()
        self._reading = asyncio.create_task(self._read())
        try:
            await self._look(opening)
        except BaseException:
            await self._end(dropping=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self._end(dropping=kind is not None or self._book.busy)

    @property
    def image(self) -> Image.Image:
        """The current picture."""
        return self._book.image

    @property
    def size(self) -> int:
        """Its side, pixels."""
        return self._book.size

    @property
    def undoable(self) -> int:
        """How many edits can be taken back."""
        return self._book.undoable

    @property
    def ended(self) -> SynthesisError | None:
        """Why nothing can be asked of the session any more; None as long as something can."""
        return self._book.error

    async def apply(self, spec: Spec, *, mask: ImageSource | None = None, box: Box | None = None) -> AsyncEdit:
        """Begin an edit; mask and box are in pixels of the current picture. Does not wait for it."""
        request, stroke = await asyncio.to_thread(self._book.apply, spec, mask, box)
        await self._send(request)
        return AsyncEdit(stroke, self._until)

    async def open(self, image: ImageSource | None = None) -> Image.Image:
        """Go on with another picture; what is under way is dropped."""
        return await self._look(await asyncio.to_thread(self._book.open, image))

    async def undo(self) -> Image.Image:
        """Take back the newest edit, whether it waits, runs or is done. Raises InvalidInput where there is none."""
        return await self._look(UNDO)

    async def cancel(self) -> None:
        """Drop the edits that run and wait; the picture stays."""
        await self._send(CANCEL)

    async def _end(self, *, dropping: bool) -> None:
        if dropping:
            self._call.cancel()
        else:
            await self._call.done_writing()
        await self._reading

    async def _look(self, request: synthesis_pb2.EditRequest) -> Image.Image:
        look = self._book.look()
        await self._send(request)
        await self._until(lambda: look.done)
        return look.picture

    async def _send(self, request: synthesis_pb2.EditRequest) -> None:
        """What cannot be sent any more is told by the responses' end."""
        try:
            await self._call.write(request)
        except (grpc.RpcError, asyncio.InvalidStateError):
            await asyncio.wait({self._reading})

    async def _until(self, done: Callable[[], bool]) -> None:
        while not done():
            await self._changed.wait()

    async def _read(self) -> None:
        """Until the session ends."""
        try:
            async for response in self._call:
                await asyncio.to_thread(self._book.take, response)
                self._tell()
        except grpc.RpcError as error:
            self._book.end(error_of(error, self._book.server))
        except asyncio.CancelledError:
            self._book.end(Cancelled("cancelled: the session was left.", code="CANCELLED"))
        except ServerError as error:
            self._call.cancel()
            self._book.end(error)
        else:
            self._book.end(ServerFailed(f"server: {self._book.server} has ended the session."))
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class AsyncEdit:
    """Iterate over it for progress, with previews; its `result` is that of any task, and becomes the current picture."""

    def __init__(self, stroke: Stroke, until: Callable[[Callable[[], bool]], Awaitable[None]]) -> None:
        self._stroke = stroke
        self._until = until

    async def __aiter__(self) -> AsyncIterator[Progress]:
        """Frames that are not fetched in time are replaced by newer. Ends with the edit, however that ends."""
        while True:
            await self._until(lambda: self._stroke.news)
            frame = self._stroke.fetch()
            if frame is None:
                return
            yield frame

    async def result(self) -> Result:
        """Wait for it. Raises Cancelled where it was replaced, undone or dropped."""
        await self._until(lambda: self._stroke.done)
        return self._stroke.result
