"""The inner maximisation: it stays in its ball, raises the loss, and starts where it says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robust_synthesis.engine.ball import L2, LINF, l2_norm
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.testing import pictures
from robust_synthesis.training.adversary import cross_entropy, divergence, perturb

BALLS = pytest.mark.parametrize(("norm", "epsilon"), [(L2, 0.5), (LINF, 0.03)], ids=["l2", "linf"])


@pytest.fixture(scope="module")
def labelled() -> tuple[Tensor, Tensor]:
    return pictures()


def length(delta: Tensor, norm: int) -> Tensor:
    return l2_norm(delta) if norm == L2 else delta.abs().flatten(1).amax(1)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@BALLS
def test_it_raises_every_loss_and_stays_in_the_ball_and_the_cube(
    classifier: Classifier, labelled: tuple[Tensor, Tensor], norm: int, epsilon: float
) -> None:
    images, labels = labelled
    loss = cross_entropy(classifier, labels)
    found = perturb(loss, images, norm=norm, epsilon=epsilon, steps=5, step_size=epsilon / 2)
    with torch.no_grad():
        assert bool((loss(found) > loss(images)).all())
    distance = length(found - images, norm)
    assert float(distance.max()) <= epsilon * (1 + 1e-5)
    assert float(distance.min()) > epsilon / 4
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert not found.requires_grad


@BALLS
def test_more_steps_find_a_higher_loss(
    classifier: Classifier, labelled: tuple[Tensor, Tensor], norm: int, epsilon: float
) -> None:
    images, labels = labelled
    loss = cross_entropy(classifier, labels)
    one, ten = (
        float(loss(perturb(loss, images, norm=norm, epsilon=epsilon, steps=k, step_size=size)).detach().mean())
        for k, size in ((1, epsilon), (10, epsilon / 4))
    )
    assert ten > one


def test_one_l2_step_goes_straight_up_the_gradient() -> None:
    images = torch.full((1, 3, 8, 8), 0.5)
    slope = torch.zeros(3, 8, 8)
    slope[0, 2, 2], slope[1, 3, 3] = 3.0, -4.0
    found = perturb(lambda x: (x * slope).sum(dim=(1, 2, 3)), images, norm=L2, epsilon=0.25, steps=1, step_size=0.25)
    assert torch.allclose(found - images, 0.25 * slope[None] / 5, atol=1e-6)


def test_one_linf_step_moves_every_pixel_by_the_sign_of_its_gradient() -> None:
    images = torch.full((1, 3, 8, 8), 0.5)
    slope = torch.randn(3, 8, 8, generator=random())
    found = perturb(lambda x: (x * slope).sum(dim=(1, 2, 3)), images, norm=LINF, epsilon=0.1, steps=1, step_size=0.1)
    assert torch.allclose(found - images, 0.1 * slope[None].sign(), atol=1e-6)


def test_without_a_generator_it_starts_at_the_images(labelled: tuple[Tensor, Tensor]) -> None:
    images, _ = labelled
    found = perturb(lambda x: x.sum(dim=(1, 2, 3)), images, norm=L2, epsilon=0.5, steps=0, step_size=0.1)
    assert torch.equal(found, images)


@BALLS
def test_a_random_start_lies_inside_the_ball_and_depends_on_the_generator(norm: int, epsilon: float) -> None:
    images = torch.full((64, 3, 8, 8), 0.5)

    def start(seed: int) -> Tensor:
        flat = perturb(
            lambda x: x.sum(dim=(1, 2, 3)),
            images,
            norm=norm,
            epsilon=epsilon,
            steps=0,
            step_size=0.1,
            generator=random(seed),
        )
        return flat - images

    distance = length(start(0), norm)
    assert float(distance.max()) <= epsilon * (1 + 1e-5)
    assert float(distance.min()) > 0
    assert torch.equal(start(0), start(0))
    assert not torch.equal(start(0), start(1))


def test_a_random_linf_start_is_uniform_in_the_cube() -> None:
    images = torch.full((200, 3, 8, 8), 0.5)
    found = perturb(
        lambda x: x.sum(dim=(1, 2, 3)), images, norm=LINF, epsilon=0.1, steps=0, step_size=0, generator=random()
    )
    values = ((found - images) / 0.1).flatten().sort().values
    uniform = torch.linspace(-1, 1, len(values))
    assert float((values - uniform).abs().max()) < 0.02  # the Kolmogorov-Smirnov distance, twice


def test_a_random_l2_start_has_a_uniform_length() -> None:
    images = torch.full((4000, 3, 8, 8), 0.5)
    found = perturb(
        lambda x: x.sum(dim=(1, 2, 3)), images, norm=L2, epsilon=0.4, steps=0, step_size=0, generator=random()
    )
    lengths = (l2_norm(found - images) / 0.4).sort().values
    assert float((lengths - torch.linspace(0, 1, 4000)).abs().max()) < 0.03


def test_an_attack_from_a_random_start_comes_back_into_the_ball(
    classifier: Classifier, labelled: tuple[Tensor, Tensor]
) -> None:
    images, labels = labelled
    found = perturb(
        cross_entropy(classifier, labels), images, norm=L2, epsilon=0.5, steps=3, step_size=0.5, generator=random()
    )
    assert float(l2_norm(found - images).max()) <= 0.5 * (1 + 1e-5)


def test_cross_entropy_is_that_of_torch_per_sample(classifier: Classifier, labelled: tuple[Tensor, Tensor]) -> None:
    images, labels = labelled
    expected = -classifier(images).log_softmax(1)[torch.arange(len(labels)), labels]
    assert torch.allclose(cross_entropy(classifier, labels)(images), expected, atol=1e-6)


def test_divergence_is_the_kl_from_the_clean_to_the_attacked_prediction() -> None:
    def model(x: Tensor) -> Tensor:
        return x[:, :2, 0, 0]

    clean = torch.zeros(1, 3, 8, 8)
    clean[0, :2, 0, 0] = torch.tensor([math.log(3.0), 0.0])  # probabilities 3/4, 1/4
    other = torch.zeros(1, 3, 8, 8)  # probabilities 1/2, 1/2
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    loss = divergence(model, clean)
    assert float(loss(other)) == pytest.approx(expected, abs=1e-6)
    assert float(loss(clean)) == pytest.approx(0, abs=1e-6)


def test_divergence_holds_the_clean_prediction_fixed(classifier: Classifier, labelled: tuple[Tensor, Tensor]) -> None:
    images = labelled[0][:4]
    x = (images + 0.01).requires_grad_(True)
    (gradient,) = torch.autograd.grad(divergence(classifier, images)(x).sum(), x)
    with torch.no_grad():
        clean = classifier(images).softmax(1)
    other = x.detach().clone().requires_grad_(True)
    cross = F.cross_entropy(classifier(other), clean, reduction="sum")
    (expected,) = torch.autograd.grad(cross, other)
    assert torch.allclose(gradient, expected, atol=1e-5)
