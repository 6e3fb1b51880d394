"""What a batch of synthesis jobs is made of: the fixed problem, and the state that gradient descent changes.

Every field has the batch as its first dimension, and no operation mixes samples, so jobs of different tasks share a batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from .ball import L2

LEVELS = 65535
"""x lives on a 16-bit grid, so that it travels as two bytes a value and chunk boundaries leave no trace."""

FEW = 2**16
"""Values that numpy rounds: torch takes all of its threads even for so few, which wait for each other, long on busy cores."""


def quantise(x: Tensor, levels: int = LEVELS) -> Tensor:
    """Round [0, 1] to multiples of 1 / levels: floats that no gradient is asked of."""
    if x.device.type != "cpu" or x.numel() > FEW:
        return (x * levels).round_() / levels
    rounded = np.multiply(x.numpy(), levels)
    np.rint(rounded, out=rounded)
    rounded /= levels
    return torch.from_numpy(rounded)


@dataclass(frozen=True)
class Rows:
    """Tensors that have their first dimension in common."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def rows(self, index: slice) -> Self:
        return dataclasses.replace(self, **{name: value[index] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Problem(Rows):
    """The objective and the ball of B jobs: l = a CE(logits, target) + b latent[unit] + c mean(((x0 - x)(1 - M))^2).

    Coefficients carry the sign: every job *minimises* its loss.
    """

    center: Tensor
    """x0 and the centre of the ball, [B, 3, H, W] in [0, 1]."""
    mask: Tensor
    """M, [B, 1, H, W] in [0, 1]: 1 where editing is allowed."""
    hard_mask: Tensor
    """[B] bool: gradients are multiplied by M, so that pixels with M = 0 never change."""
    target: Tensor
    """[B] int64, class index."""
    unit: Tensor
    """[B] int64, index into the pooled latent."""
    ce_weight: Tensor
    latent_weight: Tensor
    penalty_weight: Tensor
    """a, b, c: [B]."""
    fake_relu: Tensor
    """[B] bool: the final ReLU passes gradient to dead units."""
    norm: Tensor
    """[B] int64: a code of `ball.NORMS`."""
    epsilon: Tensor
    """[B], radius of the ball in units of pixel values."""
    step_size: Tensor
    """[B], length of a step in units of pixel values."""
    use_best: Tensor
    """[B] bool: the result is the x of lowest loss rather than the last one."""

    @classmethod
    def single(
        cls,
        center: Tensor,
        *,
        target: int,
        epsilon: float,
        step_size: float,
        norm: int = L2,
        mask: Tensor | None = None,
        hard_mask: bool = False,
        unit: int = 0,
        ce_weight: float = 1.0,
        latent_weight: float = 0.0,
        penalty_weight: float = 0.0,
        fake_relu: bool = False,
        use_best: bool = True,
    ) -> Problem:
        """One job around `center` [3, H, W]; `mask` [1, H, W] defaults to everywhere, and is rounded to the grid."""
        mask = torch.ones_like(center[:1]) if mask is None else quantise(mask)

        def number(value: float) -> Tensor:
            return torch.tensor([value], dtype=torch.float32)

        return cls(
            center=center[None],
            mask=mask[None],
            hard_mask=torch.tensor([hard_mask]),
            target=torch.tensor([target]),
            unit=torch.tensor([unit]),
            ce_weight=number(ce_weight),
            latent_weight=number(latent_weight),
            penalty_weight=number(penalty_weight),
            fake_relu=torch.tensor([fake_relu]),
            norm=torch.tensor([norm]),
            epsilon=number(epsilon),
            step_size=number(step_size),
            use_best=torch.tensor([use_best]),
        )

    def to(self, device: torch.device) -> Problem:
        """The problem, itself where it is there already; on another device pixels are rounded to the grid as that divides."""
        if device == self.center.device:
            return self
        moved = {name: value.to(device) for name, value in vars(self).items()}
        return dataclasses.replace(self, **moved | {name: quantise(moved[name]) for name in ("center", "mask")})


@dataclass(frozen=True)
class State(Rows):
    """Where B jobs stand."""

    x: Tensor
    """[B, 3, H, W], on the grid."""
    best_x: Tensor
    """The x of lowest loss so far, [B, 3, H, W]."""
    best_loss: Tensor
    """[B]; infinite before the first evaluation."""
    best_probability: Tensor
    """[B], softmax probability of the target at `best_x`."""
    best_class: Tensor
    """[B] int64, class that is predicted for `best_x`; -1 where that is not known."""
    remaining: Tensor
    """[B] int64, on the CPU: evaluations still to do. T steps need T + 1, because the last x is judged too."""

    @classmethod
    def start(cls, x: Tensor, steps: int) -> State:
        """A job that will take `steps` steps from `x` [3, H, W]."""
        x = quantise(x.clamp(0, 1))[None]
        return cls(
            x=x,
            best_x=x,
            best_loss=torch.tensor([torch.inf]),
            best_probability=torch.tensor([0.0]),
            best_class=torch.tensor([-1]),
            remaining=torch.tensor([steps + 1]),
        )

    def to(self, device: torch.device) -> State:
        """The state, itself where it is there already; on another device pixels are rounded to the grid as that divides."""
        if device == self.x.device:
            return self
        moved = {name: value.to(device) for name, value in vars(self).items() if name != "remaining"}
        return dataclasses.replace(self, **moved | {name: quantise(moved[name]) for name in ("x", "best_x")})

    def result(self, problem: Problem) -> Tensor:
        """The pictures [B, 3, H, W] that the jobs would return now."""
        return torch.where(problem.use_best.view(-1, 1, 1, 1), self.best_x, self.x)
