"""Generation (Santurkar et al. 2019, section 3): class maximisation from a random seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.classifier import Classifier
from ..engine.seeds import noise
from ..errors import InvalidInput
from ..specs import Generate
from .start import Inputs, Start


def generate(spec: Generate, inputs: Inputs, classifier: Classifier, parameters: Mapping[str, Any]) -> Start:
    """Minimise CE(target) from a sample of the class's Gaussian, or from plain noise."""
    target = classifier.card.class_index(spec.target)
    seed = spec.seed or 0
    if spec.start == "noise":
        return Start(noise(inputs.size, seed, inputs.index), target)
    if classifier.seeds is None:
        raise InvalidInput("start", f"{classifier.card.name} has no class Gaussians; use noise.")
    return Start(classifier.seeds.sample(target, inputs.size, seed, inputs.index), target)
