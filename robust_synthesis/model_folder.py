"""A classifier on disk: one folder with a card, weights and, where it has them, seeds and units.

    model.json             the card: what the network is, how it was trained, what it measures, checksums of the files below
    weights.safetensors    fp32, fp16, or int8 with one scale per output channel
    seeds.safetensors      class-conditional Gaussians that generation starts from
    units.json, units.webp the latent units: names, and a contact sheet of the images that activate each most

This module needs no torch: the gateway lists models with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import InvalidInput, ModelError, NotFound
from .files import atomic_write
from .specs import SPECS

FORMAT = 1
CARD, WEIGHTS, SEEDS, UNITS, UNITS_SHEET = (
    "model.json",
    "weights.safetensors",
    "seeds.safetensors",
    "units.json",
    "units.webp",
)
MODELS_VARIABLE = "ROBUST_SYNTHESIS_MODELS"
MAX_CARD_BYTES = 4 * 2**20
_MAX_SIZE = 4096
_JSON_TYPES: Mapping[str, type] = {
    "name": str,
    "architecture": dict,
    "classes": list,
    "size": int,
    "mean": list,
    "std": list,
    "min_size": int,
    "max_size": int,
    "role": str,
    "training": dict,
    "data": dict,
    "measured": dict,
    "defaults": dict,
    "ranges": dict,
    "files": dict,
    "format": int,
}
_KINDS: Mapping[type, str] = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model folder says about its classifier; `model.json` is this as JSON."""

    name: str
    architecture: Mapping[str, Any]
    classes: tuple[str, ...]
    size: int
    """Side of the images it was trained on, pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    min_size: int = 0
    max_size: int = 0
    """Sides that the network accepts; default: half to twice `size`."""
    role: str = "robust"
    """robust, standard (trained without an adversary) or judge (never used in synthesis)."""
    training: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Per task, the parameters to use where a caller gives none."""
    ranges: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """How large activations and gradients become (`engine.ranges`); without them it does not compute in int8."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of every other file of the folder."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        object.__setattr__(self, "min_size", self.min_size or self.size // 2)
        object.__setattr__(self, "max_size", self.max_size or self.size * 2)
        if problems := list(self._problems()):
            raise ModelError(f"{CARD}: {'; '.join(problems)}.")

    def _problems(self) -> Iterator[str]:
        if self.format != FORMAT:
            yield f"format is {self.format}, this version reads {FORMAT}"
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            yield "classes must be two or more different names"
        if not all(isinstance(name, str) and name.strip() for name in self.classes):
            yield "classes must be names, in quotes"
        if len(self.mean) != 3 or len(self.std) != 3:
            yield "mean and std must have three numbers"
        if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in (*self.mean, *self.std)):
            yield "mean and std must be finite numbers"
        elif min(self.std) <= 0:
            yield "std must be above 0"
        if not 8 <= self.size <= _MAX_SIZE:
            yield f"size must be between 8 and {_MAX_SIZE}"
        if not 1 <= self.min_size <= self.max_size <= 2 * _MAX_SIZE:
            yield f"min_size and max_size must rise from 1 to at most {2 * _MAX_SIZE}"
        if self.ranges and (wrong := _wrong_ranges(self.ranges)):
            yield f"ranges: {wrong}; leave them out, and run `robust-synthesis calibrate {self.name}`"
        for task, parameters in self.defaults.items():
            if wrong := _wrong_default(task, parameters):
                yield f"defaults of {task}: {wrong}"

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Raises ModelError naming what is missing, unknown or wrong."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{CARD}: not valid JSON ({error}).") from error
        if not isinstance(found, dict):
            raise ModelError(f"{CARD}: must be a JSON object.")
        required = {"name", "architecture", "classes", "size", "mean", "std"}
        if missing := required - found.keys():
            raise ModelError(f"{CARD}: {', '.join(sorted(missing))} missing.")
        if unknown := found.keys() - _JSON_TYPES.keys():
            raise ModelError(f"{CARD}: unknown {', '.join(sorted(unknown))}.")
        for name, value in found.items():
            if not isinstance(value, _JSON_TYPES[name]) or isinstance(value, bool):
                raise ModelError(f"{CARD}: {name} must be {_KINDS[_JSON_TYPES[name]]}.")
        for name in ("classes", "mean", "std"):
            found[name] = tuple(found[name])
        try:
            return cls(**found)
        except TypeError as error:
            raise ModelError(f"{CARD}: a field has the wrong type ({error}).") from error

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    def class_index(self, name: str) -> int:
        """Index of a class given by name (in any case) or by number. Raises NotFound with near names for `target`."""
        folded = name.strip().casefold()
        names, numbers = [known.casefold() for known in self.classes], [str(i) for i in range(len(self.classes))]
        for known in (names, numbers):  # a class may be called by the number of another
            if folded in known:
                return known.index(folded)
        raise NotFound("target", name, self.classes, kind="class")


@dataclass(frozen=True)
class ModelFolder:
    """A folder whose card is readable and whose files have the card's checksums."""

    path: Path
    card: Card
    version: str
    """Hash of the card, and through its checksums of every file."""

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> ModelFolder:
        """Read the card and, unless told otherwise, check every file against it.

        Raises ModelError for a folder, file or checksum that is missing or wrong.
        """
        path = Path(path)
        if not path.is_dir():
            raise ModelError(
                f"model: {path} is not a folder; give a model folder, or a name found in the models directory."
            )
        try:
            if (path / CARD).stat().st_size > MAX_CARD_BYTES:
                raise ModelError(f"model: {path / CARD} is larger than {MAX_CARD_BYTES >> 20} MiB; it is not a card.")
            text = (path / CARD).read_text(encoding="utf-8")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ModelError(f"model: {path} has no {CARD}; it is not a model folder.") from error
        except UnicodeDecodeError as error:
            raise ModelError(f"model: {path / CARD} is not UTF-8 text.") from error
        card = Card.from_json(text)
        if WEIGHTS not in card.files:
            raise ModelError(f"model: {path / CARD} lists no {WEIGHTS} under files.")
        for name, expected in card.files.items():
            if Path(name).name != name:
                raise ModelError(f"model: {path / CARD} lists {name!r}, which is outside the folder.")
            if not (path / name).is_file():
                raise ModelError(f"model: {path / name} is missing; copy the whole folder again.")
            if verify and sha256(path / name) != expected:
                raise ModelError(
                    f"model: {path / name} does not have the card's checksum; copy the whole folder again."
                )
        return cls(path, card, hashlib.sha256(text.encode()).hexdigest()[:16])

    def file(self, name: str) -> Path | None:
        """Path of a file that the card lists, or None."""
        return self.path / name if name in self.card.files else None


def _wrong_default(task: str, parameters: Mapping[str, Any]) -> str | None:
    """What is wrong with the defaults of a task, if anything is."""
    if not isinstance(parameters, Mapping):
        return "must be an object"
    if task not in SPECS:
        return "there is no such task"
    try:
        SPECS[task](**{"target": "any", **parameters})
    except (InvalidInput, TypeError) as error:
        return str(error).removesuffix(".")
    return next((f"{name} has no value" for name, value in parameters.items() if value is None), None)


def _wrong_ranges(ranges: Mapping[str, Any]) -> str | None:
    if ranges.keys() != {"activations", "gradients"}:
        return "must have activations and gradients"
    for kind, values in ranges.items():
        if not isinstance(values, Mapping):
            return f"{kind} must be an object"
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                return f"{name} of {kind} must be a number, 0 or above"
    return None


def write_card(path: Path, card: Card) -> ModelFolder:
    """Write `model.json` for the files that are in `path` now, with their checksums."""
    names = (WEIGHTS, SEEDS, UNITS, UNITS_SHEET)
    files = {name: sha256(path / name) for name in names if (path / name).is_file()}
    with atomic_write(path / CARD) as file:
        file.write(dataclasses.replace(card, files=files).to_json().encode())
    return ModelFolder.open(path)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def models_directory() -> Path:
    """Where models are looked up by name: $ROBUST_SYNTHESIS_MODELS, or model_store/ here or beside the package."""
    if variable := os.environ.get(MODELS_VARIABLE):
        return Path(variable)
    here = Path("model_store")
    return here if here.is_dir() else Path(__file__).parent.parent / "model_store"


def find(name: str | Path) -> Path:
    """The model folder called `name`: a path, or a folder of the models directory.

    Raises NotFound with the names that exist.
    """
    path = Path(name)
    if (path / CARD).is_file():
        return path
    directory = models_directory()
    if isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) and (directory / name / CARD).is_file():
        return directory / name
    if path.is_dir():
        raise ModelError(f"model: {path} has no {CARD}; it is not a model folder.")
    none = f"there are none in {directory}; set {MODELS_VARIABLE} to the folder that holds them."
    raise NotFound("model", str(name), available(), none=none)


def available(directory: Path | None = None) -> list[str]:
    """Names of the models in a folder, by default the models directory."""
    directory = directory or models_directory()
    return sorted(card.parent.name for card in directory.glob(f"*/{CARD}")) if directory.is_dir() else []
