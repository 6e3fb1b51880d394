"""Distances between sets of pictures, in a feature space or in pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..training._torchvision import torchvision


def frechet_distance(features: Tensor, real: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to [n, D] and [N, D], as FID has it (Heusel et al. 2017), by torchmetrics.

    It grows as n falls: compare only figures of equal n, and each with what as many real pictures get.
    """
    torchvision()  # which torchmetrics imports on its own, and cannot beside a CPU-only torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    given = nn.Identity()
    given.num_features = features.shape[1]  # type: ignore[assignment]
    metric = FrechetInceptionDistance(feature=given)
    metric.update(real.double(), real=True)
    metric.update(features.double(), real=False)
    return float(metric.compute())


def mean_pairwise_distance(rows: Tensor, labels: Tensor) -> float:
    """Mean Euclidean distance between two different rows [N, ...] of a class, averaged over the classes with two or more."""
    flat = rows.flatten(1)
    members = [flat[labels == label] for label in torch.unique(labels)]
    distances = [torch.pdist(group).mean() for group in members if len(group) > 1]
    return float(torch.stack(distances).mean())
