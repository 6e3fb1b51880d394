"""Class maximisation (Santurkar et al. 2019, figure 1): add the features of a class to any image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.classifier import Classifier
from ..specs import MaximizeClass
from .start import Inputs, Start


def maximize_class(spec: MaximizeClass, inputs: Inputs, classifier: Classifier, parameters: Mapping[str, Any]) -> Start:
    """Minimise CE(target) from the image."""
    return Start(inputs.picture, classifier.card.class_index(spec.target))
