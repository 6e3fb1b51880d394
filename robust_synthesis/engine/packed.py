"""Convolutions whose weights are in the order that oneDNN computes in, for networks whose weights never change.

torch's own convolution reorders them at every call, forward and backward. That is work for every weight, computing is work for
every weight and pixel: where there are few pixels (small batches, late stages) reordering takes as long.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import Network

MOST = 2048
"""Pixels of a batch, above which torch's own convolution is used: reordering takes no time to speak of there."""


def packed(network: Network) -> Network:
    """A frozen network on a CPU with its convolutions packed, where this torch can; both share their parameters.

    Sums are the same, in an order that is as good; with AVX-512 logits and gradients of the shipped classifiers keep their bits.
    """
    dtype = next(network.parameters()).dtype
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return network
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return network
    shared = copy.deepcopy(network, {id(parameter): parameter for parameter in network.parameters()})
    for name, module in list(shared.named_modules()):
        if isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros":
            shared.set_submodule(name, PackedConv2d(module))
    return shared


class PackedConv2d(nn.Module):
    """A `Conv2d` of constants, with a gradient towards its input."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
        self.geometry = list(cast(tuple[int, int], conv.padding)), list(conv.stride), list(conv.dilation)
        same_size = all(2 * pad == size - 1 for pad, size in zip(self.geometry[0], self.weight.shape[2:], strict=True))
        self._mirrored = same_size and conv.stride == conv.dilation == (1, 1)
        """Whether the gradient is a convolution, too, with mirrored weights; else it is a transposed one."""
        self._forward, self._backward = _Orders(), _Orders()

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > MOST * x.shape[1] or torch.compiler.is_compiling():
            padding, stride, dilation = self.geometry
            return F.conv2d(x, self.weight, self.bias, stride, padding, dilation)
        return cast(Tensor, _Convolution.apply(x, self))  # type: ignore[no-untyped-call]

    def convolve(self, x: Tensor) -> Tensor:
        return self._run(x, self._forward.of(x.shape, lambda: self._reordered(self.weight, x.shape)), self.bias)

    def gradient(self, y: Tensor, size: Sequence[int]) -> Tensor:
        """Of an input of so many rows and columns, from that of the output."""
        if self._mirrored:
            weight = self._backward.of(y.shape, lambda: self._reordered(self._mirror(), y.shape))
            return self._run(y, weight, None)
        padding, stride, dilation = self.geometry
        sizes = zip(size, y.shape[2:], self.weight.shape[2:], *self.geometry, strict=True)
        # What a convolution does not see of its input at the far edge.
        rest = [of - ((to - 1) * step - 2 * pad + gap * (size - 1) + 1) for of, to, size, pad, step, gap in sizes]
        reorder = torch.ops.mkldnn._reorder_convolution_transpose_weight
        run = torch.ops.mkldnn._convolution_transpose_pointwise.default
        weight = self._backward.of(
            (*y.shape, *rest), lambda: reorder(self.weight, padding, rest, stride, dilation, 1, y.shape)
        )
        return cast(Tensor, run(y, weight, None, padding, rest, stride, dilation, 1, "none", [], ""))

    def _mirror(self) -> Tensor:
        return self.weight.flip(2, 3).transpose(0, 1).contiguous()

    def _reordered(self, weight: Tensor, size: torch.Size) -> Tensor:
        padding, stride, dilation = self.geometry
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        return cast(Tensor, reorder(weight, padding, stride, dilation, 1, size))

    def _run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding, stride, dilation = self.geometry
        run = torch.ops.mkldnn._convolution_pointwise.default
        return cast(Tensor, run(x, weight, bias, padding, stride, dilation, 1, "none", [], ""))


class _Orders:
    """Weights in the orders that oneDNN computes in, which depend on the size of the input; many sizes share one.

    In another it would reorder them after all, at every call, and for some orders without a fast kernel: with AVX2 in 25 ms.
    """

    def __init__(self) -> None:
        self._found: dict[Sequence[int], Tensor] = {}
        self._kept: dict[bytes, Tensor] = {}

    def of(self, size: Sequence[int], reorder: Callable[[], Tensor]) -> Tensor:
        """In the order for a size, whose weights `reorder` makes."""
        found = self._found.get(size)
        if found is None:
            weight = reorder()
            order = torch.ops.mkldnn._get_mkldnn_serialized_md(weight).numpy().tobytes()
            found = self._found[size] = self._kept.setdefault(order, weight)
        return found


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, convolution: PackedConv2d) -> Tensor:
        ctx.size, ctx.convolution = x.shape[2:], convolution
        return convolution.convolve(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.convolution.gradient(grads[0].contiguous(memory_format=torch.channels_last), ctx.size), None
