"""Sketch to image (Santurkar et al. 2019, section 4.4): turn a crude drawing into a picture of a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.classifier import Classifier
from ..specs import SketchToImage
from .start import Inputs, Start


def sketch_to_image(
    spec: SketchToImage, inputs: Inputs, classifier: Classifier, parameters: Mapping[str, Any]
) -> Start:
    """Minimise CE(target) from the drawing."""
    return Start(inputs.picture, classifier.card.class_index(spec.target))
