"""What to evaluate, and how thoroughly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput, NotFound

IMAGES: Mapping[str, int] = {
    "accuracy": 1000,
    "judge": 0,
    "generation": 500,
    "inpainting": 500,
    "super_resolution": 500,
    "robustness_gap": 100,
}
"""The parts in the order in which they run, and how many pictures each uses (0: every test image)."""


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
    grid: tuple[tuple[float, int], ...] = ((3, 20), (6, 40), (12, 60), (30, 60))
    """(epsilon at 32 pixels, steps) of generation, beside the card's default; the last is the paper's for CIFAR-10."""
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

    def count(self, part: str) -> int:
        """How many pictures a part uses."""
        return self.images or IMAGES[part]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
