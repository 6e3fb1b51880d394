"""The catalogue of a classifier's latent units: what each seems to stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import InvalidInput, ModelError, NotFound
from .model_folder import UNITS, ModelFolder

SHEET_SIDE, SHEET_ACROSS = 40, 3
"""Of `units.webp`: side of its pictures, and units beside each other."""


@dataclass(frozen=True)
class Unit:
    """One component of the pooled latent."""

    index: int
    name: str
    """A suggestion: the class of most of its top images, and how much of it."""
    activation: float
    """Mean activation over its top images."""
    classes: Mapping[str, int]
    """How many of its top images are of each class."""


@dataclass(frozen=True)
class CatalogueFiles:
    """What a model folder has of its units; empty where it has none."""

    units_json: str = ""
    sheet: bytes = b""


@dataclass(frozen=True)
class Units:
    """Every unit that is ever active, strongest first."""

    units: tuple[Unit, ...] = ()

    def find(self, name: int | str, count: int) -> int:
        """Index of a unit given by name or number, among `count`. Raises NotFound or InvalidInput."""
        if isinstance(name, str) and not name.isdecimal():
            for unit in self.units:
                if unit.name.casefold() == name.strip().casefold():
                    name = unit.index
                    break
            else:
                raise NotFound("unit", name, (unit.name for unit in self.units))
        index = int(name)
        if not 0 <= index < count:
            raise InvalidInput("unit", f"is {index}; this classifier has units 0 to {count - 1}.")
        return index

    @classmethod
    def load(cls, folder: ModelFolder) -> Units:
        """The folder's catalogue, empty where it has none. Raises ModelError when it cannot be read."""
        path = folder.file(UNITS)
        try:
            return cls() if path is None else cls.from_json(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError, RecursionError) as error:
            raise ModelError(f"model: {path} is not a catalogue of units ({error}).") from error

    @classmethod
    def from_json(cls, text: str) -> Units:
        """The content of `units.json`. Raises ValueError, TypeError or RecursionError for something else."""
        return cls(tuple(Unit(**unit) for unit in json.loads(text)))
