"""To which sizes batches are padded, and that a gateway learns them from its workers."""

from __future__ import annotations

import dataclasses

import pytest

from robust_synthesis.batch_sizes import FINE, POWERS, batch_sizes, checked, padded
from robust_synthesis.bundle import MAX_JOBS
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.gateway.group import Group
from robust_synthesis.gateway.lines import Candidate
from robust_synthesis.gateway.policy import Policy
from robust_synthesis.gateway.step_times import StepTimes
from robust_synthesis.gateway.testing import FakeWorker, fake_model
from robust_synthesis.specs import Generate
from robust_synthesis.worker.compute import Compute
from robust_synthesis.worker.engine import Loaded


def test_a_cpu_pads_less_than_a_gpu() -> None:
    assert [padded(n, batch_sizes("cuda")) for n in (1, 3, 5, 9, 17, 32)] == [1, 4, 8, 16, 32, 32]
    assert [padded(n, batch_sizes("cpu")) for n in (1, 3, 5, 9, 17, 32)] == [1, 3, 5, 10, 20, 32]
    for sizes in (POWERS, FINE):
        assert max(sizes) == MAX_JOBS
        assert {-(-size // 2) for size in sizes} <= set(sizes)  # StepTimes.cost asks for the half
    assert padded(40, POWERS) == 40
    assert checked((MAX_JOBS, 5, 1, 5)) == (1, 5, MAX_JOBS)


def test_a_worker_says_its_batch_sizes_and_an_older_one_has_powers_of_two(classifier: Classifier) -> None:
    described = Compute(classifier).describe() | {"card": classifier.card.to_json()}
    assert Loaded.of(described).batch_sizes == FINE
    del described["batch_sizes"]
    assert Loaded.of(described).batch_sizes == POWERS


@pytest.mark.parametrize("said", [(), (0, 1, MAX_JOBS), (1, 2), (1, 2 * MAX_JOBS), (2, MAX_JOBS)])
def test_nonsense_of_a_worker_is_not_believed(said: tuple[int, ...]) -> None:
    assert checked(said) == POWERS


def test_neighbouring_sizes_do_not_tell_what_a_large_batch_takes() -> None:
    times, info = StepTimes(), dataclasses.replace(fake_model(), batch_sizes=FINE)
    times.learn("worker", "fake", 16, [(3, 1, 0.03), (6, 1, 0.062), (7, 1, 0.060)])
    assert times.step("worker", info, 16, 14) == pytest.approx(0.11, abs=0.02)


@pytest.mark.parametrize(("sizes", "cost"), [(POWERS, 0.08), (FINE, 0.05)])
def test_jobs_cost_what_the_workers_batch_size_takes(sizes: tuple[int, ...], cost: float) -> None:
    info = dataclasses.replace(fake_model(step_seconds={n: n / 100 for n in (1, 32)}), batch_sizes=sizes)
    group = Group(FakeWorker(models=[info]), info, 16, Policy(), StepTimes())
    jobs = [Candidate(info.name, Generate(target="cat", seed=i)) for i in range(5)]
    assert group.cost(jobs) == pytest.approx(cost)
