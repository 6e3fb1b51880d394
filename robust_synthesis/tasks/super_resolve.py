"""Super-resolution (Santurkar et al. 2019, section 4.3): maximise the class of an enlarged low-resolution image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ..engine.classifier import Classifier
from ..specs import SuperResolve
from .start import Inputs, Start, named_or_predicted


def enlarge(image: Tensor, size: int, method: str) -> Tensor:
    """[3, h, w] -> [3, size, size], by bicubic interpolation or nearest neighbour."""
    corners = {"align_corners": False} if method == "bicubic" else {}
    return F.interpolate(image[None], size=(size, size), mode=method, **corners)[0].clamp(0, 1)


def super_resolve(spec: SuperResolve, inputs: Inputs, classifier: Classifier, parameters: Mapping[str, Any]) -> Start:
    """Minimise CE(class) from the low-resolution image [3, size / factor, size / factor], enlarged."""
    enlarged = enlarge(inputs.picture, inputs.size, parameters["upsampling"])
    return Start(enlarged, named_or_predicted(classifier, spec.target, enlarged))
