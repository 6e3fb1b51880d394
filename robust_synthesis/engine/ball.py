"""Norm balls in pixel space: normalised steps and projections, per sample.

A batch may mix norms: `norm` [B] holds one of the codes below for each sample. Source: Madry et al. 2018;
Santurkar et al. 2019, appendix A.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNCONSTRAINED, L2, LINF = 0, 1, 2
NORMS = {"none": UNCONSTRAINED, "l2": L2, "linf": LINF}


def per_sample(values: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1]."""
    return values.view(-1, 1, 1, 1)


def l2_norm(x: Tensor) -> Tensor:
    """Euclidean norm over CHW: [B, C, H, W] -> [B]."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=(1, 2, 3))
    return norm


def direction(gradient: Tensor, norm: Tensor) -> Tensor:
    """Steepest direction of unit length: g / (|g|_2 + 1e-10), or sign(g) in an L-inf ball."""
    unit = gradient / (per_sample(l2_norm(gradient)) + 1e-10)
    return torch.where(per_sample(norm == LINF), gradient.sign(), unit)


def project(x: Tensor, center: Tensor, norm: Tensor, epsilon: Tensor) -> Tensor:
    """Nearest point of the ball around `center`, then clamped to [0, 1]."""
    delta = x - center
    length = l2_norm(delta)
    shrink = torch.where((norm == L2) & (length > epsilon), epsilon / length.clamp_min(1e-30), 1.0)
    bound = per_sample(torch.where(norm == LINF, epsilon, torch.inf))
    delta = torch.maximum(torch.minimum(delta * per_sample(shrink), bound), -bound)
    return (center + delta).clamp(0, 1)
