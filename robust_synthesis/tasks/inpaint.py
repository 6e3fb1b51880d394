"""In-painting (Santurkar et al. 2019, section 4.1): fill a hole with what the class would have there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.classifier import Classifier
from ..specs import Inpaint
from .start import Inputs, Start, fill_hole, named_or_predicted


def inpaint(spec: Inpaint, inputs: Inputs, classifier: Classifier, parameters: Mapping[str, Any]) -> Start:
    """Minimise CE(class) + penalty * mean(((x_c - x)(1 - M))^2) from x_c, the image with its hole filled.

    The paper fills it with the mean. Filled smoothly, nothing at its edge has to be undone inside the ball.
    """
    corrupted = fill_hole(inputs.picture, inputs.editable, parameters["filling"])
    return Start(
        corrupted,
        named_or_predicted(classifier, spec.target, corrupted),
        {
            "mask": inputs.editable,
            "hard_mask": spec.hard_mask,
            "penalty_weight": float(parameters["penalty"]),
            "fake_relu": True,
        },
    )
