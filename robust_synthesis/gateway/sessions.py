"""All sessions of edits of a gateway."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from ..model_folder import Card
from ..requests import Request
from ..v1 import synthesis_pb2
from . import calls, convert_edits
from .canvas import square
from .desk import Desk
from .edit import EditSession, SessionLimits, Submitted
from .errors import NoWorker, Overloaded, QuotaExceeded
from .limits import Limits
from .orders import Order
from .uploads import Uploads

DECODERS = 2
"""Photos that are decoded at a time: the largest takes some hundred megabytes for a moment."""
COME_BACK = 10.0
"""Seconds after which to try again where there are too many sessions."""


class Sessions:
    """Opens them, and ends them when the gateway stops."""

    def __init__(self, desk: Desk, limits: Limits, session_limits: SessionLimits, uploads: Uploads) -> None:
        self._studio = _Studio(desk, limits, uploads)
        self._limits = session_limits
        self._sessions: dict[EditSession, str] = {}
        """With their callers."""

    def __len__(self) -> int:
        return len(self._sessions)

    async def serve(
        self, requests: AsyncIterable[synthesis_pb2.EditRequest]
    ) -> AsyncGenerator[synthesis_pb2.EditResponse, None]:
        """One session, from the caller's messages to ours. Raises Overloaded, QuotaExceeded, and what EditSession raises."""
        self._check_room()
        session = EditSession(self._studio, self._limits)
        self._sessions[session] = calls.caller()
        try:
            async with contextlib.aclosing(session.serve(convert_edits.actions(requests))) as events:
                async for event in events:
                    yield await convert_edits.response(event)
        finally:
            del self._sessions[session]

    def _check_room(self) -> None:
        call, most = calls.current(), self._limits.sessions
        share = call.share if call.share is not None else self._limits.share if call.caller else 1.0
        own = sum(caller == call.caller for caller in self._sessions.values())
        if len(self) >= most:
            message = f"there are {len(self)} sessions of edits, as many as this server allows; try again later."
            raise Overloaded(message, retry_after_seconds=COME_BACK)
        if own >= max(1.0, share * most):
            message = f"you have {own} sessions of edits, as many as you may; end one first."
            raise QuotaExceeded(message, retry_after_seconds=COME_BACK)

    def drain(self) -> None:
        """Each ends as soon as the edit that it computes is done."""
        for session in list(self._sessions):
            session.drain()


class _Studio:
    """What a session needs, from the desk that every request passes."""

    def __init__(self, desk: Desk, limits: Limits, uploads: Uploads) -> None:
        self._desk = desk
        self._uploads = uploads
        self._decoding = asyncio.Semaphore(DECODERS)
        self._square = partial(square, max_pixels=limits.pixels, max_bytes=limits.image_bytes)

    def model(self, name: str) -> tuple[str, Card]:
        models = self._desk.models
        if not models.current():
            raise NoWorker("no worker is up, so nothing is known of the classifiers; open the picture again later.")
        info = models.get(name)
        return info.name, info.card

    async def square(self, photo: bytes, size: int, fit: str) -> bytes:
        async with self._decoding:
            return await asyncio.to_thread(self._square, photo, size, fit)

    def hold(self, size: int) -> Callable[[], None]:
        call = calls.current()
        return self._uploads.hold(call.caller, call.share, size).release

    def begin(self, request: Request, model: str) -> AbstractAsyncContextManager[Submitted]:
        return self._desk.ticket(Order(request, model, previews=True, interactive=True))
