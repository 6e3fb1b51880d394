"""Feature painting (Santurkar et al. 2019, section 4.4): add a feature, or a class, to a part of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.classifier import Classifier
from ..specs import PaintFeatures
from .start import Inputs, Start, named_or_predicted


def paint_features(spec: PaintFeatures, inputs: Inputs, classifier: Classifier, parameters: Mapping[str, Any]) -> Start:
    """Maximise strength * latent[unit], or minimise strength * CE(class), less penalty * mean(((x0 - x)(1 - M))^2)."""
    strength = float(parameters["strength"])
    terms: dict[str, Any] = {
        "mask": inputs.editable,
        "hard_mask": spec.hard_mask,
        "penalty_weight": float(parameters["penalty"]),
        "fake_relu": True,
    }
    if spec.unit is None:
        terms["ce_weight"] = strength
    else:
        terms |= {"unit": classifier.unit_index(spec.unit), "ce_weight": 0.0, "latent_weight": -strength}
    return Start(inputs.picture, named_or_predicted(classifier, spec.target, inputs.picture), terms)
