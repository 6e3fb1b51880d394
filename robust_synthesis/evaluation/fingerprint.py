"""Short hashes of what a measurement depends on, so that a cached or an older number is used only where it holds."""

from __future__ import annotations

import hashlib

from torch import Tensor

from ..engine.classifier import Classifier
from ..training.datasets import ImageSet


def of_network(classifier: Classifier) -> str:
    """Of what the network computes: its weights and its normalisation, but not what its card says about measurements."""
    card = classifier.card
    digest = hashlib.sha256(repr((dict(card.architecture), card.mean, card.std)).encode())
    for name, tensor in classifier.network.state_dict().items():
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def of_images(images: ImageSet) -> str:
    """Of the pixels and labels."""
    digest = hashlib.sha256(_bytes(images.images))
    digest.update(_bytes(images.labels))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()
