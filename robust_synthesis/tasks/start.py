"""What a task is given, and what it decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..engine.classifier import Classifier


@dataclass(frozen=True)
class Inputs:
    """The caller's picture [3, H, W] and mask [1, H, W], in [0, 1]; the side of the result; the number of this picture."""

    size: int
    image: Tensor | None = None
    mask: Tensor | None = None
    index: int = 0

    def number(self, index: int) -> Inputs:
        """The same for another picture of the request."""
        return replace(self, index=index)

    @property
    def picture(self) -> Tensor:
        assert self.image is not None
        return self.image

    @property
    def editable(self) -> Tensor:
        assert self.mask is not None
        return self.mask


@dataclass(frozen=True)
class Start:
    """Where a job starts, the class it is about, and what its `Problem` has beside the defaults."""

    x: Tensor
    """[3, size, size]: start, centre of the ball, and what the penalty compares with."""
    target: int
    terms: Mapping[str, Any] = field(default_factory=dict)


def named_or_predicted(classifier: Classifier, name: str | None, image: Tensor) -> int:
    """Index of the class called `name`, or else the one that the classifier sees in [3, H, W]."""
    if name is not None:
        return classifier.card.class_index(name)
    return int(classifier.probabilities(image[None])[0].argmax())


def fill_hole(image: Tensor, mask: Tensor) -> Tensor:
    """Replace what the mask marks by the per-channel mean of what it leaves (of all, where it leaves nothing)."""
    kept = 1 - mask if float((1 - mask).sum()) > 1e-6 else torch.ones_like(mask)
    mean = (image * kept).sum(dim=(1, 2), keepdim=True) / kept.sum()
    return image * (1 - mask) + mean * mask
