"""The messages of `SynthesisService.Edit`, to and from what a session of edits takes and tells."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterable, AsyncIterator

from .. import imaging
from ..bundle import Output
from ..errors import InvalidInput
from ..messages import chosen, read_output, read_placement, read_request
from ..v1 import synthesis_pb2
from . import calls, convert
from .edits import Action, Apply, Cancel, Current, Done, Event, Failed, Frame, Open, Undo, Unreadable
from .previews import preview
from .reading import aside
from .statuses import status_of
from .tickets import Outcome

Response = synthesis_pb2.EditResponse

_OPEN = {
    "model": "open.model",
    "image": "open.image",
    "size": "open.placement.size",
    "fit": "open.placement.fit",
    "paste_back": "open.placement.paste_back",
    "format": "open.output.format",
    "quality": "open.output.quality",
}


async def actions(messages: AsyncIterable[synthesis_pb2.EditRequest]) -> AsyncIterator[Action]:
    """What cannot be read becomes an action that fails, with the field's path in the message."""
    async for message in messages:
        yield await aside(calls.current().size, action, message)


def action(message: synthesis_pb2.EditRequest) -> Action:
    which = message.WhichOneof("action")
    if which == "open":
        return _open(message.open)
    if which == "apply":
        return _apply(message.apply)
    if which is None:
        return Unreadable(0, InvalidInput("action", "is missing; give one of open, apply, undo, cancel."))
    return Undo() if which == "undo" else Cancel()


async def response(event: Event) -> synthesis_pb2.EditResponse:
    """Pictures are encoded off the event loop."""
    match event:
        case Current(picture, size, undoable):
            return Response(current=synthesis_pb2.CurrentPicture(image=picture, size=size, undoable=undoable))
        case Frame(edit, progress):
            made = b"" if progress.x is None else await preview(progress.x)
            frame = synthesis_pb2.EditFrame(edit_id=edit.edit_id, progress=convert.progress(progress, made))
            return Response(frame=frame)
        case Done(edit, outcome, output, undoable):
            shown = await asyncio.to_thread(_in_format, outcome, output)
            result = convert.result(shown, edit.request, output, calls.current().id)
            done = synthesis_pb2.EditResult(edit_id=edit.edit_id, result=result, undoable=undoable)
            return Response(result=done)
        case Failed(failed, error):
            return Response(failure=_failure(failed, error))


def _open(message: synthesis_pb2.OpenPicture) -> Open | Unreadable:
    try:
        placement = read_placement(message.placement)
        if placement.pop("paste_back"):
            raise InvalidInput("paste_back", "a session edits the square alone; leave it out.")
        return Open(message.model, message.image, output=read_output(message.output), **placement)
    except InvalidInput as error:
        return Unreadable(0, error.at(_OPEN[error.field]))


def _apply(message: synthesis_pb2.ApplyEdit) -> Apply | Unreadable:
    def path(field: str) -> str:
        return convert.task_path(message.task, "apply.task", field)

    try:
        spec = chosen(message.task)
        if getattr(spec, "image", b""):
            raise InvalidInput("image", "is the current picture in an edit; leave it out.")
        return Apply(message.edit_id, read_request(spec, image=b""), path)
    except InvalidInput as error:
        return Unreadable(message.edit_id, error.at(path(error.field)))


def _failure(action: Action, error: Exception) -> synthesis_pb2.EditFailure:
    if isinstance(error, InvalidInput) and isinstance(action, Apply):
        error = error.at(action.path(error.field))
    elif isinstance(error, InvalidInput) and isinstance(action, Open):
        error = error.at(_OPEN.get(error.field, error.field))
    status = status_of(error)
    edit_id = action.edit_id if isinstance(action, (Apply, Unreadable)) else 0
    return synthesis_pb2.EditFailure(edit_id=edit_id, code=status.code, message=status.message, details=status.details)


def _in_format(outcome: Outcome, output: Output) -> Outcome:
    """The outcome with its picture, a PNG file, as the caller wants it."""
    if output.format == "png":
        return outcome
    (picture,) = outcome.pictures
    file = imaging.encode(imaging.decode(picture.file), output.format, output.quality)
    return dataclasses.replace(outcome, pictures=[dataclasses.replace(picture, file=file)])
