"""What a task is given, and what it decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..engine.classifier import Classifier

_SWEEPS = 100
"""Of Jacobi's method, which smooths what push and pull leave uneven."""


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


def fill_hole(image: Tensor, mask: Tensor, filling: str = "mean") -> Tensor:
    """Replace what the mask [1, H, W] marks in an image [3, H, W], by one of `specs.FILLINGS`.

    `mean`: the per-channel mean of what the mask leaves (of all, where it leaves nothing). `smooth`: the harmonic function that
    continues what is marked by less than half, so that no edge is left; the mean, where there is nothing to continue.
    """
    known = mask < 0.5
    if filling == "smooth" and bool(known.any()):
        return image * (1 - mask) + _harmonic(image, known) * mask
    kept = 1 - mask if float((1 - mask).sum()) > 1e-6 else torch.ones_like(mask)
    mean = (image * kept).sum(dim=(1, 2), keepdim=True) / kept.sum()
    return image * (1 - mask) + mean * mask


def _harmonic(image: Tensor, known: Tensor) -> Tensor:
    """The image where it is known, [1, H, W]; elsewhere nearly every value is the mean of its four neighbours (Laplace)."""
    filled = _push_pull(image, known.to(image))
    for _ in range(_SWEEPS):
        x = F.pad(filled[None], (1, 1, 1, 1), mode="replicate")[0]
        neighbours = (x[:, 2:, 1:-1] + x[:, :-2, 1:-1] + x[:, 1:-1, 2:] + x[:, 1:-1, :-2]) / 4
        filled = torch.where(known, image, neighbours)
    return filled


def _push_pull(image: Tensor, weight: Tensor) -> Tensor:
    """Fill what has no weight from coarser versions of the image (Gortler et al. 1996, "The Lumigraph", section 3.4)."""
    if float(weight.min()) > 0:
        return image
    pooled, share = (F.avg_pool2d(x[None], 2, ceil_mode=True)[0] for x in (image * weight, weight))
    coarse = _push_pull(pooled / share.clamp(min=1e-6), share)
    filled = F.interpolate(coarse[None], size=image.shape[1:], mode="bilinear", align_corners=False)[0]
    return torch.where(weight > 0, image, filled)
