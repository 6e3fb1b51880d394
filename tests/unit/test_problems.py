"""What a worker keeps of the jobs that it has seen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from robust_synthesis.bundle import FixedProblem
from robust_synthesis.engine.ball import LINF
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.problem import FEW, LEVELS, Problem, quantise
from robust_synthesis.engine.seeds import noise
from robust_synthesis.testing import tiny_classifier
from robust_synthesis.worker import transport
from robust_synthesis.worker.problems import Problems

BYTES = 4 * 4 * 16 * 16
"""Of a problem: centre and mask as floats."""


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return tiny_classifier()


def sent(seed: int) -> FixedProblem:
    return transport.fixed(Problem.single(noise(16, seed), target=1, epsilon=1.0, step_size=0.1))


def test_the_least_recently_used_goes_where_there_are_too_many_bytes(classifier: Classifier) -> None:
    problems = Problems(max_bytes=3 * BYTES)
    first, second = sent(1), sent(2)
    for each in (first, second, sent(3)):
        problems.next_bundle()
        problems.add(each, classifier)
    assert problems.get(first.address) is not None
    problems.add(sent(4), classifier)
    assert len(problems) == 3
    assert problems.get(first.address) is not None
    assert problems.get(second.address) is None


def test_all_that_the_current_bundle_uses_is_kept_however_much_it_is(classifier: Classifier) -> None:
    problems = Problems(max_bytes=2 * BYTES)
    several = [sent(seed) for seed in range(4)]
    for each in several:
        problems.add(each, classifier)
    assert all(problems.get(each.address) is not None for each in several)
    problems.next_bundle()
    problems.add(sent(9), classifier)
    assert len(problems) == 2


def test_what_no_bundle_uses_any_more_is_forgotten_and_what_one_does_stays(classifier: Classifier) -> None:
    problems = Problems(max_age=5)
    used, abandoned = sent(1), sent(2)
    problems.add(used, classifier)
    problems.add(abandoned, classifier)
    for bundle in range(1, 20):
        problems.next_bundle()
        assert problems.get(used.address) is not None
        assert len(problems) == (2 if bundle <= 5 else 1)


def test_a_problem_that_two_jobs_share_is_counted_once(classifier: Classifier) -> None:
    problems = Problems(max_bytes=2 * BYTES)
    one, other = sent(1), sent(2)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: problems.add(one, classifier), range(64)))
    assert all((problem.center == found[0].center).all() for problem in found)
    problems.pop(one.address)
    problems.add(other, classifier)
    problems.add(one, classifier)
    assert len(problems) == 2


@pytest.mark.parametrize(
    "terms",
    [
        {},
        {"mask": 0.7 * noise(16, 3)[:1], "hard_mask": True, "penalty_weight": 3.3, "epsilon": 0.1 + 0.2},
        {"unit": 3, "ce_weight": 0.0, "latent_weight": -0.1, "fake_relu": True, "use_best": False, "norm": LINF},
    ],
)
def test_a_problem_is_the_same_where_it_was_made_and_where_it_was_sent(
    terms: dict[str, Any], classifier: Classifier
) -> None:
    made = Problem.single(noise(16, 0), **{"target": 1, "epsilon": 1.0, "step_size": 0.1} | terms)
    arrived = transport.problem(transport.fixed(made), classifier)
    for name, value in vars(made).items():
        found = getattr(arrived, name)
        assert found.dtype == value.dtype, name
        assert torch.equal(found, value), name


def test_one_thread_rounds_as_all_do() -> None:
    few, many = torch.rand(3, 100, 100), torch.rand(3, 200, 200)
    assert few.numel() <= FEW < many.numel()
    for x in (few, many, many.transpose(1, 2)[:, :50, :50]):
        assert torch.equal(quantise(x), (x * LEVELS).round() / LEVELS)
        assert torch.equal(quantise(x, 255), (x * 255).round() / 255)
