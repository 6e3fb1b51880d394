"""Class maximisation from test photographs: each is driven to a class that it does not show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from ... import specs
from ...engine.classifier import Classifier
from ...sheet import Row, draw
from ...tasks import Inputs
from ...training.datasets import ImageSet
from ..judge import Judge
from ..proportion import Proportion
from ..sample import sample
from ..synthesis import Change, Made, make
from ..tally import OnProgress, Tally, silent
from .names import ACROSS, SHOWN


@dataclass(frozen=True)
class ClassMaximization:
    """With the card's default."""

    images: int
    network: str
    """Of the judge."""
    parameters: Mapping[str, Any]
    judged: Proportion
    """How often the judge sees the class that the photograph was driven to."""
    originals: Proportion
    """How often it sees the true class in the photographs as they were."""
    change: Change
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)


def measure(
    classifier: Classifier,
    test: ImageSet,
    judge: Judge,
    *,
    images: int = 250,
    seed: int = 0,
    on_progress: OnProgress = silent,
) -> ClassMaximization:
    """Drive `images` test photographs each to another class; the classes take turns."""
    chosen = sample(test, images, seed)
    classes = classifier.card.classes
    names = [classes[label] for label in targets(chosen.labels.tolist(), len(classes), seed)]
    tally = Tally(len(chosen), on_progress)
    photographs = chosen.floats(slice(None))
    made = make(
        classifier,
        (
            (specs.MaximizeClass(target=name), Inputs(chosen.size, picture))
            for name, picture in zip(names, photographs, strict=True)
        ),
        tally,
    )
    return ClassMaximization(
        images=len(chosen),
        network=judge.network,
        parameters=made.parameters,
        judged=judge.judged(made.pictures, made.targets),
        originals=judge.judged(photographs, chosen.labels),
        change=Change.of(made),
        pictures={"class_maximization": _sheet(chosen, made, names)},
    )


def targets(labels: list[int], classes: int, seed: int) -> list[int]:
    """A class for each label, never its own, the classes in turn in a random order."""
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed)).tolist()
    turns = [order[i % classes] for i in range(len(labels))]
    return [(turn + 1) % classes if turn == label else turn for turn, label in zip(turns, labels, strict=True)]


def _sheet(images: ImageSet, made: Made, names: list[str]) -> Image.Image:
    rows = []
    originals = [images.class_names[label] for label in images.labels.tolist()]
    for first in range(0, min(SHOWN, len(images)), ACROSS):
        part = slice(first, min(first + ACROSS, SHOWN, len(images)))
        rows.append(Row.of("test photographs", images.floats(part).numpy(), originals[part]))
        title = f"driven to a class, epsilon {made.parameters['epsilon']:g}"
        rows.append(Row.of(title, made.pictures[part].numpy(), names[part]))
    return draw(rows)
