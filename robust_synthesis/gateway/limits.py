"""What a single request may be at most."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidInput
from ..imaging import MAX_BYTES, MAX_PIXELS, header
from ..requests import Request
from ..specs import MAX_COUNT, MAX_STEPS


@dataclass(frozen=True)
class Limits:
    """Of one request. Raises InvalidInput for limits that allow nothing, or more than the engine has."""

    image_bytes: int = MAX_BYTES
    """Of the file of an image or a mask."""
    pixels: int = MAX_PIXELS
    """Of an image or a mask, counted from its header before anything is decoded."""
    steps: int = MAX_STEPS
    pictures: int = MAX_COUNT

    def __post_init__(self) -> None:
        for name, most in (
            ("image_bytes", MAX_BYTES),
            ("pixels", MAX_PIXELS),
            ("steps", MAX_STEPS),
            ("pictures", MAX_COUNT),
        ):
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise InvalidInput(name, f"is {value}; give 1 to {most}.")

    def check_parameters(self, request: Request) -> None:
        """Raises InvalidInput."""
        if request.spec.steps is not None and request.spec.steps > self.steps:
            raise InvalidInput("steps", f"is {request.spec.steps}; this server allows up to {self.steps}.")
        if request.spec.pictures > self.pictures:
            raise InvalidInput("count", f"is {request.spec.pictures}; this server allows up to {self.pictures}.")

    def check_pictures(self, request: Request) -> None:
        """Format and size of image and mask, by their headers. Takes a moment. Raises InvalidInput."""
        for name in ("image", "mask"):
            file = getattr(request, name)
            if file is not None:
                header(file, field=name, max_pixels=self.pixels, max_bytes=self.image_bytes)
