"""A ResNet whose activations, and most of whose gradients, are bytes.

Scales of activations are fixed (`ranges`), so that a result does not depend on the rest of its batch. Gradients pass rounding as
if it were the identity (Bengio, Leonard and Courville 2013, "straight-through") and are themselves rounded to bytes, after
every image's has been scaled to its own largest value: once per stage, since they change most from one to the next. Through
strided convolutions they are bf16 or fp32.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .networks import BasicBlock, Network, ResNet
from .packed import PackedConv2d
from .quantised import (
    SIGNED_MAX,
    UNSIGNED_MAX,
    Quantisation,
    QuantisedConv2d,
    QuantisedGradient,
    zero_padded,
)
from .ranges import Ranges

Masks = tuple[Tensor, Tensor]
"""Of the ReLUs before a block and within it: int8, 1 where they are active and else 0, [B, C, H, W] each."""


def supports(architecture: Mapping[str, Any]) -> bool:
    """Whether a card's network is one that `Int8ResNet` can be made of."""
    usual = {"block": "basic", "stem": "small", "activation": "relu"}
    return architecture.get("kind") == "resnet" and all(architecture.get(k, v) == v for k, v in usual.items())


class _Block(ABC):
    """A `BasicBlock` in bytes, from those of `of` to those of `out`."""

    def __init__(self, name: str, block: BasicBlock, of: Quantisation, ranges: Ranges, dtype: torch.dtype) -> None:
        self._dtype, self._of = dtype, of
        self._inner = Quantisation.unsigned(ranges.activations[f"{name}.conv1"])
        self.out = Quantisation.unsigned(ranges.activations[name])
        self._conv1, self._conv2 = _quantised(block.conv1, of), _quantised(block.conv2, self._inner)

    def _shortcut(self, x: Tensor) -> tuple[Tensor, Quantisation]:
        return x, self._of

    def __call__(self, x: Tensor, *, last: bool) -> tuple[Tensor, Masks]:
        """Bytes [B, C, H, W], which are overwritten -> bytes behind the block's ReLU, or for the `last` one floats before it."""
        inner = self._conv1(x, self._inner, relu=True)
        mask = x.bool().view(torch.int8)
        shortcut, of = self._shortcut(x)
        if last:
            y = self._conv2(inner, self._dtype)
            y.add_(shortcut.to(self._dtype).sub_(of.zero_point), alpha=of.scale)
        else:
            y = self._conv2(inner, self.out, relu=True, plus=(shortcut, of))
        return y, (mask, inner.sign_().view(torch.int8))

    @abstractmethod
    def backward(self, gradient: QuantisedGradient, masks: Masks) -> QuantisedGradient:
        """From the gradient towards the block's result, whose values are overwritten, that towards its input; `masks` stay."""


class _PlainBlock(_Block):
    """Without a stride: the gradient comes in as bytes of `above` and leaves as bytes of `below`."""

    def __init__(
        self,
        name: str,
        block: BasicBlock,
        of: Quantisation,
        ranges: Ranges,
        dtype: torch.dtype,
        *,
        above: Quantisation,
        below: Quantisation,
    ) -> None:
        super().__init__(name, block, of, ranges, dtype)
        self._above, self._below = above, below
        self._inner_gradient = _gradient(ranges, f"{name}.conv1")
        self._back2 = _mirrored(block.conv2, above)
        self._back1 = _mirrored(block.conv1, self._inner_gradient)

    def backward(self, gradient: QuantisedGradient, masks: Masks) -> QuantisedGradient:
        before, within = masks
        found = self._back2(gradient.padded(), self._inner_gradient)
        inner = gradient.masked(found, within, self._inner_gradient.scale)
        found = self._back1(inner.padded(), self._below, plus=(gradient.values, self._above))
        return gradient.masked(found, before, self._below.scale)


class _StridedBlock(_Block):
    """The first of its stage, with a projecting shortcut: the gradient comes in as bytes of `above` and is scaled anew."""

    def __init__(
        self,
        name: str,
        block: BasicBlock,
        of: Quantisation,
        ranges: Ranges,
        dtype: torch.dtype,
        *,
        above: Quantisation,
    ) -> None:
        super().__init__(name, block, of, ranges, dtype)
        projection = cast(nn.Conv2d, cast(nn.Sequential, block.downsample)[0])
        self._projection = _quantised(projection, of)
        self._projected = Quantisation.signed(ranges.activations[f"{name}.downsample"]).shifted()
        self._stride = projection.stride[0]
        self._back_projection = QuantisedConv2d(projection.weight.detach().transpose(0, 1), None, 1, 0, above.shifted())
        self._back1 = PackedConv2d(copy.deepcopy(block.conv1).to(dtype, memory_format=torch.channels_last))  # type: ignore[call-overload]
        self._back2 = _mirrored(block.conv2, above)

    def _shortcut(self, x: Tensor) -> tuple[Tensor, Quantisation]:
        return self._projection(x, self._projected), self._projected

    def backward(self, gradient: QuantisedGradient, masks: Masks) -> QuantisedGradient:
        before, within = masks
        inner = _masked(self._back2(gradient.padded(), self._dtype), within)
        found = self._back1.gradient(inner, before.shape[2:])
        through_shortcut = self._back_projection(gradient.shifted_(), self._dtype)
        found[:, :, :: self._stride, :: self._stride].add_(through_shortcut)
        return QuantisedGradient.of(_masked(found, before), gradient.factor)


class Int8ResNet(Network):
    """A frozen, folded `ResNet` that `supports` says yes to, in bytes; images and features [B, D, h, w] are floats.

    `pixels` are normalised ones, the lowest and the highest among them; `dtype` is that of what is not bytes.
    Raises KeyError for a module that `ranges` lack.
    """

    def __init__(self, network: ResNet, ranges: Ranges, pixels: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.fc = nn.Linear(network.fc.in_features, network.fc.out_features).to(dtype).requires_grad_(False)
        self.fc.load_state_dict(network.fc.state_dict())
        lowest, highest = min(float(pixels.min()), 0.0), max(float(pixels.max()), 0.0)
        scale = (highest - lowest) / UNSIGNED_MAX
        self._pixels = Quantisation(scale, round(-lowest / scale))
        self._stem = _quantised(network.conv1, self._pixels, padded=True)
        self._behind_stem = of = Quantisation.unsigned(ranges.activations["conv1"])
        below = _gradient(ranges, "conv1")
        self._back_stem = _mirrored(network.conv1, below)
        self._blocks: list[_Block] = []
        for stage in network.stages:
            blocks = list(cast(nn.Sequential, network.get_submodule(stage)).named_children())
            for name, block in ((f"{stage}.{i}", cast(BasicBlock, block)) for i, block in blocks):
                # Behind a stage the gradient is scaled to what bytes hold, image by image.
                above = Quantisation(1.0, dtype=torch.int8) if block is blocks[-1][1] else _gradient(ranges, name)
                if block.downsample is None:
                    self._blocks.append(_PlainBlock(name, block, of, ranges, dtype, above=above, below=below))
                else:
                    self._blocks.append(_StridedBlock(name, block, of, ranges, dtype, above=above))
                of, below = self._blocks[-1].out, above

    def features(self, x: Tensor) -> Tensor:
        return cast(Tensor, _Features.apply(x, self))  # type: ignore[no-untyped-call]

    def forward_pass(self, x: Tensor) -> tuple[Tensor, list[Masks]]:
        """Features, and the masks of every block."""
        bytes_, inside = zero_padded(x, self._pixels.zero_point)
        rounded = x.detach().div(self._pixels.scale).round_().add_(self._pixels.zero_point)
        inside.copy_(rounded.clamp_(0, UNSIGNED_MAX))
        y = self._stem(bytes_, self._behind_stem, relu=True)
        masks = []
        for block in self._blocks:
            y, found = block(y, last=block is self._blocks[-1])
            masks.append(found)
        return y, masks

    def backward_pass(self, gradient: Tensor, masks: list[Masks]) -> Tensor:
        """The gradient towards the images, fp32, from that towards the features; `masks` stay as they are."""
        factor = torch.ones(len(gradient), 1, 1, 1)
        found = QuantisedGradient.of(gradient.contiguous(memory_format=torch.channels_last), factor)
        for block, each in zip(reversed(self._blocks), reversed(masks), strict=True):
            found = block.backward(found, each)
        return self._back_stem(found.padded(), torch.float32) / found.factor


class _Features(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, network: Int8ResNet) -> Tensor:
        ctx.network, ctx.dtype = network, x.dtype
        y, ctx.masks = network.forward_pass(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.network.backward_pass(grads[0], ctx.masks).to(ctx.dtype), None


def _masked(gradient: Tensor, mask: Tensor) -> Tensor:
    """Floats times a mask of bytes 0 and 1; in place."""
    return gradient.mul_(mask.to(gradient.dtype))


def _gradient(ranges: Ranges, name: str) -> Quantisation:
    return Quantisation.signed(SIGNED_MAX * ranges.gradients[name])


def _quantised(conv: nn.Conv2d, of: Quantisation, *, padded: bool = False) -> QuantisedConv2d:
    padding = cast(int, conv.padding[0])
    return QuantisedConv2d(conv.weight.detach(), conv.bias, conv.stride[0], padding, of, padded=padded)


def _mirrored(conv: nn.Conv2d, of: Quantisation) -> QuantisedConv2d:
    """The gradient of an unstrided 3x3 convolution towards its input: a convolution with mirrored weights."""
    return QuantisedConv2d(conv.weight.detach().flip(2, 3).transpose(0, 1), None, 1, 1, of.shifted(), padded=True)
