"""Small things to test with, for this package and for programs built on it: a classifier that needs no training, its model
folder, and pictures to give it.

    folder = tiny_model_folder(tmp_path / "tiny")
    picture = robust_synthesis.load(folder.path, precision="fp32").generate("circle", seed=1).image

The network is random, so its pictures mean nothing; but its batch norms, its gradients and its probabilities are those of
a working classifier in scale, and it computes a step in a few milliseconds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from .engine import networks, weights
from .engine.classifier import Classifier
from .engine.seeds import Seeds
from .files import atomic_write
from .imaging import save, to_image
from .model_folder import SEEDS, UNITS, UNITS_SHEET, WEIGHTS, Card, ModelFolder, write_card
from .training.catalogue import collect_units
from .training.datasets import ImageSet
from .units import Units

CLASSES = ("circle", "square", "stripes", "waves")
SIZE = 16
ARCHITECTURE: Mapping[str, Any] = {"kind": "resnet", "block": "basic", "depths": [1, 1], "width": 4, "stem": "small"}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "generate": {"epsilon": 3.0, "step_size": 0.4, "steps": 10},
    "inpaint": {"epsilon": 2.0, "step_size": 0.2, "steps": 10},
    "paint_features": {"epsilon": 3.0, "step_size": 0.4, "steps": 10},
}
"""On the card, so that these tasks take few steps; the others have the paper's parameters."""
_PER_CLASS = 24


def tiny_network(
    seed: int = 0, *, classes: int = len(CLASSES), architecture: Mapping[str, Any] = ARCHITECTURE
) -> networks.Network:
    """A network of random weights in evaluation mode, its batch norms not yet folded; equal for equal seeds."""
    return randomise(networks.build(architecture, classes), seed)


@torch.no_grad()
def randomise(network: networks.Network, seed: int = 0) -> networks.Network:
    """Fill a network, its batch norms' running statistics too, with values of the scale that training gives.

    The head is balanced: over `pictures`, every logit has mean 0 and the logits have a standard deviation of 2.
    """
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=random)
        elif isinstance(module, nn.Linear):
            module.weight.normal_(generator=random)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.uniform_(0.5, 1.5, generator=random)
            module.bias.normal_(0, 0.2, generator=random)
            module.running_mean.normal_(0, 0.3, generator=random)
            module.running_var.uniform_(0.5, 2, generator=random)
    latent = network.eval().latent(4 * pictures(size=32)[0] - 2)
    centred = (latent - latent.mean(0)) @ network.fc.weight.T
    network.fc.weight.mul_(2 / centred.std())
    network.fc.bias.copy_(-network.fc.weight @ latent.mean(0))
    return network


def tiny_card(
    name: str = "tiny",
    *,
    classes: Sequence[str] = CLASSES,
    architecture: Mapping[str, Any] = ARCHITECTURE,
    size: int = SIZE,
    defaults: Mapping[str, Mapping[str, Any]] = DEFAULTS,
) -> Card:
    """The card of a tiny classifier."""
    return Card(
        name=name,
        architecture=dict(architecture),
        classes=tuple(classes),
        size=size,
        mean=(0.48, 0.45, 0.41),
        std=(0.25, 0.24, 0.26),
        training={"epsilon": 0.5},
        data={"name": "pictures", "train_images": _PER_CLASS * len(classes)},
        defaults=defaults,
    )


def tiny_classifier(
    seed: int = 0, card: Card | None = None, *, precision: str = "fp32", device: str = "cpu"
) -> Classifier:
    """A random classifier in memory, with class Gaussians and a catalogue of units."""
    card = card or tiny_card()
    network = tiny_network(seed, classes=len(card.classes), architecture=card.architecture)
    pixels, labels = pictures(len(card.classes), card.size, seed)
    seeds = Seeds.fit(pixels, labels, len(card.classes), side=min(16, card.size), rank=8)
    units, _ = _catalogue(network, card, seed)
    return Classifier(network, card, seeds=seeds, units=units, device=device, precision=precision)


def tiny_model_folder(
    path: Path, card: Card | None = None, *, seed: int = 0, weights_format: str = "fp32"
) -> ModelFolder:
    """Write the model folder of `tiny_classifier(seed, card)`: card, weights, seeds, units and their sheet."""
    card = card or tiny_card()
    network = tiny_network(seed, classes=len(card.classes), architecture=card.architecture)
    pixels, labels = pictures(len(card.classes), card.size, seed)
    units, sheet = _catalogue(network, card, seed)
    path.mkdir(parents=True, exist_ok=True)
    weights.write(path / WEIGHTS, network.state_dict(), weights_format)
    Seeds.fit(pixels, labels, len(card.classes), side=min(16, card.size), rank=8).save(path / SEEDS)
    with atomic_write(path / UNITS) as file:
        file.write(json.dumps([dataclasses.asdict(unit) for unit in units.units]).encode())
    save(sheet, path / UNITS_SHEET)
    return write_card(path, card)


def pictures(classes: int = len(CLASSES), size: int = SIZE, seed: int = 0) -> tuple[Tensor, Tensor]:
    """24 smooth pictures of each class, [N, 3, size, size] in [0, 1], and their labels [N]; each class has its colours."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(_PER_CLASS)
    colours = 0.3 + 0.4 * torch.rand(classes, 3, 1, 1, generator=random)
    coarse = torch.randn(len(labels), 3, 4, 4, generator=random)
    smooth = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    return (colours[labels] + 0.2 * smooth).clamp(0, 1), labels


def picture(size: int = SIZE, seed: int = 0) -> Image.Image:
    """One of `pictures`, as an image."""
    return to_image(pictures(1, size, seed)[0][0].numpy())


def mask(size: int = SIZE) -> Image.Image:
    """A mask whose middle quarter may be edited."""
    drawn = Image.new("L", (size, size))
    drawn.paste(255, (size // 4, size // 4, size - size // 4, size - size // 4))
    return drawn


def _catalogue(network: networks.Network, card: Card, seed: int) -> tuple[Units, Image.Image]:
    """The units that `pictures` activate, and the sheet that shows it."""
    pixels, labels = pictures(len(card.classes), card.size, seed)
    seen = ImageSet((pixels * 255).round().byte(), labels, list(card.classes))
    units, sheet = collect_units(Classifier(network, card, device="cpu"), seen)
    return Units(tuple(units)), sheet
