"""Image-to-image translation (Santurkar et al. 2019, section 4.2): maximise the other domain of a classifier of domains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.classifier import Classifier
from ..errors import InvalidInput
from ..specs import Translate
from .start import Inputs, Start, named_or_predicted


def translate(spec: Translate, inputs: Inputs, classifier: Classifier, parameters: Mapping[str, Any]) -> Start:
    """Minimise CE(other domain) from the source image."""
    target = named_or_predicted(classifier, spec.target, inputs.picture)
    if spec.target is None:
        if len(classifier.card.classes) != 2:
            raise InvalidInput(
                "target", f"{classifier.card.name} has more than two classes; name the one to translate to."
            )
        target = 1 - target
    return Start(inputs.picture, target)
