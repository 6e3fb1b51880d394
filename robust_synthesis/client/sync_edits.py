"""A session of edits, for programs without asyncio."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc
from PIL import Image

from ..requests import Box, ImageSource
from ..specs import Spec
from ..v1 import synthesis_pb2
from .edits import CANCEL, UNDO, Book, Stroke
from .errors import ServerFailed, error_of
from .results import Progress, Result


class EditSession:
    """Edits of one picture: each starts from the current one, its frames come while it is computed, and its result is the next.

        with client.edit("photo.png") as session:
            edit = session.apply(specs.PaintFeatures(target="dog"), box=(8, 8, 16, 16))
            for progress in edit:
                show(progress.preview)
            session.undo()

    An edit that is applied while another runs waits; one that waits is replaced by a newer one. Leaving the session drops
    what is under way. Threads may share it.
    """

    def __init__(
        self, begin: Callable[[Iterator[synthesis_pb2.EditRequest]], Any], book: Book, image: ImageSource | None
    ) -> None:
        """`begin` starts the call."""
        self._begin = begin
        self._book = book
        self._first = image
        self._requests: queue.SimpleQueue[synthesis_pb2.EditRequest | None] = queue.SimpleQueue()
        self._reading = threading.Lock()
        self._call: Any

    def __enter__(self) -> Self:
        opening = self._book.open(self._first)
        self._call = self._begin(iter(self._requests.get, None))
        try:
            self._look(opening)
        except BaseException:
            self._end(dropping=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end(dropping=kind is not None or self._book.busy)

    @property
    def image(self) -> Image.Image:
        """The current picture, as far as responses have been read."""
        return self._book.image

    @property
    def size(self) -> int:
        """Its side, pixels."""
        return self._book.size

    @property
    def undoable(self) -> int:
        """How many edits can be taken back."""
        return self._book.undoable

    def apply(self, spec: Spec, *, mask: ImageSource | None = None, box: Box | None = None) -> Edit:
        """Begin an edit; mask and box are in pixels of the current picture. Does not wait."""
        request, stroke = self._book.apply(spec, mask, box)
        self._requests.put(request)
        return Edit(stroke, self._until)

    def open(self, image: ImageSource | None = None) -> Image.Image:
        """Go on with another picture; what is under way is dropped."""
        return self._look(self._book.open(image))

    def undo(self) -> Image.Image:
        """Take back the newest edit, whether it waits, runs or is done. Raises InvalidInput where there is none."""
        return self._look(UNDO)

    def cancel(self) -> None:
        """Drop the edits that run and wait; the picture stays."""
        self._requests.put(CANCEL)

    def _end(self, *, dropping: bool) -> None:
        if dropping:
            self._call.cancel()
        self._requests.put(None)
        self._until(lambda: self._book.error is not None)

    def _look(self, request: synthesis_pb2.EditRequest) -> Image.Image:
        look = self._book.look()
        self._requests.put(request)
        self._until(lambda: look.done)
        return look.picture

    def _until(self, done: Callable[[], bool]) -> None:
        """Read responses until then."""
        while not done():
            with self._reading:
                if not done():
                    self._read()

    def _read(self) -> None:
        try:
            self._book.take(next(self._call))
        except StopIteration:
            self._book.end(ServerFailed(f"server: {self._book.server} has ended the session."))
        except grpc.RpcError as error:
            self._book.end(error_of(error, self._book.server))


class Edit:
    """Iterate over it for progress, with previews; its `result` is that of any task, and becomes the current picture."""

    def __init__(self, stroke: Stroke, until: Callable[[Callable[[], bool]], None]) -> None:
        self._stroke = stroke
        self._until = until

    def __iter__(self) -> Iterator[Progress]:
        """Frames that are not fetched in time are replaced by newer. Ends with the edit, however that ends."""
        while True:
            self._until(lambda: self._stroke.news)
            frame = self._stroke.fetch()
            if frame is None:
                return
            yield frame

    def result(self) -> Result:
        """Wait for it. Raises Cancelled where it was replaced, undone or dropped."""
        self._until(lambda: self._stroke.done)
        return self._stroke.result
