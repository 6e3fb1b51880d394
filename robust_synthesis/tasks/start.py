"""What a task is given, and what it decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..engine.classifier import Classifier

_SWEEPS = 12
"""Of Jacobi's method at each size of the image."""


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
        return image * (1 - mask) + _harmonic(image, known.to(image)) * mask
    kept = 1 - mask if float((1 - mask).sum()) > 1e-6 else torch.ones_like(mask)
    mean = (image * kept).sum(dim=(1, 2), keepdim=True) / kept.sum()
    return image * (1 - mask) + mean * mask


def _harmonic(image: Tensor, weight: Tensor) -> Tensor:
    """The image where it has weight, [1, H, W]; elsewhere nearly every value is the mean of its four neighbours (Laplace).

    From the coarsest version of the image to the finest: the next coarser fills the hole, which Jacobi's method then smooths
    (push and pull: Gortler et al. 1996, "The Lumigraph", section 3.4; sweeps at each size: cascadic multigrid, Bornemann and
    Deuflhard 1996).
    """
    hole = weight == 0
    if not bool(hole.any()):
        return image
    pooled, share = (F.avg_pool2d(x[None], 2, ceil_mode=True)[0] for x in (image * weight, weight))
    coarse = _harmonic(pooled / share.clamp(min=1e-6), share)
    filled = F.interpolate(coarse[None], size=image.shape[1:], mode="bilinear", align_corners=False)[0]
    filled = torch.where(hole, filled, image)
    _smooth(filled.numpy(), hole[0].numpy())
    return filled


def _smooth(x: NDArray[np.float32], hole: NDArray[np.bool_]) -> None:
    """Sweeps over what the hole [H, W] marks of x [C, H, W], in place."""
    rows, columns = (_around(np.any(hole, axis)) for axis in (1, 0))
    x, hole = x[:, rows, columns], hole[rows, columns]
    padded = np.empty((len(x), x.shape[1] + 2, x.shape[2] + 2), x.dtype)
    for _ in range(_SWEEPS):
        padded[:, 1:-1, 1:-1] = x
        padded[:, 0], padded[:, -1] = padded[:, 1], padded[:, -2]
        padded[:, :, 0], padded[:, :, -1] = padded[:, :, 1], padded[:, :, -2]
        mean = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1]
        mean += padded[:, 1:-1, 2:]
        mean += padded[:, 1:-1, :-2]
        np.multiply(mean, 0.25, out=x, where=hole)


def _around(marked: NDArray[np.bool_]) -> slice:
    """From the first that is marked to the last, and one more on either side."""
    found = np.flatnonzero(marked)
    return slice(max(0, found[0] - 1), found[-1] + 2)
