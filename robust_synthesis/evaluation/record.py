"""The numbers of an evaluation, on disk and in short.

`evaluation.json`:

    {"format": 1, "model": name, "version": of the folder, "network": hash of the weights, "data": {images, size, hash},
     "headline": {...}, "skipped": {part: why},
     "parts": {part: {"numbers": {...}, "options": {...}, "seconds", "finished", "command", "hardware", "versions",
                      "device", "precision"}}}

A proportion is {"value", "interval": [low, high], "hits", "count"}; what is infinite or undefined is null.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import DataError
from ..files import atomic_write
from ..imaging import save
from ..model_folder import ModelFolder, write_card
from .proportion import Proportion
from .report.headline import headline
from .report.summary import summary

FORMAT = 1
FILE = "evaluation.json"


@dataclass(frozen=True)
class Part:
    """One part's numbers, as JSON types, and how they came about."""

    numbers: Mapping[str, Any]
    options: Mapping[str, Any]
    seconds: float
    finished: str
    command: str
    hardware: str
    versions: Mapping[str, str]
    device: str = ""
    precision: str = "fp32"
    """In which the classifier computed; before this was written down, always fp32."""


@dataclass(frozen=True)
class Evaluation:
    """What is known about one classifier on one test set."""

    model: str
    version: str
    network: str
    """Hash of the weights: unlike `version` it stays when these numbers are written on the card."""
    data: Mapping[str, Any]
    parts: Mapping[str, Part] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Parts that were not run, and why."""
    pictures: Mapping[str, Image.Image] = field(default_factory=dict, repr=False)

    @property
    def numbers(self) -> dict[str, Mapping[str, Any]]:
        """Of every part that was run."""
        return {name: part.numbers for name, part in self.parts.items()}

    def concerns(self, other: Evaluation) -> bool:
        """Whether it is of the same weights and data."""
        return (self.network, self.data) == (other.network, other.data)

    def headline(self) -> dict[str, Any]:
        """The numbers for the card's `measured`."""
        commands = list(dict.fromkeys(part.command for part in self.parts.values()))
        return headline(self.numbers) | {"commands": commands}

    def summary(self) -> list[str]:
        """The numbers as lines to print."""
        return summary(self.numbers)

    def report(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON types."""
        head = {"format": FORMAT, "model": self.model, "version": self.version, "network": self.network}
        parts = {name: dataclasses.asdict(part) for name, part in self.parts.items()}
        head |= {"data": dict(self.data), "headline": self.headline(), "skipped": dict(self.skipped), "parts": parts}
        return head

    def save(self, folder: Path) -> Evaluation:
        """Write `evaluation.json` and the pictures (WebP); returns what the file then says.

        Parts that an older file has of the same weights on the same data, and this evaluation has not, are kept.
        """
        whole = self
        if (folder / FILE).is_file():
            older = Evaluation.read(folder)
            if older.concerns(self):
                skipped = {name: why for name, why in self.skipped.items() if name not in older.parts}
                whole = dataclasses.replace(self, parts={**older.parts, **self.parts}, skipped=skipped)
        for name, picture in self.pictures.items():
            save(picture, folder / f"{name}.webp")
        with atomic_write(folder / FILE) as file:
            file.write(_text(whole.report()).encode())
        return whole

    def keep(self, folder: Path) -> None:
        """Save into a model folder, and write the headline on its card."""
        whole = self.save(folder)
        card = ModelFolder.open(folder).card
        write_card(folder, dataclasses.replace(card, measured=whole.headline()))

    @classmethod
    def read(cls, folder: Path) -> Evaluation:
        """What `save` wrote there, without pictures. Raises DataError where it is missing or damaged."""
        path = folder / FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']}")
            parts = {name: Part(**part) for name, part in found["parts"].items()}
            return cls(found["model"], found["version"], found["network"], found["data"], parts, found["skipped"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"evaluation: {path} cannot be read ({error}); delete it and evaluate again.") from error


def _text(report: dict[str, Any]) -> str:
    """JSON with a field per line, and lists of numbers on one."""
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[([^][{}\"]+)\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def plain(value: Any) -> Any:
    """A result of the parts as JSON types, six digits each, without its pictures."""
    if isinstance(value, Proportion):
        interval = [plain(bound) for bound in value.interval]
        return {"value": plain(value.value), "interval": interval, "hits": value.hits, "count": value.count}
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.name != "pictures"]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
