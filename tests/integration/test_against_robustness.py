"""Whole runs against the published `robustness` package of the paper's authors (Engstrom et al. 2019), on the same weights.

pip install --no-deps -r benchmarks/requirements.txt
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import authors
from robust_synthesis.engine.ball import NORMS
from robust_synthesis.engine.chunk import advance
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.problem import Problem, State
from robust_synthesis.testing import SIZE, pictures, tiny_network

TARGETS = [1, 0, 3, 2]
STEPS = 12


@pytest.fixture(scope="module")
def robustness() -> Iterator[ModuleType]:
    try:
        with authors.attacker() as module:
            yield module
    except ImportError as error:
        pytest.skip(f"robustness cannot be imported ({error}); see benchmarks/requirements.txt")


def start() -> Tensor:
    return torch.cat([pictures(1, SIZE, seed)[0][:1] for seed in range(4)])


def theirs(robustness: ModuleType, classifier: Classifier, **options: Any) -> Tensor:
    model = attacker_model(robustness, classifier)
    _, found = model(start(), torch.tensor(TARGETS), make_adv=True, iterations=STEPS, **options)
    assert isinstance(found, Tensor)
    return found.detach()


def attacker_model(robustness: ModuleType, classifier: Classifier) -> Any:
    return authors.attacker_model(robustness, tiny_network(), classifier.card)


def ours(classifier: Classifier, **options: Any) -> tuple[State, Tensor]:
    """The final state, and what a caller would get."""
    problem = Problem.stack([Problem.single(x, target=t, **options) for x, t in zip(start(), TARGETS, strict=True)])
    x, best_loss = start(), torch.full((4,), torch.inf)
    state = State(x, x, best_loss, torch.zeros(4), torch.full((4,), -1), torch.full((4,), STEPS + 1))
    state, _ = advance(classifier, problem, state, STEPS + 1, levels=None)
    return state, state.result(problem)


@pytest.mark.parametrize("use_best", [True, False], ids=["best", "last"])
@pytest.mark.parametrize(
    ("constraint", "norm", "epsilon", "step_size"),
    [("2", "l2", 2.0, 0.25), ("2", "l2", 50.0, 0.25), ("inf", "linf", 0.05, 0.01)],
    ids=["l2 at the edge", "l2 inside", "linf"],
)
def test_class_maximisation_ends_at_the_pictures_of_the_robustness_package(
    robustness: ModuleType,
    classifier: Classifier,
    constraint: str,
    norm: str,
    epsilon: float,
    step_size: float,
    use_best: bool,
) -> None:
    expected = theirs(
        robustness,
        classifier,
        constraint=constraint,
        eps=epsilon,
        step_size=step_size,
        targeted=True,
        use_best=use_best,
    )
    _, found = ours(classifier, norm=NORMS[norm], epsilon=epsilon, step_size=step_size, use_best=use_best)
    assert float((found - expected).abs().max()) < 1e-4
    assert float((found - start()).abs().max()) > 0.04


@pytest.mark.parametrize("unit", [0, 5])
def test_feature_painting_ends_at_the_pictures_of_the_authors_notebook(
    robustness: ModuleType, classifier: Classifier, unit: int
) -> None:
    mask = torch.zeros(1, SIZE, SIZE)
    mask[:, 4:12, 4:12] = 1
    normalise = attacker_model(robustness, classifier).normalizer

    def loss(model: nn.Module, x: Tensor, _: Tensor) -> tuple[Tensor, None]:
        _logits, latent = model(normalise(x), with_latent=True, fake_relu=True)
        outside = ((start() - x) * (1 - mask)).square().mean(dim=(1, 2, 3))
        return latent[:, unit] - 10 * outside, None

    options = {"constraint": "2", "eps": 3.0, "step_size": 0.3}
    expected = theirs(robustness, classifier, custom_loss=loss, should_normalize=False, targeted=False, **options)
    _, found = ours(
        classifier,
        norm=NORMS["l2"],
        epsilon=3.0,
        step_size=0.3,
        mask=mask,
        unit=unit,
        ce_weight=0.0,
        latent_weight=-1.0,
        penalty_weight=10.0,
        fake_relu=True,
    )
    assert float((found - expected).abs().max()) < 1e-4
    assert float((found - start()).abs().max()) > 0.04
