"""Packed convolutions: the bits of torch's own, in logits and in gradients, whatever the geometry."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from robust_synthesis.engine.networks import Network, fold
from robust_synthesis.engine.packed import MOST, PackedConv2d, packed
from robust_synthesis.testing import pictures, tiny_network

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "basic": {"kind": "resnet", "depths": [1, 2], "width": 16},
    "bottleneck": {"kind": "resnet", "block": "bottleneck", "depths": [1, 2], "width": 8},
    "large stem": {"kind": "resnet", "stem": "large", "depths": [1, 1, 1], "width": 8},
    "plain": {"kind": "plain", "stages": [[8], [8, 16], [16]]},
    "pre-activation": {"kind": "preact", "depths": [1, 2], "width": 8},
}
HERE = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
pytestmark = pytest.mark.skipif(not HERE, reason="this torch has no oneDNN")


def answers(network: Network, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits of so many pictures of 32 pixels, and the gradient of their sum of squares towards them."""
    x = pictures(1, 32, 3)[0][:1] + torch.arange(count).view(-1, 1, 1, 1) / 16
    x = x.to(dtype, memory_format=torch.channels_last).requires_grad_(True)
    logits = network(x)
    return logits.detach(), torch.autograd.grad(logits.square().sum(), x)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, MOST // 32**2 + 1])
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_a_packed_network_gives_the_answers_and_gradients_of_the_one_it_is_made_of(
    architecture: Mapping[str, Any], count: int, dtype: torch.dtype
) -> None:
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bf16")
    network = fold(tiny_network(architecture=architecture)).to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    same = packed(network)
    assert any(isinstance(module, PackedConv2d) for module in same.modules())
    for one, other in zip(answers(same, count, dtype), answers(network, count, dtype), strict=True):
        assert float(other.abs().max()) > 0.001
        difference = float((one - other).abs().max() / other.abs().max())
        assert difference <= (1e-5 if dtype == torch.float32 else 0.02)


def test_a_packed_network_leaves_the_other_as_it_was_and_shares_its_parameters() -> None:
    network = fold(tiny_network())
    before = {name: type(module) for name, module in network.named_modules()}
    same = packed(network)
    assert {name: type(module) for name, module in network.named_modules()} == before
    assert same.fc.weight is network.fc.weight
    assert all(not parameter.requires_grad for parameter in same.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, MOST // 32**2])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_weights_are_not_reordered_at_every_step(
    block: str, count: int, dtype: torch.dtype, capfd: pytest.CaptureFixture[str]
) -> None:
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bf16")
    wide = {"kind": "resnet", "block": block, "depths": [1, 1, 1], "width": 64}
    network = fold(tiny_network(architecture=wide)).to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = re.compile(r",reorder,.*,\d{2,}x\d+x([13])x\1,")

    def reordered(of: Network) -> int:
        answers(of, count, dtype)
        capfd.readouterr()
        with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):  # type: ignore[no-untyped-call]
            answers(of, count, dtype)
        return len(weights.findall(capfd.readouterr().out))

    assert reordered(network) >= 8
    assert reordered(packed(network)) == 0


def test_a_convolution_that_is_not_used_any_more_gives_its_memory_back_at_once() -> None:
    """Without waiting for a collection, which leaves out what a ready process has."""
    for stride in (1, 2):
        conv = torch.nn.Conv2d(4, 8, 3, stride, 1).requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        here = PackedConv2d(conv)
        y = here.convolve(torch.rand(1, 4, 8, 8))
        here.gradient(y, (8, 8))
        kept = weakref.ref(here)
        gc.disable()
        try:
            del here
            assert kept() is None
        finally:
            gc.enable()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("inputs", "size", "kernel"), [(32, 64, 3), (64, 32, 3), (128, 16, 3), (32, 64, 1)])
def test_strided_gradients_of_the_shipped_networks_keep_their_bits(
    inputs: int, size: int, kernel: int, dtype: torch.dtype
) -> None:
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bf16")
    conv = torch.nn.Conv2d(inputs, 2 * inputs, kernel, 2, kernel // 2).requires_grad_(False)
    conv = conv.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.rand(2, inputs, size, size, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = x.to(memory_format=torch.channels_last).requires_grad_(True)
    y = conv(x)
    (expected,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(PackedConv2d(conv).gradient(2 * y.detach(), x.shape[2:]), expected)


@pytest.mark.parametrize("size", [8, 9, 14])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"), [(3, 2, 1, 1), (1, 2, 0, 1), (7, 2, 3, 1), (3, 3, 0, 2)]
)
def test_the_gradient_of_a_strided_convolution_has_the_size_of_its_input(
    kernel: int, stride: int, padding: int, dilation: int, size: int
) -> None:
    conv = torch.nn.Conv2d(4, 8, kernel, stride, padding, dilation).requires_grad_(False)
    conv = conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.rand(2, 4, size, size + 1, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    y = conv(x)
    (expected,) = torch.autograd.grad(y.square().sum(), x)
    torch.testing.assert_close(PackedConv2d(conv).gradient(2 * y.detach(), x.shape[2:]), expected, rtol=1e-5, atol=1e-6)
