"""What a caller gets back: pictures, and all that is needed to make them again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from . import imaging


@dataclass(frozen=True)
class Progress:
    """Where a request stands."""

    step: int
    steps: int
    loss: float
    """Mean over the pictures in work."""
    probability: float
    """Of the target, mean over the pictures in work."""


@dataclass(frozen=True)
class Picture:
    """One result. Distances are from the start, in units of pixel values in [0, 1]."""

    image: Image.Image
    start: Image.Image | None
    """None where it was made by a server, which does not send it."""
    target: str
    """Class, or latent unit, that was descended to."""
    seed: int | None
    index: int
    probability_before: float
    """Of the target, at the start."""
    probability_after: float
    predicted: str
    """The class that the classifier sees in the result."""
    l2: float
    linf: float
    steps: int
    losses: tuple[float, ...] = field(repr=False)
    """At every evaluation; the first is the start's."""
    probabilities: tuple[float, ...] = field(repr=False)
    frames: tuple[tuple[int, Image.Image], ...] = field(default=(), repr=False)
    """(step, picture) on the way, where asked for."""

    def report(self) -> dict[str, Any]:
        """Everything but the images, as JSON types."""
        hidden = ("image", "start", "frames")
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in hidden}


@dataclass(frozen=True)
class Result:
    """The answer to one request."""

    task: str
    model: str
    version: str
    precision: str
    device: str
    parameters: Mapping[str, Any]
    """What really ran, every default filled in."""
    seconds: float
    pictures: tuple[Picture, ...]

    @property
    def image(self) -> Image.Image:
        """The first picture."""
        return self.pictures[0].image

    @property
    def images(self) -> list[Image.Image]:
        return [picture.image for picture in self.pictures]

    def save(self, path: str | Path) -> None:
        """Write the first picture; the format is that of the suffix."""
        imaging.save(self.image, Path(path))

    def report(self) -> dict[str, Any]:
        """Everything but the images, as JSON types."""
        head = {k: v for k, v in vars(self).items() if k != "pictures"}
        return head | {"parameters": dict(self.parameters), "pictures": [p.report() for p in self.pictures]}
