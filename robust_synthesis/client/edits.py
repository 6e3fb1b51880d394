"""What a session of edits knows, without its sending and waiting, which `sync.py` and `aio.py` do each in their way."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from google.rpc import status_pb2
from PIL import Image

from .. import imaging
from ..bundle import Output
from ..errors import InvalidInput, SynthesisError
from ..messages import write_fit, write_output, write_task
from ..requests import Box, ImageSource, Request
from ..specs import Spec
from ..v1 import synthesis_pb2
from . import results
from .errors import of_status
from .orders import check, numbered, text
from .results import Progress, Result

_CURRENT = b"\x00"
"""Stands for the session's picture, which is the server's to put in."""


class Stroke:
    """One edit. Of the frames that nobody has fetched, only the newest is kept."""

    def __init__(self, edit_id: int, geometry: Mapping[str, Any]) -> None:
        self.edit_id = edit_id
        self.geometry = geometry
        self.frame: Progress | None = None
        self._result: Result | None = None
        self._error: SynthesisError | None = None

    @property
    def done(self) -> bool:
        return self._result is not None or self._error is not None

    @property
    def news(self) -> bool:
        return self.frame is not None or self.done

    def fetch(self) -> Progress | None:
        frame, self.frame = self.frame, None
        return frame

    def end(self, result: Result | None, error: SynthesisError | None = None) -> None:
        if not self.done:
            self._result, self._error = result, error

    @property
    def result(self) -> Result:
        """Raises what it ended with; Cancelled where it was replaced, undone or cancelled."""
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


class Look:
    """Waits for the current picture, after `open` and `undo`."""

    def __init__(self) -> None:
        self._picture: Image.Image | None = None
        self._error: SynthesisError | None = None

    @property
    def done(self) -> bool:
        return self._picture is not None or self._error is not None

    def end(self, picture: Image.Image | None, error: SynthesisError | None = None) -> None:
        self._picture, self._error = picture, error

    @property
    def picture(self) -> Image.Image:
        """Raises why there is none."""
        if self._error is not None:
            raise self._error
        assert self._picture is not None
        return self._picture


class Book:
    """Makes requests, and takes in the server's responses to them."""

    def __init__(self, server: str, *, model: str, size: int | None, fit: str, output: Output) -> None:
        """Raises InvalidInput."""
        check(size=size, output=output)
        if fit not in imaging.FITS:
            raise InvalidInput("fit", f"is {fit!r}; use {', '.join(imaging.FITS)}.")
        self._opening = synthesis_pb2.OpenPicture(model=text("model", model), output=write_output(output))
        if size is not None:
            self._opening.placement.size = size
        write_fit(self._opening.placement, fit)
        self.image: Image.Image
        self.size = 0
        self.undoable = 0
        self.error: SynthesisError | None = None
        """That ended the session."""
        self.server = server
        self._strokes: dict[int, Stroke] = {}
        self._looks: deque[Look] = deque()
        self._edits = 0

    @property
    def busy(self) -> bool:
        """Whether an edit waits or runs."""
        return bool(self._strokes)

    def open(self, image: ImageSource | None) -> synthesis_pb2.EditRequest:
        """Reads the file, which takes a moment. Raises InvalidInput."""
        request = synthesis_pb2.EditRequest(open=self._opening)
        request.open.image = b"" if image is None else imaging.to_file(image)
        return request

    def look(self) -> Look:
        """What the request that is sent next, `open` or `undo`, waits for."""
        look = Look()
        if self.error is not None:
            look.end(None, self.error)
        else:
            self._looks.append(look)
        return look

    def apply(self, spec: Spec, mask: ImageSource | None, box: Box | None) -> tuple[synthesis_pb2.EditRequest, Stroke]:
        """Raises InvalidInput, and what ended the session where it has ended."""
        if self.error is not None:
            raise self.error
        spec = numbered(spec)
        drawn = None if mask is None else imaging.to_file(mask, field="mask")
        request = Request(spec=spec, image=_CURRENT if spec.needs_image else None, mask=drawn, box=box)
        check(unit=getattr(spec, "unit", None), target=getattr(spec, "target", None))
        task = write_task(spec, mask=drawn or b"", box=box)
        self._edits += 1
        geometry = {"box": box} if request.spec.needs_mask else {}
        stroke = self._strokes[self._edits] = Stroke(self._edits, geometry)
        if self.error is not None:  # while the files were read
            self.end(self.error)
        return synthesis_pb2.EditRequest(apply=synthesis_pb2.ApplyEdit(edit_id=stroke.edit_id, task=task)), stroke

    def take(self, response: synthesis_pb2.EditResponse) -> None:
        """Raises ServerFailed for a picture that is none."""
        match response.WhichOneof("event"):
            case "current":
                self.image, self.size = results.picture(response.current.image), response.current.size
                self.undoable = response.current.undoable
                if self._looks:
                    self._looks.popleft().end(self.image)
            case "frame":
                stroke = self._strokes.get(response.frame.edit_id)
                if stroke is not None:
                    stroke.frame = results.progress(response.frame.progress)
            case "result":
                self._finish(response.result)
            case "failure":
                self._fail(response.failure)

    def end(self, error: SynthesisError) -> None:
        """The session has ended, and with it all that waits."""
        self.error = self.error or error
        for stroke in list(self._strokes.values()):
            stroke.end(None, error)
        for look in list(self._looks):
            look.end(None, error)
        self._strokes.clear()
        self._looks.clear()

    def _finish(self, message: synthesis_pb2.EditResult) -> None:
        stroke = self._strokes.pop(message.edit_id, None)
        found = results.result(message.result, self.server, {} if stroke is None else stroke.geometry)
        self.image, self.undoable = found.image, message.undoable
        if stroke is not None:
            stroke.end(found)

    def _fail(self, failure: synthesis_pb2.EditFailure) -> None:
        status = status_pb2.Status(code=failure.code, message=failure.message, details=failure.details)
        error = of_status(status, self.server)
        stroke = self._strokes.pop(failure.edit_id, None)
        if stroke is not None:
            stroke.end(None, error)
        elif not failure.edit_id and self._looks:
            self._looks.popleft().end(None, error)


UNDO = synthesis_pb2.EditRequest(undo=synthesis_pb2.UndoEdit())
CANCEL = synthesis_pb2.EditRequest(cancel=synthesis_pb2.CancelEdit())
