"""Which test images a measurement uses."""

from __future__ import annotations

import torch

from ..training.datasets import ImageSet


def sample(images: ImageSet, count: int, seed: int) -> ImageSet:
    """`count` images drawn at random without replacement, or all where there are fewer.

    Samples of one seed are nested: the first 100 of 500 are the sample of 100.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.subset(order[:count])
