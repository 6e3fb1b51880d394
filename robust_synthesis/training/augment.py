"""Random crop, flip, colour jitter and noise of whole batches on the device the images are on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .upload import upload


def augment(
    images: Tensor, generator: torch.Generator, *, padding: int, flip: bool, jitter: float, noise: float = 0.0
) -> Tensor:
    """Augment [B, 3, H, W] in [0, 1]: shift by up to `padding` pixels (reflected edges), flip half, scale brightness,
    contrast and saturation by up to 1 +- `jitter`, add Gaussian noise whose standard deviation is uniform from 0 to
    `noise` for each image. Random numbers come from the CPU `generator` alone."""
    batch, _, height, width = images.shape
    device = images.device
    if padding:
        padded = F.pad(images, [padding] * 4, mode="reflect")
        top, left = upload(torch.randint(0, 2 * padding + 1, (2, batch, 1), generator=generator), device)
        rows = top + torch.arange(height, device=device)
        columns = left + torch.arange(width, device=device)
        index = torch.arange(batch, device=device).view(-1, 1, 1)
        images = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if flip:
        flipped = upload(torch.rand(batch, 1, 1, 1, generator=generator) < 0.5, device)
        images = torch.where(flipped, images.flip(3), images)
    if jitter:
        factors = 1 + jitter * (2 * torch.rand(3, batch, 1, 1, 1, generator=generator) - 1)
        brightness, contrast, saturation = upload(factors, device)
        images = images * brightness
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = mean + contrast * (images - mean)
        grey = images.mean(dim=1, keepdim=True)
        images = (grey + saturation * (images - grey)).clamp(0, 1)
    if noise:
        deviation = noise * torch.rand(batch, 1, 1, 1, generator=generator)
        images = (images + upload(deviation * torch.randn(images.shape, generator=generator), device)).clamp(0, 1)
    return images
