"""Sketch to image, from six crude drawings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from ... import specs
from ...drawings import drawings
from ...engine.classifier import Classifier
from ...imaging import to_square
from ...sheet import Row, draw
from ...tasks import Inputs
from ..judge import Judge
from ..proportion import Proportion
from ..synthesis import Change, make
from ..tally import OnProgress, Tally, silent

COUNT = 6


@dataclass(frozen=True)
class Sketches:
    """With the card's default."""

    classes: tuple[str, ...]
    """What was drawn."""
    network: str
    """Of the judge."""
    parameters: Mapping[str, Any]
    drawings_judged: Proportion
    """How often the judge sees the class in the bare drawing."""
    judged: Proportion
    change: Change
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)


def measure(classifier: Classifier, judge: Judge, *, on_progress: OnProgress = silent) -> Sketches:
    """Turn a drawing of each of six classes into a picture of it."""
    size = classifier.card.size
    drawn = drawings(classifier.card.classes, COUNT)
    names = tuple(name for name, _ in drawn)
    inputs = torch.from_numpy(np.stack([to_square(image, size) for _, image in drawn]))
    requests = ((specs.SketchToImage(target=name), Inputs(size, x)) for name, x in zip(names, inputs, strict=True))
    made = make(classifier, requests, Tally(len(drawn), on_progress))
    seen, _ = judge.look(made.pictures)
    captions = [f"judged {classifier.card.classes[label]}" for label in seen.tolist()]
    sheet = draw(
        [
            Row.of("drawings", inputs.numpy(), names),
            Row.of(f"pictures, epsilon {made.parameters['epsilon']:g}", made.pictures.numpy(), captions),
        ],
        side=160,
    )
    return Sketches(
        classes=names,
        network=judge.network,
        parameters=made.parameters,
        drawings_judged=judge.judged(inputs, made.targets),
        judged=Proportion.of(seen == made.targets),
        change=Change.of(made),
        pictures={"sketches": sheet},
    )
