"""Networks: folding batch norms changes nothing but rounding, and the fake ReLU changes only the backward pass."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.networks import Network, build, fold, refold
from robust_synthesis.testing import picture, pictures, randomise, tiny_card, tiny_classifier, tiny_network

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "basic": {"kind": "resnet", "depths": [1, 2], "width": 4},
    "bottleneck": {"kind": "resnet", "block": "bottleneck", "depths": [1, 2], "width": 4},
    "large stem": {"kind": "resnet", "stem": "large", "depths": [1, 1, 1], "width": 4},
    "smooth": {"kind": "resnet", "activation": "silu", "depths": [1, 2], "width": 4},
    "smooth bottleneck": {"kind": "resnet", "block": "bottleneck", "activation": "gelu", "depths": [1, 2], "width": 4},
    "plain": {"kind": "plain", "stages": [[4], [6, 8], [8]]},
    "pre-activation": {"kind": "preact", "depths": [1, 2], "width": 4},
}
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)


def answers(network: Network) -> tuple[Tensor, Tensor]:
    """Logits of four pictures, and their gradient with respect to the pictures."""
    x = (4 * pictures(2, 32, 3)[0][::12] - 2).to(network.fc.weight.dtype).requires_grad_(True)
    logits = network(x)
    return logits.detach(), torch.autograd.grad(logits.logsumexp(1).sum(), x)[0]


def assert_equal_answers(folded: Network, network: Network) -> None:
    """Logits to 1e-5; in double precision, where no rounding decides about a ReLU, gradients too, and to 1e-10."""
    assert float((answers(folded)[0] - answers(network)[0]).abs().max()) < 1e-5
    double = copy.deepcopy(network).double()
    for one, other in zip(answers(fold(double)), answers(double), strict=True):
        assert float(one.abs().max()) > 0.01
        assert float((one - other).abs().max()) < 1e-10


@every_architecture
def test_a_folded_network_gives_the_answers_and_gradients_of_the_unfolded_one(architecture: Mapping[str, Any]) -> None:
    network = tiny_network(architecture=architecture)
    assert_equal_answers(fold(network), network)


@every_architecture
def test_refolding_follows_a_network_that_trained_on(architecture: Mapping[str, Any]) -> None:
    network = tiny_network(architecture=architecture)
    folded = fold(network)
    before = answers(folded)[0]
    randomise(network, seed=1)
    refold(network, folded)
    assert torch.equal(answers(folded)[0], answers(fold(network))[0])
    assert_equal_answers(folded, network)
    assert float((answers(folded)[0] - before).abs().max()) > 0.1


@every_architecture
def test_a_folded_network_is_frozen_and_leaves_the_original_as_it_was(architecture: Mapping[str, Any]) -> None:
    network = tiny_network(architecture=architecture).train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold(network)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert norms == {"preact": 4}.get(architecture["kind"], 0), "only a norm that no convolution precedes may stay"
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@every_architecture
def test_logits_are_the_head_on_the_pooled_latent(architecture: Mapping[str, Any]) -> None:
    network = tiny_network(architecture=architecture)
    x = pictures(2, 32)[0][::12]
    with torch.no_grad():
        latent = network.latent(x)
    assert latent.shape == (4, network.fc.in_features)
    assert float(latent.min()) >= 0
    assert torch.equal(network.fc(latent), network(x))
    assert torch.equal(network.features(x).clamp(min=0).mean(dim=(2, 3)), latent)


class Bare(Network):
    """Its features are its input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def features(self, x: Tensor) -> Tensor:
        return x


def test_the_fake_relu_passes_gradient_to_dead_units_of_flagged_samples_only() -> None:
    y = torch.tensor([[-1.0, 2.0], [0.0, -3.0]]).expand(2, 3, 2, 2).clone().requires_grad_(True)
    latent = Bare().latent(y, torch.tensor([True, False]))
    (gradient,) = torch.autograd.grad(latent.sum(), y)
    assert torch.equal(gradient[0], torch.full((3, 2, 2), 0.25))
    assert torch.equal(gradient[1], torch.tensor([[0.0, 0.25], [0.0, 0.0]]).expand(3, 2, 2))
    assert torch.equal(latent, torch.full((2, 3), 0.5))
    assert torch.equal(latent, Bare().latent(y))


def test_a_dead_unit_can_be_maximised_with_the_fake_relu_alone(classifier: Classifier) -> None:
    x = pictures(4)[0]
    latent = classifier.logits_and_latent(x)[1]
    sample, unit = (int(i) for i in (latent == 0).nonzero()[0])
    gradients = []
    for flag in (False, True):
        point = x[sample : sample + 1].clone().requires_grad_(True)
        found = classifier.logits_and_latent(point, torch.tensor([flag]))[1][0, unit]
        gradients.append(float(torch.autograd.grad(found, point)[0].norm()))
    assert gradients[0] == 0
    assert gradients[1] > 1e-3


def test_a_classifier_normalises_with_the_statistics_of_its_card() -> None:
    network, card = tiny_network(), tiny_card()
    x = 1.5 * pictures(4)[0] - 0.25
    statistics = (torch.tensor(values).view(1, 3, 1, 1) for values in (card.mean, card.std))
    mean, std = statistics
    expected = network((x.clamp(0, 1) - mean) / std)
    assert float((Classifier(network, card)(x) - expected.detach()).abs().max()) < 1e-5


def test_bf16_gives_nearly_the_same_probabilities() -> None:
    x = pictures(4)[0]
    exact, rounded = tiny_classifier().probabilities(x), tiny_classifier(precision="bf16").probabilities(x)
    assert rounded.dtype == torch.float32
    assert 0 < float((exact - rounded).abs().max()) < 0.05


def test_bf16_has_the_bits_of_autocast() -> None:
    exact, rounded = tiny_classifier(), tiny_classifier(precision="bf16")
    x, flags = pictures(4)[0][:4].requires_grad_(True), torch.tensor([True, False, True, False])
    with torch.autocast("cpu", torch.bfloat16):
        latent = exact.network.latent(exact.normalise(x).contiguous(memory_format=torch.channels_last), flags)
        logits = exact.network.fc(latent)
    found = rounded.logits_and_latent(x, flags)
    for theirs, ours in zip((logits.float(), latent.float()), found, strict=True):
        assert torch.equal(ours, theirs)
        gradients = [torch.autograd.grad(y[:, 1].sum(), x, retain_graph=True)[0] for y in (ours, theirs)]
        assert torch.equal(*gradients)
        assert float(gradients[0].abs().max()) > 0


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(KeyError):
        build({"kind": "transformer"}, 4)
    with pytest.raises(TypeError):
        build({"kind": "resnet", "heads": 8}, 4)


def test_test_models_are_useful() -> None:
    """Balanced, not saturated, and different for another seed: what `robust_synthesis.testing` promises."""
    found = [tiny_classifier(seed).probabilities(pictures(4, seed=9)[0]) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    for probabilities in found:
        assert float(probabilities.mean(0).min()) > 0.02
        assert 0.4 < float(probabilities.max(1).values.mean()) < 0.9
    assert picture().size == (16, 16)
