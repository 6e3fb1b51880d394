"""The model folder that a run fine-tunes."""

from __future__ import annotations

from typing import Any

import torch

from ..engine import networks, weights
from ..model_folder import ModelFolder, find
from .normaliser import Normaliser


class Parent:
    """A trained network and the statistics of the images that it is used to. Raises ModelError as a classifier does."""

    def __init__(self, model: str) -> None:
        folder = ModelFolder.open(find(model))
        self.card = folder.card
        self.normaliser = Normaliser.of_card(folder.card)
        self._network = weights.load_network(folder)

    @property
    def architecture(self) -> dict[str, Any]:
        return dict(self.card.architecture)

    def network(self, classes: list[str], seed: int) -> networks.Network:
        """Its network; the head is new when the classes are others."""
        if list(self.card.classes) != classes:
            torch.manual_seed(seed)
            self._network.fc = networks.build(self.card.architecture, len(classes)).fc
        return self._network
