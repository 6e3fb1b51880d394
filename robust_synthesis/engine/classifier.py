"""A frozen classifier, made for gradients with respect to its input."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Self, cast

import torch
from torch import Tensor

from ..errors import ModelError
from ..model_folder import CARD, Card, ModelFolder, find
from ..units import Units
from . import networks, weights
from .fused import fused
from .int8 import Int8ResNet, supports
from .packed import packed
from .precision import choose_device, choose_precision, compute_exactly
from .ranges import Ranges
from .seeds import Seeds


class Classifier:
    """A network with its card: images [B, 3, H, W] in [0, 1] -> logits [B, C].

    Parameters are frozen, batch norms are folded into convolutions, tensors are channels-last.
    """

    def __init__(
        self,
        network: networks.Network,
        card: Card,
        *,
        version: str = "",
        seeds: Seeds | None = None,
        units: Units | None = None,
        device: torch.device | str | None = None,
        precision: str = "fp32",
    ) -> None:
        self.card = card
        self.version = version
        self.seeds = seeds
        self.units = units or Units()
        self.device = choose_device(device)
        compute_exactly(self.device)
        self.network = networks.fold(network).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean = torch.tensor(card.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(card.std, device=self.device).view(1, 3, 1, 1)
        self._compute_in(precision)

    def _compute_in(self, precision: str) -> None:
        ranges = Ranges.of_card(self.card.ranges) if supports(self.card.architecture) else None
        self.precision = choose_precision(self.device, precision, int8=ranges is not None)
        self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self._rounded: networks.Network
        if self.precision == "int8":
            assert ranges is not None
            wide = torch.bfloat16 if choose_precision(self.device, "auto") == "bf16" else torch.float32
            pixels = self.normalise(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
            try:
                self._rounded = Int8ResNet(cast(networks.ResNet, self.network), ranges, pixels, wide)
            except KeyError as error:
                raise ModelError(
                    f"{CARD}: ranges lack {error}; run `robust-synthesis calibrate {self.card.name}` again."
                ) from error
            return
        # The bits are autocast's, which would round the weights again at every step.
        rounded = self.network if self.precision == "fp32" else copy.deepcopy(self.network).to(self._dtype)
        if self.device.type == "cpu":
            self._rounded = packed(rounded)
        else:
            self._rounded = fused(rounded) if self.precision == "bf16" else rounded

    def in_precision(self, precision: str) -> Self:
        """The same classifier, sharing its weights, computing in another precision."""
        same = copy.copy(self)
        same._compute_in(precision)
        return same

    @classmethod
    def load(cls, model: str | Path, *, device: torch.device | str | None = None, precision: str = "fp32") -> Self:
        """Load a model folder, by path or by its name in the models directory.

        Raises NotFound, or ModelError for a folder that is incomplete, damaged or does not fit its card.
        """
        folder = ModelFolder.open(find(model))
        return cls(
            weights.load_network(folder),
            folder.card,
            version=folder.version,
            seeds=Seeds.load(folder, classes=len(folder.card.classes)),
            units=Units.load(folder),
            device=device,
            precision=precision,
        )

    def normalise(self, x: Tensor) -> Tensor:
        """(clamp(x, 0, 1) - mean) / std."""
        return (x.clamp(0, 1) - self._mean) / self._std

    def __call__(self, x: Tensor) -> Tensor:
        """Logits [B, C], fp32."""
        return self.logits_and_latent(x)[0]

    def logits_and_latent(self, x: Tensor, fake_relu: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [B, C] and the pooled latent [B, D] after the final ReLU, fp32."""
        z = self.normalise(x).to(self._dtype, memory_format=torch.channels_last)
        latent = self._rounded.latent(z, fake_relu)
        logits: Tensor = self._rounded.fc(latent)
        return logits.float(), latent.float()

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """Class probabilities [B, C] on the CPU, of images on any device."""
        return self(x.to(self.device)).softmax(1).cpu()

    def unit_index(self, unit: int | str) -> int:
        """Index of a latent unit given by name or number. Raises NotFound or InvalidInput."""
        return self.units.find(unit, self.network.fc.in_features)
