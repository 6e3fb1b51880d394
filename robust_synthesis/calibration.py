"""Have a classifier compute in int8: its card says how large its activations and gradients become."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from .engine.classifier import Classifier
from .engine.int8 import supports
from .engine.ranges import measure
from .errors import InvalidInput
from .model_folder import ModelFolder, write_card


def calibrate(path: Path, *, device: str | None = None) -> ModelFolder:
    """Measure the `engine.ranges` of a model folder and write them on its card.

    Raises InvalidInput for a network that int8 is not made for.
    """
    classifier = Classifier.load(path, device=device)
    if not supports(classifier.card.architecture):
        raise InvalidInput(
            "model", f"{path} does not compute in int8, which is for ResNets of basic blocks, a 3x3 stem and ReLU."
        )
    return write_card(path, dataclasses.replace(classifier.card, ranges=dataclasses.asdict(measure(classifier))))


def calibrate_where_possible(path: Path) -> ModelFolder:
    """The model folder, calibrated if its network is one that int8 is made for."""
    folder = ModelFolder.open(path)
    return calibrate(path) if supports(folder.card.architecture) else folder
