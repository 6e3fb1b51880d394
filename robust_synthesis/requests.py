"""One synthesis request, as every entrance (library, command line, TorchServe, gateway) passes it on."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .errors import InvalidInput
from .imaging import FITS
from .specs import Spec

ImageSource = Image.Image | np.ndarray | bytes | str | os.PathLike[str]
Box = str | tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to make (`spec`), from which pictures, and how they become a square of the classifier's size and go back.

    Raises InvalidInput for what the task has no use for, rather than ignore it.
    """

    spec: Spec
    image: ImageSource | None = None
    mask: ImageSource | None = None
    """As large as the image; white is where to edit."""
    box: Box | None = None
    """x, y, width, height of what to edit in pixels of the image, instead of a mask."""
    size: int | None = None
    """Side of the result in pixels; default: the classifier's."""
    fit: str = "crop"
    paste_back: bool = False
    """Return the whole image at its own resolution with the edit in it."""

    @property
    def file_bytes(self) -> int:
        """Of its pictures, as far as they are files."""
        return sum(len(file) for file in (self.image, self.mask) if isinstance(file, bytes))

    def __post_init__(self) -> None:
        task = self.spec.task
        if self.fit not in FITS:
            raise InvalidInput("fit", f"is {self.fit!r}; use {', '.join(FITS)}.")
        if self.spec.needs_image and self.image is None:
            raise InvalidInput("image", f"{task} needs an image.")
        if self.spec.needs_mask and self.mask is None and self.box is None:
            raise InvalidInput("mask", f"{task} needs a mask of the part to edit, or a box.")
        if self.mask is not None and self.box is not None:
            raise InvalidInput("box", "give either a mask or a box, not both.")
        for name, useful in {
            "image": self.spec.needs_image,
            "mask": self.spec.needs_mask,
            "box": self.spec.needs_mask,
            "paste_back": self.spec.needs_image,
        }.items():
            given = getattr(self, name)
            if given is not None and given is not False and not useful:
                raise InvalidInput(name, f"{task} has no use for it; leave it out.")
