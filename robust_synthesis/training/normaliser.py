"""How images are scaled before a network sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ..model_folder import Card
from .datasets import ImageSet


@dataclass(frozen=True)
class Normaliser:
    """Per-channel statistics [1, 3, 1, 1] of the training images."""

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, images: ImageSet) -> Self:
        sample = images.floats(slice(0, 20000))
        std, mean = torch.std_mean(sample, dim=(0, 2, 3), keepdim=True)
        return cls(mean, std.clamp_min(1e-3))

    @classmethod
    def of_card(cls, card: Card) -> Self:
        """The statistics that a trained network is used to."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (card.mean, card.std))
        return cls(mean, std)

    def to(self, device: torch.device) -> Normaliser:
        return Normaliser(self.mean.to(device), self.std.to(device))

    def __call__(self, x: Tensor) -> Tensor:
        return (x.clamp(0, 1) - self.mean) / self.std
