"""Feature painting: three edits of a test photograph, one after the other, each with a latent unit inside a mask."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ... import specs
from ...engine.ball import l2_norm
from ...engine.classifier import Classifier
from ...errors import InvalidInput, NotFound
from ...imaging import to_image
from ...sheet import Cell, Row, draw
from ...tasks import Inputs
from ...training.datasets import ImageSet
from ...units import Unit
from ..sample import sample
from ..synthesis import make
from ..tally import OnProgress, Tally, silent

MASKS = ((0.0, 0.0, 1.0, 0.4), (0.0, 0.6, 1.0, 1.0), (0.2, 0.25, 0.8, 0.75))
"""Left, top, right, bottom of the part that each edit may change, as shares of the side: above, below, the middle."""
FEATHER = 1 / 16
"""Width of a mask's soft edge, as a share of the side."""
SHOWN = 4
"""Photographs on the sheet."""
SIDE = 192
"""Of the pictures on it, pixels."""


@dataclass(frozen=True)
class Edit:
    """One of the three, over all photographs; activations are the unit's, means."""

    unit: str
    before: float
    after: float
    top: float
    """Of the training images that activate it most."""
    change: float
    """L2 distance between the picture before and after this edit, mean."""


@dataclass(frozen=True)
class FeaturePainting:
    """With the card's default, each edit on the result of the last."""

    images: int
    parameters: Mapping[str, Any]
    edits: tuple[Edit, ...]
    outside: float
    """Largest change of any value that no mask marks."""
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)


def measure(
    classifier: Classifier,
    test: ImageSet,
    *,
    units: Sequence[str] = (),
    images: int = 32,
    seed: int = 0,
    on_progress: OnProgress = silent,
) -> FeaturePainting:
    """Paint on `images` test photographs, with these units of the catalogue or those that `choose` picks.

    Raises InvalidInput without a catalogue, NotFound for a unit that is not in it.
    """
    catalogue = classifier.units.units
    if not catalogue:
        raise InvalidInput("only", "feature painting needs a catalogue of units; train without --no-units.")
    brushes = [_find(classifier, name) for name in units[: len(MASKS)]] or choose(catalogue)
    chosen = sample(test, images, seed)
    originals = chosen.floats(slice(None))
    tally = Tally(len(brushes) * len(chosen), on_progress)
    steps, edits = [originals], []
    masks = [soft_box(chosen.size, box) for box in MASKS]
    parameters: Mapping[str, Any] = {}
    for unit, mask in zip(brushes, masks, strict=False):
        spec = specs.PaintFeatures(unit=unit.index)
        made = make(classifier, ((spec, Inputs(chosen.size, picture, mask)) for picture in steps[-1]), tally)
        before, after = (_activation(classifier, pictures, unit.index) for pictures in (steps[-1], made.pictures))
        change = float(l2_norm(made.pictures - steps[-1]).mean())
        edits.append(Edit(unit.name, before, after, unit.activation, change))
        parameters = parameters or made.parameters
        steps.append(made.pictures)
    free = torch.stack(masks[: len(brushes)]).amax(0) == 0
    return FeaturePainting(
        images=len(chosen),
        parameters=parameters,
        edits=tuple(edits),
        outside=float(((steps[-1] - originals).abs() * free).max()),
        pictures={"feature_painting": _sheet([step[:SHOWN] for step in steps], [unit.name for unit in brushes])},
    )


def _find(classifier: Classifier, name: str) -> Unit:
    index = classifier.unit_index(name)
    found = next((unit for unit in classifier.units.units if unit.index == index), None)
    if found is None:
        raise NotFound("units", name, (unit.name for unit in classifier.units.units))
    return found


def choose(units: Sequence[Unit]) -> list[Unit]:
    """Up to three units: those that a person has named, else the strongest, each of another class."""
    named = [unit for unit in units if not re.search(r"\d$", unit.name)]
    classes: set[str] = set()
    strongest = []
    for unit in units:
        main = next(iter(unit.classes), "")
        if main not in classes:
            classes.add(main)
            strongest.append(unit)
    by_index = {unit.index: unit for unit in [*named, *strongest, *units]}
    return list(by_index.values())[: len(MASKS)]


def soft_box(size: int, box: tuple[float, float, float, float]) -> Tensor:
    """A mask [1, size, size] that is 1 inside a box and falls to 0 within `FEATHER` of it."""
    place = (torch.arange(size) + 0.5) / size
    left, top, right, bottom = box

    def inside(low: float, high: float) -> Tensor:
        # Distance to the nearer end; the picture's own edge is none.
        near = torch.minimum(
            place - low if low > 0 else torch.ones(size), high - place if high < 1 else torch.ones(size)
        )
        return (1 + near / FEATHER).clamp(0, 1)

    return (inside(top, bottom)[:, None] * inside(left, right)[None])[None]


def _activation(classifier: Classifier, pictures: Tensor, unit: int) -> float:
    with torch.no_grad():
        parts = [classifier.logits_and_latent(x.to(classifier.device))[1][:, unit] for x in torch.split(pictures, 64)]
    return float(torch.cat(parts).mean())


def _sheet(steps: Sequence[Tensor], names: Sequence[str]) -> Image.Image:
    rows = []
    for i in range(len(steps[0])):
        cells = [Cell(_outlined(steps[0][i], 0), "photograph and first mask")]
        for number, name in enumerate(names, 1):
            last = number == len(names)
            picture = to_image(steps[number][i].numpy()) if last else _outlined(steps[number][i], number)
            cells.append(Cell(picture, f"{number}: {name}"))
        rows.append(Row("", "", [Cell(to_image(steps[0][i].numpy()), "test photograph"), *cells]))
    return draw(rows, side=SIDE)


def _outlined(picture: Tensor, number: int) -> Image.Image:
    """The picture with the box of the next edit on it."""
    shown = to_image(picture.numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    left, top, right, bottom = (round(share * (SIDE - 1)) for share in MASKS[number])
    pen = ImageDraw.Draw(shown)
    pen.rectangle((left, top, right, bottom), outline="#000000", width=3)
    pen.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline="#ffffff", width=1)
    return shown
