"""The inner maximisation of robust training: projected gradient ascent on the input (Madry et al. 2018, eq. 2.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..engine.ball import LINF, direction, l2_norm, per_sample, project
from .upload import upload

Loss = Callable[[Tensor], Tensor]


def perturb(
    loss: Loss,
    images: Tensor,
    *,
    norm: int,
    epsilon: float,
    steps: int,
    step_size: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images within `epsilon` of `images` [B, 3, H, W] that make `loss` (x -> per-sample loss [B]) large.

    With a CPU `generator` the search starts at a random point of the ball, otherwise at the images.
    """
    batch = len(images)
    norms = torch.full((batch,), norm, device=images.device)
    radius = torch.full((batch,), epsilon, device=images.device)
    x = images
    if generator is not None:
        noise = upload(torch.randn(images.shape, generator=generator), images.device).to(images.dtype)
        if norm == LINF:
            noise = (noise / 2**0.5).erf()  # uniform in [-1, 1]
        else:
            share = upload(torch.rand(batch, generator=generator), images.device).to(images.dtype)
            noise = noise / per_sample(l2_norm(noise)) * per_sample(share)
        x = (images + epsilon * noise).clamp(0, 1)
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(x).sum(), x)
        with torch.no_grad():
            x = project(x + step_size * direction(gradient, norms), images, norms, radius)
    return x.detach()


def cross_entropy(model: Callable[[Tensor], Tensor], labels: Tensor) -> Loss:
    """Cross-entropy of `model`'s logits against `labels`, per sample."""
    return lambda x: F.cross_entropy(model(x).float(), labels, reduction="none")


def divergence(model: Callable[[Tensor], Tensor], images: Tensor) -> Loss:
    """KL(model(images) || model(x)) per sample, the inner loss of TRADES (Zhang et al. 2019, eq. 5)."""
    with torch.no_grad():
        clean = model(images).float().log_softmax(1)
    return lambda x: F.kl_div(model(x).float().log_softmax(1), clean, log_target=True, reduction="none").sum(1)
