"""What a task is given, and what it decides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..engine.classifier import Classifier

_SWEEPS = 30
"""Which smooth what push and pull leave uneven."""


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
    filled = _push_pull(image, known.to(image)).numpy()
    if bool(known.all()):
        return image
    box = (slice(None), *(_around(~known[0].numpy(), axis) for axis in (0, 1)))
    _smooth(filled[box], known.numpy()[box])
    return torch.from_numpy(filled)


def _around(marked: NDArray[np.bool_], axis: int) -> slice:
    """Rows (axis 0) or columns of the marked pixels, and one more on either side."""
    found = np.flatnonzero(marked.any(1 - axis))
    return slice(max(0, found[0] - 1), found[-1] + 2)


def _smooth(x: NDArray[np.float32], known: NDArray[np.bool_]) -> None:
    """Sweeps of Jacobi's method, [C, H, W], in place, accelerated (Golub and Varga 1961, "Chebyshev semi-iterative methods")."""
    free = np.broadcast_to(~known, x.shape)
    radius = math.cos(math.pi / (1 + max(x.shape[1:])))
    padded, before, omega = np.empty((len(x), x.shape[1] + 2, x.shape[2] + 2), x.dtype), x.copy(), 1.0
    for sweep in range(_SWEEPS):
        padded[:, 1:-1, 1:-1] = x
        padded[:, 0], padded[:, -1] = padded[:, 1], padded[:, -2]
        padded[:, :, 0], padded[:, :, -1] = padded[:, :, 1], padded[:, :, -2]
        mean = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1]
        mean += padded[:, 1:-1, 2:]
        mean += padded[:, 1:-1, :-2]
        mean *= 0.25
        if sweep:
            omega = 1 / (1 - radius**2 * omega / (4 if sweep > 1 else 2))
            mean -= before
            mean *= omega
            mean += before
        before[...] = x
        np.copyto(x, mean, where=free)


def _push_pull(image: Tensor, weight: Tensor) -> Tensor:
    """Fill what has no weight from coarser versions of the image (Gortler et al. 1996, "The Lumigraph", section 3.4)."""
    if float(weight.min()) > 0:
        return image
    pooled, share = (F.avg_pool2d(x[None], 2, ceil_mode=True)[0] for x in (image * weight, weight))
    coarse = _push_pull(pooled / share.clamp(min=1e-6), share)
    filled = F.interpolate(coarse[None], size=image.shape[1:], mode="bilinear", align_corners=False)[0]
    return torch.where(weight > 0, image, filled)
