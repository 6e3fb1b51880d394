"""One page's conversation: its orders come in, what happens to them goes out, and what is left is cancelled when it closes.

A message of the page has `id`, `do`, what that needs, and files:

    square    model, size, fit                  photo or none       -> picture [PNG]
    edit      model, size, fit, task            picture, mask?      -> frame... [JPEG], result [PNG]
    make      model, options, task, frames,     those that `with`   -> queued..., frame... [JPEG], result [PNG...]
              with (image, mask)                names
    classify  model, fit                        image               -> classes
    animate   format, enlarge                   frames              -> animation [file]
    cancel    of                                                    (`id` is that of no order)

An order ends with its last event or with `failed`; `task` is a spec as `specs.to_json` writes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from .. import imaging
from ..client import AsyncClient, Cancelled, DeadlineExceeded, Overloaded, Progress, Queued, Result, Unavailable
from ..errors import InvalidInput, SynthesisError
from ..specs import Spec, from_json
from .easel import Easel, Frame
from .envelope import pack, unpack
from .protection import TooMany, Visits
from .watch import Watch

log = logging.getLogger(__name__)
MOST_FRAMES = 200
"""Of an animation."""
MOST_PIXELS = 512**2
"""Of each of them."""
MOST_ENLARGED = 512
"""Side that an animation is enlarged to, at most."""
OPTIONS = ("size", "fit", "paste_back")


class Visitor:
    """Serves one WebSocket."""

    def __init__(self, socket: WebSocket, client: AsyncClient, watch: Watch, visits: Visits) -> None:
        self._socket = socket
        self._client = client
        self._watch = watch
        self._visits = visits
        self._address = socket.client.host if socket.client else ""
        self._orders: dict[int, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()
        self._easel = Easel(client)

    async def serve(self) -> None:
        """Until the page closes."""
        telling = asyncio.create_task(self._tell_states())
        try:
            async with self._easel:
                try:
                    while True:
                        await self._take(await self._socket.receive_bytes())
                finally:
                    orders = [*self._orders.values(), telling]
                    for task in orders:
                        task.cancel()
                    await asyncio.gather(*orders, return_exceptions=True)
        except (WebSocketDisconnect, KeyError):  # KeyError: a text, which this page never sends
            pass

    async def _take(self, message: bytes) -> None:
        try:
            head, files = unpack(message)
        except InvalidInput as error:
            await self._send({"event": "failed", "id": 0, **_reason(error)})
            return
        number = head.get("id")
        if head.get("do") == "cancel":
            of = head.get("of")
            if isinstance(of, int) and of in self._orders:
                self._orders[of].cancel()
        elif isinstance(number, int) and number not in self._orders:
            self._orders[number] = asyncio.create_task(self._serve_order(number, head, files))

    async def _serve_order(self, number: int, head: dict[str, Any], files: list[bytes]) -> None:
        async def tell(event: str, files: Sequence[bytes] = (), **more: Any) -> None:
            await self._send({"event": event, "id": number, **more}, files)

        try:
            work = _WORK.get(head.get("do"))  # type: ignore[arg-type]
            if work is None:
                raise InvalidInput("do", "is nothing that the studio does; load the page again.")
            with self._visits.job(self._address):
                await work(self, head, files, tell)
        except (SynthesisError, TooMany) as error:
            await tell("failed", **_reason(error))
        except (KeyError, TypeError, IndexError) as error:
            await tell("failed", **_reason(InvalidInput("message", f"lacks something ({error}); load the page again.")))
        except WebSocketDisconnect:
            pass
        except Exception:
            log.exception("an order of the page failed")
            await tell("failed", field="", message="The studio has made a mistake; its log has more.")
        finally:
            self._orders.pop(number, None)

    async def _square(self, head: dict[str, Any], files: list[bytes], tell: Tell) -> None:
        if files and not files[0]:
            raise InvalidInput("image", "is an empty file; open another one.")
        picture = await self._easel.square(_frame(head), files[0] if files else b"")
        await tell("picture", [picture])

    async def _edit(self, head: dict[str, Any], files: list[bytes], tell: Tell) -> None:
        spec = _spec(head)
        edit = await self._easel.apply(_frame(head), files[0], spec, files[1] if len(files) > 1 else None)
        try:
            async for frame in edit:
                await tell("frame", [frame.file] if frame.file else [], **_progress(frame))
            result = await edit.result()
        except asyncio.CancelledError:
            await self._easel.cancel()
            raise
        self._easel.changed(result.pictures[0].file)
        await tell("result", [picture.file for picture in result.pictures], **_report(result))

    async def _make(self, head: dict[str, Any], files: list[bytes], tell: Tell) -> None:
        given: dict[str, Any] = {**head["options"], **dict(zip(head["with"], files, strict=False))}
        image, mask = given.pop("image", None), given.pop("mask", None)
        for name in given.keys() - set(OPTIONS):
            raise InvalidInput(name, "is nothing that the studio sends; load the page again.")
        frames = min(int(head["frames"]), MOST_FRAMES)
        stream = self._client.stream.make(
            _spec(head), image, mask, previews=True, frames=frames, model=str(head["model"]), **given
        )
        async with stream:
            async for event in stream:
                match event:
                    case Queued():
                        await tell("queued", position=event.position, seconds=event.estimated_wait_seconds)
                    case Progress():
                        await tell("frame", [event.file] if event.file else [], **_progress(event))
                    case Result():
                        await tell("result", [picture.file for picture in event.pictures], **_report(event))

    async def _classify(self, head: dict[str, Any], files: list[bytes], tell: Tell) -> None:
        found = await self._client.classify(files[0], model=str(head["model"]), fit=str(head["fit"]))
        await tell("classes", classes=list(found.items()))

    async def _animate(self, head: dict[str, Any], files: list[bytes], tell: Tell) -> None:
        if len(files) > MOST_FRAMES:
            raise InvalidInput("frames", f"are {len(files)}; give at most {MOST_FRAMES}.")
        side = min(max(int(head["enlarge"]), 1), MOST_ENLARGED)

        def draw() -> bytes:
            frames = [imaging.decode(file, field="frames", max_pixels=MOST_PIXELS) for file in files]
            return imaging.animated(frames, str(head["format"]), at_least=side)

        await tell("animation", [await asyncio.to_thread(draw)])

    async def _tell_states(self) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            async for state in self._watch.states():
                names = [[each.name, each.version] for each in state.models]
                await self._send({"event": "gateway", "id": 0, "up": state.up, "why": state.why, "models": names})

    async def _send(self, head: dict[str, Any], files: Sequence[bytes] = ()) -> None:
        async with self._sending:
            try:
                await self._socket.send_bytes(pack(head, files))
            except RuntimeError as error:  # the page has gone, and nobody has told Starlette yet
                raise WebSocketDisconnect from error


Tell = Callable[..., Awaitable[None]]
_WORK: dict[str, Callable[[Visitor, dict[str, Any], list[bytes], Tell], Awaitable[None]]] = {
    "square": Visitor._square,
    "edit": Visitor._edit,
    "make": Visitor._make,
    "classify": Visitor._classify,
    "animate": Visitor._animate,
}


def _frame(head: dict[str, Any]) -> Frame:
    return str(head["model"]), int(head["size"]), str(head["fit"])


def _spec(head: dict[str, Any]) -> Spec:
    task = head["task"]
    if not isinstance(task, dict):
        raise InvalidInput("task", "is missing; load the page again.")
    return from_json(task)


def _progress(frame: Progress) -> dict[str, Any]:
    names = ("index", "step", "steps", "loss", "probability")
    return {name: getattr(frame, name) for name in names}


def _report(result: Result) -> dict[str, Any]:
    return {"report": result.report()}


def _reason(error: Exception) -> dict[str, Any]:
    """Why an order has no result. `lost`: the same order may work in a moment, at the same gateway or the next."""
    reason: dict[str, Any] = {"field": "", "message": str(error)}
    if isinstance(error, InvalidInput):
        reason = {"field": error.field, "message": error.message}
    idle = isinstance(error, DeadlineExceeded) and error.reason == "SESSION_IDLE"
    reason["lost"] = isinstance(error, Unavailable) or idle
    reason["cancelled"] = isinstance(error, Cancelled)
    if isinstance(error, Overloaded):
        reason["retry"] = error.retry_after_seconds
    return reason
