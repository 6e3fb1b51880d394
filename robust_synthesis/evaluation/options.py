"""What to evaluate, and how thoroughly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput, NotFound
from ..model_folder import Card

IMAGES: Mapping[str, int] = {
    "accuracy": 1000,
    "judge": 0,
    "generation": 500,
    "class_maximization": 250,
    "translation": 500,
    "inpainting": 500,
    "super_resolution": 500,
    "sketches": 0,
    "feature_painting": 32,
    "robustness_gap": 100,
}
"""The parts in the order in which they run, and how many pictures each uses (0: as many as it always does)."""
UNTRAINED = 0.5
"""L2 radius of the attack on a classifier that was trained against none."""
LARGE = 64
"""Side from which on a part uses fewer pictures, in inverse proportion, since each costs as many times more."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Options of `robust-synthesis evaluate`. Distances are in units of pixel values in [0, 1]."""

    only: tuple[str, ...] = ()
    """Parts to run; empty: all that the given classifiers allow."""
    images: int | None = None
    """Pictures per part; for accuracy, those that are attacked; for generation, those of each setting."""
    l2: float | None = 0.5
    linf: float | None = None
    """Radii at which to measure robust accuracy; None: not in this norm."""
    standard: bool = False
    """Run all of AutoAttack rather than its two strongest attacks."""
    sweep: bool = False
    """In-painting and super-resolution at several epsilons, beside the card's default."""
    grid: tuple[tuple[float, int], ...] | None = None
    """(epsilon at 32 pixels, steps) of generation, beside the card's default; None: as many as the image size affords."""
    units: tuple[str, ...] = ()
    """Names or numbers of the latent units to paint with above, below, and in the middle; empty: chosen from the catalogue."""
    seed: int = 0

    def __post_init__(self) -> None:
        for part in self.only:
            if part not in IMAGES:
                raise NotFound("only", part, IMAGES)
        if self.images is not None and self.images < 1:
            raise InvalidInput("images", f"is {self.images}; give a number from 1.")
        for norm, radius in self.radii.items():
            if not (math.isfinite(radius) and radius > 0):
                raise InvalidInput(norm, f"is {radius}; give a finite number above 0.")
        if not 0 <= self.seed < 2**63:
            raise InvalidInput("seed", f"is {self.seed}; give a whole number from 0 to 2^63 - 1.")

    @property
    def radii(self) -> dict[str, float]:
        """Norm -> radius of every attack to run."""
        return {norm: radius for norm, radius in (("l2", self.l2), ("linf", self.linf)) if radius is not None}

    def count(self, part: str, size: int) -> int:
        """How many pictures of `size` pixels a part uses."""
        return self.images or IMAGES[part] * LARGE // max(size, LARGE)

    def grid_at(self, size: int) -> tuple[tuple[float, int], ...]:
        """The grid for classifiers of `size` pixels; the last of four is the paper's for CIFAR-10."""
        if self.grid is not None:
            return self.grid
        return ((3, 20), (6, 40), (12, 60), (30, 60)) if size < LARGE else ((3, 20), (12, 40))

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def radii_of(card: Card) -> dict[str, float]:
    """Norm -> radius of the attacks where none is asked for: those on the card already, or else the one trained against."""
    measured = {entry["norm"]: float(entry["epsilon"]) for entry in card.measured.get("robust_accuracy", ())}
    trained = card.training if card.training.get("objective") not in (None, "standard") else {}
    return measured or {str(trained.get("norm", "l2")): float(trained.get("epsilon", UNTRAINED))}
