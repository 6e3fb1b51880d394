"""A visitor's one session of edits, which is opened when it is needed and opened anew when it was lost."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from .. import imaging
from ..client import AsyncClient, AsyncEdit, AsyncEditSession
from ..specs import Spec

Frame = tuple[str, int, str]
"""Of a session: model, side in pixels, and how photos become squares."""


class Easel:
    """Edits start from the picture that comes with them; only where that is not the session's own, it is opened first."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._session: AsyncEditSession | None = None
        self._frame: Frame | None = None
        self._picture = b""
        self._one_at_a_time = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def square(self, frame: Frame, photo: bytes) -> bytes:
        """A photo as the classifier will see it, PNG. Empty: flat grey. Raises what the client raises."""
        async with self._one_at_a_time:
            return await self._open(frame, photo)

    async def apply(self, frame: Frame, picture: bytes, spec: Spec, mask: bytes | None) -> AsyncEdit:
        """Begin an edit of a square picture, PNG. Raises what the client raises."""
        async with self._one_at_a_time:
            if picture != self._picture or self._lost(frame):
                await self._open(frame, picture)
            assert self._session is not None
            return await self._session.apply(spec, mask=mask)

    def changed(self, picture: bytes) -> None:
        """An edit is done, and this is its file."""
        self._picture = picture

    async def cancel(self) -> None:
        """Drop what is under way."""
        if self._session is not None and self._session.ended is None:
            await self._session.cancel()

    def _lost(self, frame: Frame) -> bool:
        return self._session is None or self._session.ended is not None or frame != self._frame

    async def _open(self, frame: Frame, photo: bytes) -> bytes:
        self._picture = b""
        if self._lost(frame):
            await self._close()
            model, size, fit = frame
            self._frame = frame
            session = self._client.edit(photo or None, model=model, size=size, fit=fit)
            self._session = await session.__aenter__()
        else:
            assert self._session is not None
            await self._session.open(photo or None)
        self._picture = await asyncio.to_thread(imaging.encode, self._session.image)
        return self._picture

    async def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.__aexit__(None, None, None)
