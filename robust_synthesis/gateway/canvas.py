"""The picture that a session edits: where it came from, what it is now, and what it was before each edit."""

from __future__ import annotations

import dataclasses

from PIL import Image

from .. import imaging
from ..bundle import Output
from ..requests import Request

GREY = (128, 128, 128)


def square(
    photo: bytes,
    size: int,
    fit: str = "crop",
    *,
    max_pixels: int = imaging.MAX_PIXELS,
    max_bytes: int = imaging.MAX_BYTES,
) -> bytes:
    """A photo as every task sees it, `size` x `size` pixels, without loss (PNG); flat grey where there is none.

    Takes up to a second, so call it off the event loop. Raises InvalidInput for what is no picture and, before it is decoded, for
    what is above a limit.
    """
    if not photo:
        return imaging.encode(Image.new("RGB", (size, size), GREY))
    image = imaging.decode(photo, max_pixels=max_pixels, max_bytes=max_bytes)
    return imaging.encode(imaging.squared(image, size, fit))


class Canvas:
    """The current picture of one classifier's size, and a bounded history. Pictures are PNG files."""

    def __init__(self, picture: bytes, *, model: str, size: int, output: Output, most: int, most_bytes: int) -> None:
        self.model = model
        self.size = size
        self.output = output
        self.picture = picture
        self._before: list[bytes] = []
        self._most = most
        self._most_bytes = most_bytes

    @property
    def undoable(self) -> int:
        return len(self._before)

    def request(self, edit: Request) -> Request:
        """The edit, on the current picture."""
        image = self.picture if edit.spec.needs_image else None
        return dataclasses.replace(edit, image=image, size=self.size)

    def change(self, picture: bytes) -> None:
        """An edit is done. The oldest pictures are forgotten where there are too many."""
        self._before.append(self.picture)
        self.picture = picture
        while len(self._before) > self._most or sum(map(len, self._before)) > self._most_bytes:
            del self._before[0]

    def undo(self) -> bool:
        """Back to the picture before the last edit; False where none is known."""
        if not self._before:
            return False
        self.picture = self._before.pop()
        return True
