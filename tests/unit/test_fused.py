"""Convolutions with what follows them, where cuDNN's kernels are written out: the network they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robust_synthesis.engine import networks
from robust_synthesis.engine.fused import FusedResNet, fused
from robust_synthesis.testing import tiny_network

NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "basic": {"kind": "resnet", "depths": [2, 2, 1], "width": 4},
    "one block": {"kind": "resnet", "depths": [1], "width": 4},
    "bottleneck": {"kind": "resnet", "block": "bottleneck", "depths": [1, 2], "width": 4},
    "large stem": {"kind": "resnet", "depths": [1, 1], "width": 4, "stem": "large"},
}


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(x: Tensor, weight: Tensor, bias: Tensor, *geometry: Any) -> Tensor:
        return F.conv2d(x, weight, bias, *geometry).relu()

    def adding(x: Tensor, weight: Tensor, z: Tensor, alpha: float, bias: Tensor, *geometry: Any) -> Tensor:
        return (F.conv2d(x, weight, bias, *geometry) + alpha * z).relu()

    monkeypatch.setattr(torch, "cudnn_convolution_relu", plain)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", adding)


@pytest.mark.usefixtures("cudnn")
@pytest.mark.parametrize("name", NETWORKS)
def test_features_and_gradients_are_those_of_the_network(name: str) -> None:
    network = networks.fold(tiny_network(architecture=NETWORKS[name]))
    found = fused(network)
    assert isinstance(found, FusedResNet)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    results = []
    for each in (network, found):
        point = x.clone().requires_grad_()
        latent = each.latent(point, torch.tensor([True, False, True]))
        logits = each.fc(latent)
        (gradient,) = torch.autograd.grad((logits.square().sum() + latent.sum()), point)
        results.append((latent.detach(), logits.detach(), gradient))
    for wanted, got in zip(*results, strict=True):
        assert float((got - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())


@pytest.mark.usefixtures("cudnn")
@pytest.mark.parametrize(
    "architecture",
    [
        {"kind": "plain", "stages": [[4], [8]]},
        {"kind": "preact", "depths": [1], "width": 4},
        {"kind": "resnet", "depths": [1], "width": 4, "activation": "silu"},
    ],
    ids=["plain", "pre-activation", "silu"],
)
def test_other_networks_stay_as_they_are(architecture: Mapping[str, Any]) -> None:
    network = networks.fold(tiny_network(architecture=architecture))
    assert fused(network) is network


def test_where_there_are_no_such_kernels_a_network_stays_as_it_is() -> None:
    network = networks.fold(tiny_network())
    assert fused(network) is network
