"""Convolutions of bytes, and gradients in bytes: oneDNN's int8, which multiplies twice as fast as bf16, or as fp32 with AVX2.

Weights are int8 with one scale per output channel, activations uint8 with a scale fixed beforehand (Jacob et al. 2018,
"Quantization and training of neural networks for efficient integer-arithmetic-only inference").
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

UNSIGNED_MAX = 255
ZERO_POINT = 128
"""The uint8 that stands for 0 where values have a sign."""
SIGNED_MAX = 127
PAIRED_MAX = 64
"""Two products of uint8 and this add up within 16 bits."""
_SMALLEST = 1e-6


@dataclass(frozen=True)
class Quantisation:
    """What a byte means: (byte - zero_point) * scale."""

    scale: float
    zero_point: int = 0
    dtype: torch.dtype = torch.uint8

    @classmethod
    def unsigned(cls, largest: float) -> Quantisation:
        return cls(max(largest, _SMALLEST) / UNSIGNED_MAX)

    @classmethod
    def signed(cls, largest: float) -> Quantisation:
        return cls(max(largest, _SMALLEST) / SIGNED_MAX, dtype=torch.int8)

    def shifted(self) -> Quantisation:
        """The same in uint8 around `ZERO_POINT`: oneDNN's convolutions write int8, but do not read it."""
        return Quantisation(self.scale, ZERO_POINT)


class QuantisedConv2d:
    """A convolution from bytes to bytes, or to floats, with sum and ReLU in the same pass.

    Weights are at most `largest`, by default what this CPU sums exactly. Where the zero point of the input is not 0, it has
    to be `padded` by the caller, which the option says: oneDNN would pad it with bytes of 0, or, told what these mean, reorder
    the weights at every call.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        padding: int,
        of: Quantisation,
        *,
        padded: bool = False,
        largest: int | None = None,
    ) -> None:
        weight = weight.float()
        self._scale = of.scale
        self._weight_scales = (weight.abs().amax((1, 2, 3)) / (largest or weight_max())).clamp_min(1e-12)
        self._weight_zero_points = torch.zeros(len(weight), dtype=torch.int32)
        rounded = (weight / self._weight_scales.view(-1, 1, 1, 1)).round().to(torch.int8)
        shift = rounded.sum((1, 2, 3)) * self._weight_scales * (-of.zero_point * of.scale)
        self._bias = shift if bias is None else bias.float() + shift
        self._geometry = [stride] * 2, [0 if padded else padding] * 2, [1, 1], 1
        self._weight = torch.ops.onednn.qconv_prepack(rounded, self._weight_scales, 1.0, 0, *self._geometry, None)

    def __call__(
        self,
        x: Tensor,
        to: Quantisation | torch.dtype,
        *,
        relu: bool = False,
        plus: tuple[Tensor, Quantisation] | None = None,
    ) -> Tensor:
        """Bytes [B, C, H, W] -> bytes, or floats; `plus` is added, and its tensor overwritten."""
        if isinstance(to, torch.dtype):
            scale, zero_point, dtype = 1.0, 0, to
        else:
            scale, zero_point, dtype = to.scale, to.zero_point, to.dtype
        given = x, self._scale, 0, self._weight, self._weight_scales, self._weight_zero_points
        after = "relu" if relu else "none"
        run = torch.ops.onednn.qconv2d_pointwise
        if plus is None:
            return cast(
                Tensor, run.default(*given, self._bias, *self._geometry, scale, zero_point, dtype, after, [], "")
            )
        other, of = plus
        options: tuple[Any, ...] = scale, zero_point, dtype, of.scale, of.zero_point, "sum", 1.0, after, [], ""
        return cast(Tensor, run.binary(*given, other, self._bias, *self._geometry, *options))


@functools.cache
def weight_max() -> int:
    """The largest weight whose products this CPU sums exactly.

    Without VNNI it adds up pairs of them in 16 bits, which saturate.
    """
    ones = QuantisedConv2d(torch.ones(32, 64, 3, 3), None, 1, 0, Quantisation(1.0), largest=SIGNED_MAX)
    white = torch.full((1, 64, 5, 5), UNSIGNED_MAX, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    exact = 64.0 * 9 * UNSIGNED_MAX
    return SIGNED_MAX if bool((ones(white, torch.float32) > 0.99 * exact).all()) else PAIRED_MAX


def zero_padded(like: Tensor, zero_point: int) -> tuple[Tensor, Tensor]:
    """Bytes [B, C, H + 2, W + 2] that all mean 0, and the part of them inside the padding, [B, C, H, W] as `like`."""
    batch, channels, height, width = like.shape
    size = (batch, channels, height + 2, width + 2)
    whole = torch.empty(size, dtype=torch.uint8, memory_format=torch.channels_last).fill_(zero_point)
    return whole, whole[:, :, 1:-1, 1:-1]


@dataclass
class QuantisedGradient:
    """A gradient [B, C, H, W] in int8, in steps of `scale`; every image's is multiplied by its own `factor` [B, 1, 1, 1]."""

    values: Tensor
    scale: float
    factor: Tensor

    @classmethod
    def of(cls, values: Tensor, factor: Tensor) -> QuantisedGradient:
        """Of floats that have been multiplied by `factor` already: every image's largest becomes that of int8."""
        flat = values.permute(0, 2, 3, 1).reshape(len(values), -1)
        largest = flat.abs().amax(1).clamp_min_(1e-30).view(-1, 1, 1, 1)
        by = (SIGNED_MAX - 1) / largest  # -1, since rounding `by` up must not lead beyond int8
        return cls((values * by).round_().to(torch.int8), 1.0, factor * by)

    def masked(self, values: Tensor, mask: Tensor, scale: float) -> QuantisedGradient:
        """What a convolution made of it, times a mask of 0 and 1 in int8; in place."""
        return QuantisedGradient(values.mul_(mask), scale, self.factor)

    def padded(self) -> Tensor:
        """`shifted` bytes [B, C, H + 2, W + 2]."""
        whole, inside = zero_padded(self.values, ZERO_POINT)
        torch.bitwise_xor(self.values.view(torch.uint8), ZERO_POINT, out=inside)
        return whole

    def shifted_(self) -> Tensor:
        """`shifted` bytes [B, C, H, W], in the memory of `values`, which lose their meaning."""
        return self.values.view(torch.uint8).bitwise_xor_(ZERO_POINT)
