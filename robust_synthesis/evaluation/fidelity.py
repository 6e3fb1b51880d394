"""How close pictures are to originals, and whether a judge still sees what they show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .judge import Judge
from .proportion import Proportion

SMALLEST_ERROR = 1e-6
"""Mean square error below which pictures count as equal: 60 dB, well under the rounding of 8-bit images."""


@dataclass(frozen=True)
class Score:
    """Of one way to restore a set of pictures."""

    judged: Proportion
    """How often the judge sees the original's class."""
    psnr: float
    """Mean over the pictures, dB."""

    @classmethod
    def of(
        cls, judge: Judge, pictures: Tensor, originals: Tensor, labels: Tensor, masks: Tensor | None = None
    ) -> Score:
        return cls(judge.judged(pictures, labels), float(psnr(pictures, originals, masks).mean()))


def psnr(pictures: Tensor, originals: Tensor, masks: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio [N] in dB of [N, 3, H, W] in [0, 1], inside the masks [N, 1, H, W] where given."""
    error = (pictures - originals).square().mean(1, keepdim=True)
    inside = torch.ones_like(error) if masks is None else masks
    mean = (error * inside).sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3))
    return -10 * mean.clamp_min(SMALLEST_ERROR).log10()


def recovered(score: float, without: float, originals: float) -> float | None:
    """Share of what was lost between `originals` and `without` that `score` wins back; None where nothing was lost."""
    return (score - without) / (originals - without) if originals > without else None
