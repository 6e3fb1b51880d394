"""How often something was right, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

Z95 = 1.959964
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Proportion:
    """`hits` of `count`; `count` is at least 1."""

    hits: int
    count: int

    @classmethod
    def of(cls, right: Tensor) -> Proportion:
        """From one bool per trial, [N]."""
        return cls(int(right.sum()), right.numel())

    @property
    def value(self) -> float:
        return self.hits / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of Wilson 1927; `count` in it is the sample's, of a population far larger."""
        n, p = self.count, self.value
        shrink = 1 / (1 + Z95**2 / n)
        centre = shrink * (p + Z95**2 / (2 * n))
        half = shrink * Z95 * (p * (1 - p) / n + Z95**2 / (4 * n * n)) ** 0.5
        return max(0.0, centre - half), min(1.0, centre + half)
