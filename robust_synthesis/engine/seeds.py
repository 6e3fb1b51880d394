"""Where generation starts: samples of class-conditional Gaussians, or plain noise.

Source: Santurkar et al. 2019, section 3 and appendix A. A class's covariance is kept as a truncated factor F, so that a sample
is mu + F' z + s w with z ~ N(0, I_rank) and w ~ N(0, I_D), where s^2 is the paper's ridge of 1e-4 plus the mean variance
that the truncation dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor

from ..errors import InvalidInput, ModelError
from ..files import atomic_write
from ..model_folder import SEEDS, ModelFolder
from .problem import quantise

RIDGE = 1e-4
NOISE_SPREAD = 0.1


def generator(seed: int, index: int, stream: int = 0) -> np.random.Generator:
    """The random numbers of image `index` of a request: counter-based, equal on every machine."""
    return np.random.Generator(np.random.Philox(key=[seed, index], counter=[0, 0, 0, stream]))


@dataclass(frozen=True)
class Seeds:
    """Gaussians of C classes over r x r pictures, D = 3 r r."""

    mean: np.ndarray
    """float32 [C, D]."""
    factor: np.ndarray
    """float32 [C, rank, D]."""
    spread: np.ndarray
    """float32 [C]: standard deviation of the isotropic remainder."""

    @property
    def side(self) -> int:
        return math.isqrt(self.mean.shape[1] // 3)

    def sample(self, target: int, size: int, seed: int, index: int = 0) -> Tensor:
        """A picture [3, size, size] of class `target`, enlarged bilinearly, clamped to [0, 1], on the grid.

        The paper enlarges by nearest neighbour; the edges of its blocks would stay in the picture.
        """
        random = generator(seed, index)
        z = random.standard_normal(self.factor.shape[1], dtype=np.float32)
        w = random.standard_normal(self.mean.shape[1], dtype=np.float32)
        flat = self.mean[target] + z @ self.factor[target] + self.spread[target] * w
        channels = np.clip(flat, 0, 1).astype(np.float32).reshape(3, self.side, self.side)
        enlarged = [Image.fromarray(c).resize((size, size), Image.Resampling.BILINEAR) for c in channels]
        return quantise(torch.from_numpy(np.stack([np.asarray(c) for c in enlarged])))

    @classmethod
    def fit(cls, images: Tensor, labels: Tensor, classes: int, *, side: int = 16, rank: int = 32) -> Seeds:
        """Fit to images [N, 3, H, W] in [0, 1], block-averaged to `side` pixels, by a truncated SVD per class."""
        small = torch.nn.functional.adaptive_avg_pool2d(images, side).flatten(1)
        means, factors, spreads = [], [], []
        for target in range(classes):
            rows = small[labels == target]
            if len(rows) < 2:
                raise InvalidInput("data", f"class {target} has {len(rows)} images; a Gaussian seed needs at least 2.")
            mean = rows.mean(0)
            centred = (rows - mean) / len(rows) ** 0.5
            _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
            factor = torch.zeros(rank, rows.shape[1])
            kept = min(rank, len(singular))
            factor[:kept] = singular[:kept, None] * directions[:kept]
            dropped = float(singular[kept:].square().sum()) / rows.shape[1]
            means.append(mean)
            factors.append(factor)
            spreads.append((RIDGE + dropped) ** 0.5)
        return cls(torch.stack(means).numpy(), torch.stack(factors).numpy(), np.array(spreads, np.float32))

    def save(self, path: Path) -> None:
        """Store the factor in 8 bits per direction, the rest in fp16 and fp32."""
        scale = np.maximum(np.abs(self.factor).max(axis=2, keepdims=True), 1e-12) / 127
        stored = {
            "mean": self.mean.astype(np.float16),
            "factor": np.round(self.factor / scale).astype(np.int8),
            "factor.scale": scale.astype(np.float32),
            "spread": self.spread.astype(np.float32),
        }
        with atomic_write(path) as file:
            file.write(save(stored))

    @classmethod
    def load(cls, folder: ModelFolder, classes: int) -> Seeds | None:
        """The folder's seeds, or None where it has none. Raises ModelError when they do not fit the card."""
        path = folder.file(SEEDS)
        if path is None:
            return None
        try:
            stored = load_file(path)
            factor = stored["factor"].astype(np.float32) * stored["factor.scale"]
            seeds = cls(stored["mean"].astype(np.float32), factor, stored["spread"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise ModelError(f"model: {path} does not hold class seeds ({error}).") from error
        shape = seeds.mean.shape
        square = len(shape) == 2 and shape == (classes, 3 * seeds.side**2)
        if not square or factor.ndim != 3 or factor[:, 0].shape != shape or seeds.spread.shape != (classes,):
            shapes = f"{shape}, {factor.shape} and {seeds.spread.shape}"
            raise ModelError(f"model: {path} holds seeds of shapes {shapes}, not those of {classes} classes.")
        for name in ("mean", "factor", "spread"):
            if not np.isfinite(getattr(seeds, name)).all():
                raise ModelError(f"model: {path} holds NaN or infinity in {name}.")
        return seeds


def noise(size: int, seed: int, index: int = 0) -> Tensor:
    """Plain noise around grey, [3, size, size] on the grid."""
    sample = generator(seed, index).standard_normal((3, size, size), dtype=np.float32)
    return quantise(torch.from_numpy(0.5 + NOISE_SPREAD * sample).clamp(0, 1))


def random_direction(like: Tensor, norm: str, seed: int, index: int = 0) -> Tensor:
    """Where a random start lies, for a ball of radius 1: on the L2 sphere, or uniform in the L-inf ball; [3, H, W]."""
    random = generator(seed, index, stream=1)
    if norm == "linf":
        return torch.from_numpy(random.uniform(-1, 1, tuple(like.shape)).astype(np.float32))
    sample = torch.from_numpy(random.standard_normal(tuple(like.shape), dtype=np.float32))
    direction: Tensor = sample / torch.linalg.vector_norm(sample)
    return direction
