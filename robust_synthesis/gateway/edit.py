"""A session of edits of one picture: strokes come in, frames go out while they are computed, and every result is the next start.

    session = EditSession(studio)
    async for event in session.serve(actions):
        ...

Nothing is computed, and nothing is held at a worker, between two edits. One edit runs at a time; one more waits, the newest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import InvalidInput, SynthesisError
from ..model_folder import Card
from ..requests import Request
from .canvas import Canvas
from .edits import Action, Apply, Cancel, Current, Done, Event, Failed, Frame, Open, Undo, Unreadable
from .errors import Cancelled, SessionIdle, ShuttingDown
from .jobs import Progress, Queued
from .outbox import Outbox
from .tickets import Outcome

log = logging.getLogger(__name__)

SMALL = 1024
"""Bytes that an event without pictures counts for."""


@dataclass(frozen=True)
class SessionLimits:
    sessions: int = 64
    """At a time, of all callers."""
    share: float = 0.5
    """Of them, for one caller that has a name."""
    undo: int = 50
    undo_bytes: int = 8 * 2**20
    unread_bytes: int = 4 * 2**20
    """Of events that the caller has not read; beyond it, nothing further that it asks for is looked at."""
    idle_seconds: float = 600
    """Without an edit under way and without anything asked."""


class Submitted(Protocol):
    """A Ticket, mostly."""

    def news(self) -> AsyncIterator[Queued | Progress]:
        """Until it has ended."""

    async def result(self) -> Outcome:
        """Raises what it ended with."""


class Studio(Protocol):
    """What a session needs of its gateway."""

    def model(self, name: str) -> tuple[str, Card]:
        """Full name and card of a classifier. Raises NotFound, and NoWorker where none is known."""

    async def square(self, photo: bytes, size: int, fit: str) -> bytes:
        """`canvas.square`, off the event loop and within the limits of the gateway."""

    def hold(self, size: int) -> Callable[[], None]:
        """Have the caller's account bear so many bytes of an edit that waits, until what is given is called.

        Raises Overloaded, or QuotaExceeded.
        """

    def begin(self, request: Request, model: str) -> AbstractAsyncContextManager[Submitted]:
        """Let an interactive request in, and submit it; what is not done when the context is left is cancelled.

        Raises what admission and the dispatcher raise.
        """


class EditSession:
    """One caller's session. All of it runs on the event loop, but for the decoding of photos."""

    def __init__(self, studio: Studio, limits: SessionLimits = SessionLimits()) -> None:
        self._studio = studio
        self._limits = limits
        self._outbox: Outbox[Event] = Outbox(limits.unread_bytes)
        self._canvas: Canvas | None = None
        self._running: Apply | None = None
        self._waiting: Apply | None = None
        self._release: Callable[[], None] = _nothing
        """To be called when it waits no more."""
        self._work: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking = False
        self._no_more_actions = False
        self._error: Exception | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def serve(self, actions: AsyncIterable[Action]) -> AsyncGenerator[Event, None]:
        """Until there are no more actions and the last edit is done; what is under way when this is closed is dropped.

        Raises SessionIdle, ShuttingDown after `drain`, and what `actions` raises.
        """
        self._task(self._read(actions))
        self._rest()
        try:
            async for event in self._outbox:
                yield event
            if self._error is not None:
                raise self._error
        finally:
            await asyncio.gather(*self._drop_all(), return_exceptions=True)

    def drain(self) -> None:
        """Begin no more edits, and end once the one that runs is done."""
        self._error = ShuttingDown("the gateway is shutting down; go on at another one, from the last picture.")
        self._drop_waiting(self._error)
        self._end_if_done()

    # Actions.

    async def _read(self, actions: AsyncIterable[Action]) -> None:
        try:
            async for action in actions:
                self._taking = True
                self._rest()
                try:
                    await self._take(action)
                except Exception as error:
                    self._fail(action, error)
                self._taking = False
                self._rest()
                await self._outbox.room()
        except Exception as error:
            self._error = error
        self._no_more_actions = True
        self._end_if_done()

    async def _take(self, action: Action) -> None:
        match action:
            case Open():
                await self._open(action)
            case Apply():
                self._apply(action)
            case Undo():
                self._undo()
            case Cancel():
                self._drop_waiting(Cancelled("cancelled: the caller took the edit back."))
                self._drop_running(Cancelled("cancelled: the caller took the edit back."))
            case Unreadable():
                raise action.error

    async def _open(self, action: Open) -> None:
        if self._error is not None:
            raise self._error
        model, card = self._studio.model(action.model)
        size = card.size if action.size is None else action.size
        if not card.min_size <= size <= card.max_size:
            raise InvalidInput("size", f"is {size}; {model} accepts {card.min_size} to {card.max_size} pixels.")
        picture = await self._studio.square(action.image, size, action.fit)
        another = Cancelled("cancelled: another picture was opened.")
        self._drop_waiting(another)
        self._drop_running(another)
        most, most_bytes = self._limits.undo, self._limits.undo_bytes
        self._canvas = Canvas(picture, model=model, size=size, output=action.output, most=most, most_bytes=most_bytes)
        self._show()

    def _apply(self, edit: Apply) -> None:
        self._opened()
        if self._error is not None:
            raise self._error
        if self._running is None:
            self._start(edit)
        else:
            self._drop_waiting(Cancelled("cancelled: a newer edit took its place while it waited."))
            self._release = self._studio.hold(edit.request.file_bytes)
            self._waiting = edit

    def _undo(self) -> None:
        canvas = self._opened()
        taken_back = Cancelled("cancelled: the edit was undone.")
        if not (self._drop_waiting(taken_back) or self._drop_running(taken_back) or canvas.undo()):
            raise InvalidInput("undo", "there is no edit to take back.")
        self._show()

    # Edits.

    def _start(self, edit: Apply) -> None:
        self._running = edit
        self._work = self._task(self._run(edit, self._opened()))
        self._rest()

    async def _run(self, edit: Apply, canvas: Canvas) -> None:
        try:
            async with self._studio.begin(canvas.request(edit.request), canvas.model) as ticket:
                async for news in ticket.news():
                    if isinstance(news, Progress) and news.x is not None:
                        self._outbox.put(Frame(edit, news), news.x.nbytes, key=edit)
                outcome = await ticket.result()
            canvas.change(outcome.pictures[0].file)
            done = Done(edit, outcome, canvas.output, canvas.undoable)
            self._outbox.put(done, len(canvas.picture))
        except Exception as error:
            if self._running is edit:
                self._fail(edit, error)
        if self._running is edit:
            self._next()

    def _next(self) -> None:
        """The edit that ran has ended."""
        edit, self._running = self._no_longer_waiting(), None
        if edit is not None:
            self._start(edit)
        self._rest()
        self._end_if_done()

    def _drop_running(self, why: SynthesisError) -> bool:
        edit = self._running
        if edit is None or self._work is None:
            return False
        self._work.cancel()
        self._fail(edit, why)
        self._next()
        return True

    def _drop_waiting(self, why: SynthesisError) -> bool:
        edit = self._no_longer_waiting()
        if edit is not None:
            self._fail(edit, why)
        return edit is not None

    def _no_longer_waiting(self) -> Apply | None:
        edit, self._waiting = self._waiting, None
        self._release()
        self._release = _nothing
        return edit

    # What both need.

    def _opened(self) -> Canvas:
        if self._canvas is None:
            raise InvalidInput("open", "is missing; open a picture first.")
        return self._canvas

    def _show(self) -> None:
        canvas = self._opened()
        self._outbox.put(Current(canvas.picture, canvas.size, canvas.undoable), len(canvas.picture))

    def _fail(self, action: Action, error: Exception) -> None:
        if not isinstance(error, SynthesisError):
            log.error("an edit failed", exc_info=error)
        self._outbox.put(Failed(action, error), SMALL)

    def _rest(self) -> None:
        """Something has happened: from now on the session is idle, unless something is under way."""
        if self._idle is not None:
            self._idle.cancel()
        if not self._taking and self._running is None:
            self._idle = asyncio.get_running_loop().call_later(self._limits.idle_seconds, self._expire)

    def _expire(self) -> None:
        """What the caller has not read, if it reads at all, is dropped, too."""
        message = f"nothing was asked of the session for {self._limits.idle_seconds:g} s; open another one."
        self._error = SessionIdle(message)
        self._drop_all()
        self._outbox.clear()
        self._outbox.close()

    def _end_if_done(self) -> None:
        if self._running is None and self._waiting is None and (self._no_more_actions or self._error is not None):
            self._outbox.close()

    def _drop_all(self) -> list[asyncio.Task[None]]:
        """Stop whatever is under way."""
        if self._idle is not None:
            self._idle.cancel()
        self._no_longer_waiting()
        self._running = self._canvas = None
        for task in self._tasks:
            task.cancel()
        return list(self._tasks)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _nothing() -> None:
    """There is nothing to release."""
