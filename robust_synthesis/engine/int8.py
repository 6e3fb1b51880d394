"""A ResNet whose activations, and most of whose gradients, are bytes.

Scales of activations are fixed (`ranges`), so that a result does not depend on the rest of its batch. Gradients pass rounding as
if it were the identity (Bengio, Leonard and Courville 2013, "straight-through") and are themselves rounded to bytes, after
every image's has been scaled to its own largest value: once per stage, since they change most from one to the next. In the
first stage, where they are spread widest, and through strided convolutions they stay in bf16 or fp32.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .networks import BasicBlock, Network, ResNet
from .packed import PackedConv2d
from .quantised import (
    SIGNED_MAX,
    UNSIGNED_MAX,
    ZERO_POINT,
    Quantisation,
    QuantisedConv2d,
    QuantisedGradient,
    zero_padded,
)
from .ranges import Ranges

Masks = tuple[Tensor, Tensor]
"""Of the ReLUs before a block and within it: bytes, 1 where they are active and else 0, [B, C, H, W] each."""


def supports(architecture: Mapping[str, Any]) -> bool:
    """Whether a card's network is one that `Int8ResNet` can be made of."""
    usual = {"block": "basic", "stem": "small", "activation": "relu"}
    return architecture.get("kind") == "resnet" and all(architecture.get(k, v) == v for k, v in usual.items())


class _Block:
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
        mask = x.sign()
        shortcut, of = self._shortcut(x)
        if last:
            y = self._conv2(inner, self._dtype)
            y.add_(shortcut.to(self._dtype).sub_(of.zero_point), alpha=of.scale)
        else:
            y = self._conv2(inner, self.out, relu=True, plus=(shortcut, of))
        return y, (mask, inner.sign_())


class _FloatBlock(_Block):
    """Its gradients are floats."""

    def __init__(self, name: str, block: BasicBlock, of: Quantisation, ranges: Ranges, dtype: torch.dtype) -> None:
        super().__init__(name, block, of, ranges, dtype)
        self._float1, self._float2 = (_in_floats(conv, dtype) for conv in (block.conv1, block.conv2))

    def backward(self, gradient: Tensor, masks: Masks) -> Tensor:
        before, within = masks
        inner = _masked(self._float2.gradient(gradient, gradient), within)
        return _masked(self._float1.gradient(inner, gradient).add_(gradient), before)


class _ByteBlock(_Block):
    """Its gradients are bytes, on the way in those of `above`, on the way out those of `gradient`."""

    def __init__(
        self,
        name: str,
        block: BasicBlock,
        of: Quantisation,
        ranges: Ranges,
        dtype: torch.dtype,
        *,
        above: Quantisation,
        gradient: Quantisation,
    ) -> None:
        super().__init__(name, block, of, ranges, dtype)
        self._above, self._gradient = above, gradient
        self._inner_gradient = Quantisation.signed(SIGNED_MAX * ranges.gradients[f"{name}.conv1"])
        self._back2 = _mirrored(block.conv2, above)
        self._back1 = _mirrored(block.conv1, self._inner_gradient)

    def backward(self, gradient: QuantisedGradient, masks: Masks) -> QuantisedGradient:
        before, within = masks
        found = self._back2(gradient.padded(), self._inner_gradient)
        inner = gradient.masked(found, within, self._inner_gradient.scale)
        found = self._back1(inner.padded(), self._gradient, plus=(gradient.bytes_(), self._above))
        return gradient.masked(found, before, self._gradient.scale)


class _StridedBlock(_Block):
    """The first of its stage, with a projecting shortcut: the gradient comes in as bytes of `above` and leaves as floats."""

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
        self._projected = Quantisation.signed(ranges.activations[f"{name}.downsample"])
        self._stride = projection.stride[0]
        self._back_projection = projection.weight.detach().transpose(0, 1).to(dtype, memory_format=torch.channels_last)
        self._float1, self._back2 = _in_floats(block.conv1, dtype), _mirrored(block.conv2, above)

    def _shortcut(self, x: Tensor) -> tuple[Tensor, Quantisation]:
        return self._projection(x, self._projected), self._projected

    def backward(self, gradient: QuantisedGradient, masks: Masks) -> Tensor:
        before, within = masks
        inner = _masked(self._back2(gradient.padded(), self._dtype), within)
        like = torch.empty(before.shape, dtype=self._dtype, memory_format=torch.channels_last)
        found = self._float1.gradient(inner, like)
        through_shortcut = F.conv2d(gradient.floats(self._dtype), self._back_projection)
        found[:, :, :: self._stride, :: self._stride] += through_shortcut
        return _masked(found, before)


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
        self._float_stem = _in_floats(network.conv1, dtype)
        self._behind_stem = of = Quantisation.unsigned(ranges.activations["conv1"])
        self._float_blocks: list[_FloatBlock] = []
        first, *others = network.stages
        for name, block in _blocks(network, first):
            self._float_blocks.append(_FloatBlock(name, block, of, ranges, dtype))
            of = self._float_blocks[-1].out
        self._stages: list[tuple[_StridedBlock, list[_ByteBlock]]] = []
        for stage in others:
            blocks = _blocks(network, stage)
            # Behind each block; the last one's is scaled to what bytes hold, image by image.
            gradients = [Quantisation.signed(SIGNED_MAX * ranges.gradients[name]) for name, _ in blocks[:-1]]
            gradients.append(Quantisation(1.0, ZERO_POINT))
            strided = _StridedBlock(*blocks[0], of, ranges, dtype, above=gradients[0])
            of, rest = strided.out, []
            for (name, block), gradient, above in zip(blocks[1:], gradients, gradients[1:], strict=False):
                rest.append(_ByteBlock(name, block, of, ranges, dtype, above=above, gradient=gradient))
                of = rest[-1].out
            self._stages.append((strided, rest))

    def features(self, x: Tensor) -> Tensor:
        return cast(Tensor, _Features.apply(x, self))  # type: ignore[no-untyped-call]

    def forward_pass(self, x: Tensor) -> tuple[Tensor, list[Masks]]:
        """Features, and the masks of every block."""
        bytes_, inside = zero_padded(x, self._pixels.zero_point)
        rounded = x.detach().div(self._pixels.scale).round_().add_(self._pixels.zero_point)
        inside.copy_(rounded.clamp_(0, UNSIGNED_MAX))
        y = self._stem(bytes_, self._behind_stem, relu=True)
        strided = ((first, *rest) for first, rest in self._stages)
        blocks: list[_Block] = [*self._float_blocks, *(block for stage in strided for block in stage)]
        masks = []
        for block in blocks:
            y, found = block(y, last=block is blocks[-1])
            masks.append(found)
        return y, masks

    def backward_pass(self, gradient: Tensor, masks: list[Masks], x: Tensor) -> Tensor:
        """The gradient towards `x` from that towards the features; `masks` stay as they are."""
        left = list(masks)
        floats = gradient.contiguous(memory_format=torch.channels_last)
        factor = torch.ones(len(floats), 1, 1, 1)
        for strided, blocks in reversed(self._stages):
            found = QuantisedGradient.of(floats, factor)
            for block in reversed(blocks):
                found = block.backward(found, left.pop())
            floats, factor = strided.backward(found, left.pop()), found.factor
        for float_block in reversed(self._float_blocks):
            floats = float_block.backward(floats, left.pop())
        return self._float_stem.gradient(floats, x) / factor


class _Features(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, network: Int8ResNet) -> Tensor:
        ctx.save_for_backward(x)
        ctx.network = network
        y, ctx.masks = network.forward_pass(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.network.backward_pass(grads[0], ctx.masks, x), None


def _masked(gradient: Tensor, mask: Tensor) -> Tensor:
    """Floats times a mask of bytes 0 and 1; in place."""
    return gradient.mul_(mask.to(gradient.dtype))


def _blocks(network: ResNet, stage: str) -> list[tuple[str, BasicBlock]]:
    blocks = cast(nn.Sequential, network.get_submodule(stage))
    return [(f"{stage}.{i}", cast(BasicBlock, block)) for i, block in enumerate(blocks)]


def _quantised(conv: nn.Conv2d, of: Quantisation, *, padded: bool = False) -> QuantisedConv2d:
    padding = cast(int, conv.padding[0])
    return QuantisedConv2d(conv.weight.detach(), conv.bias, conv.stride[0], padding, of, padded=padded)


def _mirrored(conv: nn.Conv2d, of: Quantisation) -> QuantisedConv2d:
    """The gradient of an unstrided 3x3 convolution towards its input: a convolution with mirrored weights."""
    return QuantisedConv2d(conv.weight.detach().flip(2, 3).transpose(0, 1), None, 1, 1, of, padded=True)


def _in_floats(conv: nn.Conv2d, dtype: torch.dtype) -> PackedConv2d:
    return PackedConv2d(copy.deepcopy(conv).to(dtype, memory_format=torch.channels_last))  # type: ignore[call-overload]
