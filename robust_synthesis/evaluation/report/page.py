"""One self-contained page of HTML about a classifier: its card, the numbers, the pictures. Nothing is computed for it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...files import atomic_write
from ...model_folder import Card, ModelFolder
from ..record import Evaluation, Part
from .sections import SECTIONS, Section, section

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Figure:
    """A picture inside the page."""

    uri: str
    caption: str


@dataclass(frozen=True)
class Chapter:
    """A section with what the model folder has of it."""

    name: str
    section: Section
    part: Part
    figures: list[Figure]


def write_page(folder: Path, out: Path) -> None:
    """Write the page about a model folder that was evaluated. Raises DataError where it was not."""
    text = page(ModelFolder.open(folder).card, Evaluation.read(folder), folder)
    with atomic_write(out) as file:
        file.write(text.encode())


def page(card: Card, evaluation: Evaluation, folder: Path) -> str:
    """The page's HTML; `folder` has the pictures."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        card=card,
        facts=dict(_facts(card)),
        evaluation=evaluation,
        chapters=list(_chapters(evaluation, folder)),
        commands=list(dict.fromkeys(part.command for part in evaluation.parts.values())),
    )


def _chapters(evaluation: Evaluation, folder: Path) -> Iterator[Chapter]:
    for name in SECTIONS:
        if name in evaluation.parts:
            told = section(name, evaluation.parts[name].numbers)
            figures = [
                Figure(_data_uri(path), caption)
                for start, caption in told.figures.items()
                for path in sorted(folder.glob(f"{start}*.webp"))
            ]
            yield Chapter(name, told, evaluation.parts[name], figures)


def _data_uri(path: Path) -> str:
    return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _facts(card: Card) -> Iterator[tuple[str, str]]:
    """What the classifier is, from its card."""
    yield "Pictures", f"{card.size} x {card.size} pixels, {len(card.classes)} classes"
    shape = card.architecture
    yield "Network", ", ".join(f"{name} {_plain(value)}" for name, value in shape.items() if value is not None)
    trained = card.training
    if trained.get("objective") not in (None, "standard"):
        start = f", from {trained['init']}" if trained.get("init") else ""
        yield (
            "Trained",
            f"{trained['objective']}, {trained['norm'].upper()} {trained['epsilon']:g}, {trained['epochs']} epochs{start}",
        )
    if card.data:
        yield "Data", ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in card.data.items())


def _plain(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
