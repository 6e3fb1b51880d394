"""What a network is worth on images that it was not trained on."""

from __future__ import annotations

import torch

from ..engine import networks
from ..engine.ball import NORMS
from ..engine.precision import autocast
from . import adversary
from .config import TrainConfig
from .datasets import ImageSet
from .normaliser import Normaliser

BATCH = 256
STEPS = 10


def accuracy(
    network: networks.Network,
    images: ImageSet,
    config: TrainConfig,
    normalise: Normaliser,
    device: torch.device,
    layout: torch.memory_format,
) -> tuple[float, float]:
    """Clean accuracy, and accuracy under 10 attack steps at the training epsilon; in [0, 1]."""
    folded = networks.fold(network)
    clean = robust = 0
    with autocast(device, config.precision):
        for start in range(0, len(images), BATCH):
            index = slice(start, start + BATCH)
            x = images.floats(index).to(device, memory_format=layout)
            labels = images.labels[index].to(device)
            attacked = adversary.perturb(
                adversary.cross_entropy(lambda x: folded(normalise(x)), labels),
                x,
                norm=NORMS[config.norm],
                epsilon=config.epsilon,
                steps=STEPS,
                step_size=config.epsilon / 4,
            )
            with torch.no_grad():
                clean += int((folded(normalise(x)).argmax(1) == labels).sum())
                robust += int((folded(normalise(attacked)).argmax(1) == labels).sum())
    return clean / len(images), robust / len(images)
