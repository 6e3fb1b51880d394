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
    right = torch.zeros(2, dtype=torch.long, device=device)  # read once, so that a GPU need not be waited for
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
                right += torch.stack([(folded(normalise(y)).argmax(1) == labels).sum() for y in (x, attacked)])
    clean, robust = right.tolist()
    return clean / len(images), robust / len(images)
