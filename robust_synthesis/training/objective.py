"""What a step of training minimises, and the adversary that it minimises against."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..engine.ball import NORMS
from . import adversary
from .config import TrainConfig

Model = Callable[[Tensor], Tensor]
"""Images [B, 3, H, W] in [0, 1] -> logits [B, C]."""


def attack(
    model: Model, images: Tensor, labels: Tensor, config: TrainConfig, generator: torch.Generator | None
) -> Tensor:
    """The images, moved to where the objective is large."""
    loss = adversary.cross_entropy(model, labels)
    start = generator if config.random_start else None
    if config.objective == "trades":
        # The divergence has no gradient at the image itself, so TRADES must start beside it.
        loss, start = adversary.divergence(model, images), generator
    return adversary.perturb(
        loss,
        images,
        norm=NORMS[config.norm],
        epsilon=config.epsilon,
        steps=config.attack_steps,
        step_size=config.step_size,
        generator=start,
    )


def loss(model: Model, images: Tensor, attacked: Tensor, labels: Tensor, config: TrainConfig) -> Tensor:
    """Cross-entropy on the attacked images; for TRADES, on the images, and the divergence to the attacked ones."""
    if config.objective != "trades":
        return F.cross_entropy(model(attacked).float(), labels, label_smoothing=config.label_smoothing)
    clean, robust = model(torch.cat([images, attacked])).float().chunk(2)
    divergence = F.kl_div(robust.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="batchmean")
    return F.cross_entropy(clean, labels, label_smoothing=config.label_smoothing) + config.beta * divergence
