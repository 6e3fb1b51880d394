"""Convolutions together with what follows them, shortcut and ReLU, in one kernel of cuDNN: for frozen ResNets on a GPU.

Else bias, sum and ReLU pass over the pixels once more each, which takes as long as the convolution itself.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from .networks import BasicBlock, Bottleneck, Network, ResNet


def fused(network: Network) -> Network:
    """A frozen network on a GPU with its convolutions fused, where it is a ResNet with ReLUs and cuDNN has kernels for it.

    Both share their parameters.
    """
    if not isinstance(network, ResNet) or not network.has_relu:
        return network
    candidate, weight = FusedResNet(network), network.conv1.weight
    black = torch.zeros(1, 3, 32, 32, dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad():
            candidate.features(black.contiguous(memory_format=torch.channels_last))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # for some numbers of channels it has none
        return network
    return candidate


class FusedResNet(Network):
    """A `ResNet` whose batch norms are folded."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network, self.fc = network, network.fc
        *blocks, self._last = network.blocks()
        self._blocks = [_FusedBlock(block) for block in blocks]

    def features(self, x: Tensor) -> Tensor:
        y = self.network.maxpool(_convolved(x, self.network.conv1))
        for block in self._blocks:
            y = block(y)
        return cast(Tensor, self._last(y))  # the ReLU behind it is the one that may be fake


class _FusedBlock:
    """A block and the ReLU behind it."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        *self._inner, self._outer = [module for module in block.children() if isinstance(module, nn.Conv2d)]
        self._projection: nn.Conv2d | None = None
        self._bias = self._outer.bias
        if block.downsample is not None:
            self._projection = cast(nn.Conv2d, block.downsample[0])
            self._bias = cast(Tensor, self._outer.bias) + cast(Tensor, self._projection.bias)  # one is added, not two

    def __call__(self, x: Tensor) -> Tensor:
        shortcut = x
        if (projection := self._projection) is not None:
            shortcut = torch.conv2d(x, projection.weight, None, projection.stride)
        for conv in self._inner:
            x = _convolved(x, conv)
        return _convolved(x, self._outer, self._bias, shortcut)


def _convolved(x: Tensor, conv: nn.Conv2d, bias: Tensor | None = None, shortcut: Tensor | None = None) -> Tensor:
    found = _Convolved.apply(x, shortcut, conv, conv.bias if bias is None else bias)  # type: ignore[no-untyped-call]
    return cast(Tensor, found)


class _Convolved(torch.autograd.Function):
    """relu(conv(x) + bias + shortcut)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shortcut: Tensor | None, conv: nn.Conv2d, bias: Tensor) -> Tensor:
        geometry = conv.stride, cast(tuple[int, int], conv.padding), conv.dilation, conv.groups
        if shortcut is None:
            y = torch.cudnn_convolution_relu(x, conv.weight, bias, *geometry)
        else:
            y = torch.cudnn_convolution_add_relu(x, conv.weight, shortcut, 1.0, bias, *geometry)
        ctx.save_for_backward(x, y)
        ctx.conv = conv
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, y = ctx.saved_tensors
        conv = ctx.conv
        gradient = torch.ops.aten.threshold_backward(grads[0], y, 0)
        geometry = conv.stride, conv.padding, conv.dilation, False, (0, 0), conv.groups
        towards_x, *_ = torch.ops.aten.convolution_backward(
            gradient, x, conv.weight, None, *geometry, (True, False, False)
        )
        return towards_x, gradient if ctx.needs_input_grad[1] else None, None, None
