"""Which jobs form the next bundle: policy alone, on a clock that is a number."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from robust_synthesis.bundle import PROTOCOL
from robust_synthesis.gateway.backends.base import ModelInfo
from robust_synthesis.gateway.batcher import Batcher
from robust_synthesis.gateway.fairness import FairShare
from robust_synthesis.gateway.group import Plan
from robust_synthesis.gateway.lines import Candidate, Status
from robust_synthesis.gateway.policy import Backoff, Policy
from robust_synthesis.gateway.step_times import StepTimes
from robust_synthesis.gateway.testing import FakeWorker, fake_model
from robust_synthesis.specs import Generate, MaximizeClass, Spec

FLAT = {1: 0.003, 8: 0.004, 16: 0.005, 32: 0.008}
"""Step seconds like a GPU's."""
LINEAR = {1: 0.005, 8: 0.04}
"""Like a CPU's."""


def workers(count: int = 1, step_seconds: Mapping[int, float] = FLAT, **model: object) -> list[FakeWorker]:
    return [FakeWorker(f"w{i}", [fake_model(step_seconds=step_seconds, **model)]) for i in range(count)]  # type: ignore[arg-type]


def jobs(
    batcher: Batcher, count: int, caller: str = "", *, steps: int = 60, exact: bool = False, **fields: object
) -> list[Candidate]:
    spec = Generate(target="cat", steps=steps, seed=1, exact=exact)
    added = [Candidate("fake", spec, caller, **fields) for _ in range(count)]  # type: ignore[arg-type]
    for job in added:
        batcher.add(job)
    return added


def answer(
    batcher: Batcher,
    plan: Plan,
    seconds: Mapping[int, float] | None = None,
    *,
    overhead: float = 0.0,
    holds: bool = False,
) -> None:
    """Its jobs took their steps: those that are done leave, the others wait again."""
    batches = [(size, 10, s * 10) for size, s in (seconds or {}).items()]
    batcher.answered(plan, batches, plan.at + sum(taken for *_, taken in batches) + overhead, holds=holds)
    for job, steps in zip(plan.jobs, plan.steps, strict=True):
        left = job.evaluations(plan.info.card) + job.ahead - steps
        if left:
            batcher.resume(plan, job, left)
        else:
            batcher.remove(job)


def sizes(plans: Sequence[Plan]) -> list[int]:
    return [len(plan.jobs) for plan in plans]


# Which jobs share a bundle.


def test_tasks_share_bundles_but_image_sizes_and_models_do_not() -> None:
    batcher = Batcher()
    specs: list[Spec] = [Generate(target="cat", seed=1), MaximizeClass(target="dog", seed=1)]
    for size in (None, 16, 32):  # 16 is the classifier's own
        for spec in specs:
            batcher.add(Candidate("fake", spec, size=size))
            batcher.add(Candidate("other", spec, size=size))
    both = [fake_model(step_seconds=FLAT), fake_model("other", step_seconds=FLAT)]
    plans = batcher.plan([FakeWorker(str(i), both) for i in range(1)], 0.0)
    found = []
    while plans:
        (plan,) = plans
        found.append((plan.info.name, plan.size, len(plan.jobs)))
        for job in plan.jobs:
            batcher.remove(job)
        batcher.answered(plan, [], 0.0)
        plans = batcher.plan([FakeWorker("0", both)], 0.0)
    assert sorted(found) == [("fake", 16, 4), ("fake", 32, 2), ("other", 16, 4), ("other", 32, 2)]


def test_a_job_is_in_one_bundle_at_a_time() -> None:
    batcher = Batcher()
    jobs(batcher, 100)
    plans = batcher.plan(workers(3), 0.0)
    flying = [job for plan in plans for job in plan.jobs]
    assert len(flying) == len(set(flying)) == 3 * 2 * 16
    assert batcher.plan(workers(3), 0.0) == []


def test_jobs_are_spread_evenly_over_free_workers() -> None:
    batcher = Batcher()
    jobs(batcher, 7)
    assert sizes(batcher.plan(workers(3), 0.0)) == [3, 3, 1]


def test_a_worker_that_comes_back_first_leaves_a_busy_one_its_share_of_new_jobs() -> None:
    batcher, two = Batcher(), workers(2)
    jobs(batcher, 5)
    first, second = batcher.plan(two, 0.0)
    jobs(batcher, 6)
    answer(batcher, first)
    assert sizes(batcher.plan(two, 0.0)) == [6]
    answer(batcher, second)
    assert sizes(batcher.plan(two, 0.0)) == [5]


@pytest.mark.parametrize(
    ("count", "size", "bundles"),
    [
        (16, 16, [16]),
        (31, 16, [16]),
        (32, 16, [16, 16]),
        (63, 16, [16, 16]),
        (64, 16, [32, 32]),
        (200, 16, [32, 32]),
        (15, 224, [8]),
        (16, 224, [8, 8]),
        (100, 224, [8, 8]),
    ],
)
def test_two_bundles_are_outstanding_only_where_both_are_full(count: int, size: int, bundles: list[int]) -> None:
    batcher = Batcher()
    jobs(batcher, count, size=size)
    worker = workers(size=size)
    assert sizes(batcher.plan(worker, 0.0)) == bundles
    assert batcher.plan(worker, 0.0) == []


def test_a_batch_that_would_be_half_padding_leaves_jobs_to_the_next_where_padding_costs() -> None:
    for step_seconds, bundle in ((LINEAR, 8), (FLAT, 12)):
        batcher = Batcher()
        jobs(batcher, 12)
        (plan,) = batcher.plan(workers(step_seconds=step_seconds), 0.0)
        assert len(plan.jobs) == bundle


def test_a_bundle_stops_growing_at_its_limit_of_bytes() -> None:
    batcher = Batcher()
    jobs(batcher, 4, upload=5 * 2**20)
    jobs(batcher, 1, upload=50 * 2**20)
    worker, found = workers(), []
    while plans := batcher.plan(worker, 0.0):
        found += sizes(plans)
        for job in plans[0].jobs:
            batcher.remove(job)
        batcher.answered(plans[0], [], 0.0)
    assert found == [3, 1, 1]


# How many steps.


def test_a_classifier_that_nothing_is_known_of_gets_one_step_of_four_jobs() -> None:
    batcher, worker = Batcher(), workers(step_seconds={})
    jobs(batcher, 10)
    (plan,) = batcher.plan(worker, 0.0)
    assert (len(plan.jobs), plan.steps) == (4, [1] * 4)
    answer(batcher, plan, {4: 0.005})
    (plan,) = batcher.plan(worker, 0.0)
    assert max(plan.steps) * 0.005 == pytest.approx(0.15, rel=0.5)


@pytest.mark.parametrize(("size", "steps"), [(16, 50), (32, 12), (64, 3)])
def test_steps_follow_the_warm_up_by_pixels(size: int, steps: int) -> None:
    batcher = Batcher()
    jobs(batcher, 1, size=size, steps=1000)
    (plan,) = batcher.plan(workers(step_seconds={1: 0.003}), 0.0)
    assert plan.steps == [steps]


def test_chunk_targets_lie_between_150_and_300_milliseconds() -> None:
    policy = Policy()
    assert [policy.chunk_target(size) for size in (32, 64, 224, 512)] == [0.15, 0.15, 0.3, 0.3]
    assert 0.15 < policy.chunk_target(128) < 0.2


def test_steps_follow_what_is_measured() -> None:
    batcher, worker = Batcher(), workers(step_seconds={1: 0.003})
    jobs(batcher, 1, steps=10_000)
    for _ in range(20):
        (plan,) = batcher.plan(worker, 0.0)
        answer(batcher, plan, {1: 0.03})
    assert batcher.plan(worker, 0.0)[0].steps == [5]


@pytest.mark.parametrize(("overhead", "steps"), [(0.0, 50), (0.004, 50), (0.006, 66), (0.5, 100)])
def test_bundles_are_longer_where_the_way_to_the_worker_is_up_to_twice_as_long(overhead: float, steps: int) -> None:
    batcher, worker = Batcher(), workers(step_seconds={1: 0.003})
    jobs(batcher, 1, steps=10_000)
    for _ in range(3):
        (plan,) = batcher.plan(worker, 0.0)
        answer(batcher, plan, {1: 0.003}, overhead=overhead)
    assert batcher.plan(worker, 0.0)[0].steps == [steps]


def test_a_bundle_that_waited_for_another_says_nothing_of_the_way() -> None:
    batcher, worker = Batcher(), workers(step_seconds={16: 0.003})
    jobs(batcher, 128, steps=10_000)
    for _ in range(6):
        first = batcher.plan(worker, 0.0)
        answer(batcher, first[0], {len(first[0].jobs): 0.003})
        for queued in first[1:]:
            answer(batcher, queued, {len(queued.jobs): 0.003}, overhead=0.5)
    assert max(plan.steps[0] for plan in batcher.plan(worker, 0.0)) <= 50


def test_a_bundle_behind_another_is_no_longer_for_the_way_which_takes_no_time_of_the_worker() -> None:
    batcher, worker = Batcher(), workers(step_seconds={32: 0.003})
    jobs(batcher, 1000, steps=10_000)
    for _ in range(3):
        found = batcher.plan(worker, 0.0)
        for plan in found:
            answer(batcher, plan, {32: 0.003}, overhead=0.5)
    assert [plan.steps[0] for plan in batcher.plan(worker, 0.0)] == [100, 50]


def test_a_slow_first_bundle_is_not_remembered_for_long() -> None:
    batcher, worker = Batcher(), workers(step_seconds={1: 0.003})
    jobs(batcher, 1, steps=10_000)
    for overhead in (10.0, 0.001):
        (plan,) = batcher.plan(worker, 0.0)
        answer(batcher, plan, {1: 0.003}, overhead=overhead)
    assert batcher.plan(worker, 0.0)[0].steps == [50]


def test_a_tail_does_not_cost_a_frame_that_was_asked_for() -> None:
    batcher, worker = Batcher(), workers(step_seconds={1: 0.15 / 8.5})  # 8 fit, as do the steps between frames
    (job,) = jobs(batcher, 1, steps=57, frames=8)
    bundles = 0
    while job.status is not Status.GONE:
        (plan,) = batcher.plan(worker, 0.0)
        answer(batcher, plan)
        bundles += 1
    assert bundles == 8


@pytest.mark.parametrize(("evaluations", "run"), [(50, 50), (62, 62), (63, 50)])
def test_a_tail_of_less_than_a_quarter_is_run_at_once(evaluations: int, run: int) -> None:
    batcher = Batcher()
    jobs(batcher, 1, steps=evaluations - 1)
    (plan,) = batcher.plan(workers(step_seconds={1: 0.003}), 0.0)  # 50 fit
    assert plan.steps == [run]


@pytest.mark.parametrize(("evaluations", "run"), [(3, 3), (4, 2)])
def test_the_last_evaluation_has_no_bundle_of_its_own(evaluations: int, run: int) -> None:
    batcher = Batcher()
    jobs(batcher, 1, steps=evaluations - 1)
    (plan,) = batcher.plan(workers(step_seconds={1: 0.07}), 0.0)  # 2 fit
    assert plan.steps == [run]


@pytest.mark.parametrize(("frames", "run"), [(1, 50), (3, 34), (20, 5), (1000, 1)])
def test_a_job_that_wants_frames_takes_fewer_steps_at_a_time_than_its_neighbours(frames: int, run: int) -> None:
    batcher = Batcher()
    jobs(batcher, 1, steps=100, frames=frames)
    (plan,) = batcher.plan(workers(step_seconds={1: 0.003}), 0.0)  # 50 fit
    assert plan.steps == [run]
    jobs(batcher, 1, steps=100)
    batcher.unsent(plan, 0.0)
    batcher.retry(plan.jobs[0])
    (plan,) = batcher.plan(workers(step_seconds={1: 0.003, 2: 0.003}), 0.0)
    assert plan.steps == [min(run, 34), 34]  # a third of theirs, as they share the worker


@pytest.mark.parametrize(
    ("step_seconds", "alone", "shared"), [(0.0025, 61, 21), (0.001, 61, 40), (0.0002, 61, 61), (0.02, 7, 7)]
)
def test_jobs_that_share_a_worker_come_back_on_their_way_so_that_others_can_join(
    step_seconds: float, alone: int, shared: int
) -> None:
    batcher, worker = Batcher(), workers(step_seconds={1: step_seconds, 8: step_seconds})
    jobs(batcher, 1, steps=60)
    (plan,) = batcher.plan(worker, 0.0)
    assert plan.steps == [alone]
    batcher.unsent(plan, 0.0)
    batcher.retry(plan.jobs[0])
    jobs(batcher, 1, steps=60)
    (plan,) = batcher.plan(worker, 0.0)
    assert plan.steps == [shared, shared]


def test_the_last_evaluation_makes_no_frame_of_its_own() -> None:
    batcher, worker = Batcher(), workers(step_seconds={1: 0.003})
    jobs(batcher, 1, steps=20, frames=4)
    steps: list[int] = []
    while plans := batcher.plan(worker, 0.0):
        steps += plans[0].steps
        answer(batcher, plans[0])
    assert steps == [5, 5, 5, 6]


def test_jobs_with_unequal_remaining_steps_each_run_their_own() -> None:
    batcher = Batcher()
    for steps in (5, 100, 20):
        jobs(batcher, 1, steps=steps)
    (plan,) = batcher.plan(workers(step_seconds=FLAT), 0.0)
    k = plan.steps[1]
    assert plan.steps == [6, k, 21]
    assert 25 < k < 50


def test_where_a_step_takes_a_second_bundles_are_one_step_of_one_job() -> None:
    batcher, worker = Batcher(), workers(step_seconds={1: 1.0, 8: 6.0})
    jobs(batcher, 8)
    plans = batcher.plan(worker, 0.0)
    assert [plan.steps for plan in plans] == [[1], [1]]
    assert plans[1].timeout > plans[0].timeout > 20


def test_exact_jobs_are_reckoned_one_after_the_other() -> None:
    steps = {}
    for exact in (False, True):
        batcher = Batcher()
        jobs(batcher, 8, exact=exact, steps=1000)
        (plan,) = batcher.plan(workers(), 0.0)
        steps[exact] = plan.steps[0]
    assert steps == {False: 37, True: 6}  # 0.15 s / 4 ms, and / 8 * 3 ms


def test_a_slow_first_use_is_soon_forgotten() -> None:
    times, info = StepTimes(), fake_model()
    times.learn("w", "fake", 16, [(16, 1, 2.0)])
    times.learn("w", "fake", 16, [(16, 10, 0.1)])
    assert times.step("w", info, 16, 16) == pytest.approx(0.01)


def test_a_batch_size_with_a_slow_first_use_is_tried_again() -> None:
    batcher, worker = Batcher(), workers()
    jobs(batcher, 16, steps=10_000)
    for _ in range(5):
        (plan,) = batcher.plan(worker, 0.0)
        answer(batcher, plan, {8: 0.004})
    (plan,) = batcher.plan(worker, 0.0)
    answer(batcher, plan, {16: 5.0})
    for _ in range(10):
        (plan,) = batcher.plan(worker, 0.0)
        answer(batcher, plan, {16: 0.005})
    assert len(batcher.plan(worker, 0.0)[0].jobs) == 16


# Whose turn it is.


def test_a_caller_with_one_job_is_in_every_bundle_beside_one_with_a_hundred() -> None:
    batcher, worker = Batcher(), workers(size=224)
    jobs(batcher, 100, "many")
    answers = 0
    for plan in batcher.plan(worker, 0.0):
        answer(batcher, plan)
    (lone,) = jobs(batcher, 1, "one", steps=5000)
    while lone.status is not Status.GONE and answers < 200:
        plans = batcher.plan(worker, 0.0)
        assert any(lone in plan.jobs for plan in plans)
        for plan in plans:
            answer(batcher, plan)
            answers += 1
    assert lone.status is Status.GONE


def test_callers_get_equal_work_however_many_jobs_they_have() -> None:
    batcher, worker = Batcher(), workers(size=224)
    for caller, count in (("a", 10), ("b", 40), ("c", 200)):
        jobs(batcher, count, caller, steps=10_000)
    work: Counter[str] = Counter()
    for _ in range(100):
        for plan in batcher.plan(worker, 0.0):
            for job, steps in zip(plan.jobs, plan.steps, strict=True):
                work[job.caller] += steps
            answer(batcher, plan)
    assert max(work.values()) < 1.1 * min(work.values())


def test_a_late_caller_does_not_make_up_for_time_when_it_asked_for_nothing() -> None:
    batcher, worker = Batcher(), workers(size=224)
    jobs(batcher, 50, "early", steps=10_000)
    for _ in range(50):
        for plan in batcher.plan(worker, 0.0):
            answer(batcher, plan)
    jobs(batcher, 50, "late", steps=10_000)
    work: Counter[str] = Counter()
    for _ in range(20):
        for plan in batcher.plan(worker, 0.0):
            work.update(job.caller for job in plan.jobs)
            answer(batcher, plan)
    assert work["early"] == pytest.approx(work["late"], rel=0.1)


def test_what_nobody_else_wanted_is_not_held_against_a_caller_for_ever() -> None:
    share: FairShare[str] = FairShare()
    share.settle({"waits for another classifier"})
    share.charge("busy", 1e9)
    assert share.rank("busy")[0] <= 20_000


def test_interactive_jobs_come_first_in_short_bundles() -> None:
    batcher, worker = Batcher(), workers(size=224)
    jobs(batcher, 20)
    for plan in batcher.plan(worker, 0.0):
        answer(batcher, plan)
    (stroke,) = jobs(batcher, 1, interactive=True)
    first, *_ = batcher.plan(worker, 0.0)
    assert first.jobs[0] is stroke
    assert first.expected <= 0.06


def test_interactive_jobs_leave_a_fifth_to_the_others() -> None:
    batcher, worker = Batcher(), workers(step_seconds={1: 0.2, 8: 1.6})
    jobs(batcher, 5, "painter", interactive=True, steps=10_000)
    jobs(batcher, 5, "printer", steps=10_000)
    work: Counter[str] = Counter()
    for _ in range(200):
        for plan in batcher.plan(worker, 0.0):
            work.update(job.caller for job in plan.jobs)
            answer(batcher, plan)
    assert work["printer"] / work.total() == pytest.approx(0.2, abs=0.02)


def test_the_oldest_jobs_run_first_and_take_turns_once_they_run() -> None:
    batcher, worker = Batcher(), workers(step_seconds={1: 0.1, 8: 0.8})
    added = jobs(batcher, 6, steps=8)
    order = []
    while plans := batcher.plan(worker, 0.0):
        for plan in plans:
            order += [added.index(job) for job in plan.jobs]
            answer(batcher, plan)
    assert len(order) == 6 * 8
    assert order[:8] == [0, 1, 2, 3] * 2
    assert [order.index(i) for i in range(6)] == sorted(order.index(i) for i in range(6))
    assert order[-1] in (4, 5)


def test_two_image_sizes_of_one_caller_take_turns() -> None:
    batcher, worker = Batcher(), workers()
    jobs(batcher, 4, size=16, steps=10_000)
    jobs(batcher, 4, size=32, steps=10_000)
    found = []
    for _ in range(6):
        (plan,) = batcher.plan(worker, 0.0)
        found.append(plan.size)
        answer(batcher, plan)
    assert found == [16, 32] * 3


# Workers that are slow, lost, unavailable.


def test_a_much_slower_worker_gets_a_smaller_share() -> None:
    batcher, two = Batcher(), workers(2)
    two[1].served = [fake_model(step_seconds={size: 10 * s for size, s in FLAT.items()})]
    jobs(batcher, 11)
    plans = batcher.plan(two, 0.0)
    assert [(plan.worker.name, len(plan.jobs)) for plan in plans] == [("w0", 10), ("w1", 1)]


def test_a_lone_job_goes_to_the_fastest_worker() -> None:
    batcher, two = Batcher(), workers(2)
    two[0].served = [fake_model(step_seconds={size: 10 * s for size, s in FLAT.items()})]
    jobs(batcher, 1)
    assert [plan.worker.name for plan in batcher.plan(two, 0.0)] == ["w1"]


def test_the_jobs_of_a_lost_bundle_are_split_and_grow_together_again() -> None:
    batcher, worker = Batcher(), workers()
    jobs(batcher, 16, steps=10_000)
    now, found = 0.0, []
    for lost in (True, True, False, False, False, False, False, False):
        (plan,) = batcher.plan(worker, now)
        found.append(len(plan.jobs))
        if lost:
            assert batcher.lost(plan, now, "died.") == []
        else:
            answer(batcher, plan)
        now += 10
    # After two losses two times four jobs succeed, then the other half; the next bundle has all again.
    assert found == [16, 8, 4, 4, 8, 8, 16, 16]


def test_a_job_that_is_lost_alone_three_times_in_a_row_is_given_up() -> None:
    batcher, worker = Batcher(), workers()
    added = jobs(batcher, 16, steps=10_000)
    now, losses = 0.0, 0
    given_up: list[Candidate] = []
    for _ in range(100):
        for plan in batcher.plan(worker, now):
            if added[5] in plan.jobs:
                losses += 1
                given_up += batcher.lost(plan, now, "died.")
            else:
                answer(batcher, plan)
        now += 10
    assert given_up == [added[5]]
    assert losses == 4 + 3  # 16, 8, 4, 2, and three times alone
    assert all(job.remaining is not None for job in added if job is not added[5])


def test_a_success_in_between_starts_the_count_of_losses_again() -> None:
    batcher, worker = Batcher(), workers()
    jobs(batcher, 1, steps=10_000)
    now = 0.0
    for _ in range(5):
        for lost in (True, True, False):
            (plan,) = batcher.plan(worker, now)
            if lost:
                assert batcher.lost(plan, now, "died.") == []
            else:
                answer(batcher, plan)
            now += 20


def test_being_unavailable_is_not_held_against_the_jobs() -> None:
    batcher, worker = Batcher(), workers()
    added = jobs(batcher, 4)
    now = 0.0
    for _ in range(10):
        (plan,) = batcher.plan(worker, now)
        batcher.unavailable(plan, now, "is busy.")
        now += 10
    (plan,) = batcher.plan(worker, now)
    assert plan.jobs == added
    assert not plan.suspect


def test_suspects_are_never_beside_another_bundle() -> None:
    batcher, worker = Batcher(), workers()
    added = jobs(batcher, 40, steps=10_000)
    first, second = batcher.plan(worker, 0.0)
    batcher.lost(first, 0.0, "died.")
    assert batcher.plan(worker, 100.0) == []  # all that waits but 8 are suspects, and `second` is outstanding
    answer(batcher, second)
    (plan,) = batcher.plan(worker, 200.0)
    assert plan.suspect
    assert len(plan.jobs) == 8
    assert set(plan.jobs) <= set(added)


def test_a_worker_that_lost_a_bundle_is_left_alone_while_others_take_its_jobs() -> None:
    batcher, two = Batcher(Policy(lost=Backoff(1.0, 4.0))), workers(2)
    added = jobs(batcher, 2, steps=10_000)
    first, second = batcher.plan(two, 0.0)
    batcher.lost(first, 0.0, "died.")
    assert batcher.plan(two, 0.1) == []
    answer(batcher, second)
    (plan,) = batcher.plan(two, 0.2)
    assert plan.worker is second.worker
    assert plan.jobs == list(first.jobs)
    assert {*first.jobs, *second.jobs} == {*added}
    back = batcher.next_change(0.2)
    assert back is not None
    assert 0.5 <= back <= 1.0
    assert [plan.worker for plan in batcher.plan(two, back)] == [first.worker]


def test_backoff_doubles_up_to_a_bound_and_a_success_ends_it() -> None:
    batcher, worker = Batcher(Policy(unavailable=Backoff(1.0, 4.0)), random.Random(1)), workers()
    jobs(batcher, 1, steps=10_000)
    now, waits = 0.0, []
    for _ in range(5):
        (plan,) = batcher.plan(worker, now)
        batcher.unavailable(plan, now, "is busy.")
        back = batcher.next_change(now)
        assert back is not None
        waits.append(back - now)
        now = back
    for wait, longest in zip(waits, (1, 2, 4, 4, 4), strict=True):
        assert longest / 2 <= wait <= longest
    answer(batcher, batcher.plan(worker, now)[0])
    (plan,) = batcher.plan(worker, now)
    batcher.unavailable(plan, now, "is busy.")
    assert (batcher.next_change(now) or now) - now <= 1


def test_too_little_memory_halves_a_jobs_bundles_for_good() -> None:
    batcher, worker = Batcher(), workers()
    (job, *_) = jobs(batcher, 8, steps=10_000)
    for expected in (8, 4, 2, 1):
        plan = next(p for p in iter(lambda: batcher.plan(worker, 0.0)[0], None) if job in p.jobs or _skip(batcher, p))
        assert len(plan.jobs) <= expected
        batcher.answered(plan, [], 0.0)
        alone = len(plan.jobs) == 1
        assert batcher.shrink(job, len(plan.jobs)) is not alone
        for other in plan.jobs[1:] if plan.jobs[0] is job else [j for j in plan.jobs if j is not job]:
            batcher.resume(plan, other, 5000)
        if alone:
            break
    assert job.status is Status.GONE


def _skip(batcher: Batcher, plan: Plan) -> bool:
    answer(batcher, plan)
    return False


# Versions and protocols.


def served(*versions: tuple[str, bool]) -> list[ModelInfo]:
    return [fake_model(version=version, current=current, step_seconds=FLAT) for version, current in versions]


def test_new_jobs_take_the_current_version_and_begun_ones_keep_theirs() -> None:
    batcher, worker = Batcher(), workers()
    old = jobs(batcher, 2, steps=1000)
    answer(batcher, batcher.plan(worker, 0.0)[0])
    worker[0].served = served(("v1", False), ("v2", True))
    new = jobs(batcher, 2, steps=1000)
    found: dict[str, set[Candidate]] = {"v1": set(), "v2": set()}
    for _ in range(4):
        (plan,) = batcher.plan(worker, 0.0)
        found[plan.info.version].update(plan.jobs)
        answer(batcher, plan)
    assert found == {"v1": {*old}, "v2": {*new}}


def test_a_job_whose_version_nobody_serves_waits_for_it() -> None:
    batcher, worker = Batcher(), workers()
    (job,) = jobs(batcher, 1, steps=1000)
    answer(batcher, batcher.plan(worker, 0.0)[0])
    worker[0].served = served(("v2", True))
    assert batcher.plan(worker, 0.0) == []
    assert batcher.obstacle(job, worker, 0.0) == "no worker with fake v1 is up."
    worker[0].served = served(("v2", True), ("v1", False))
    assert [plan.jobs for plan in batcher.plan(worker, 0.0)] == [[job]]


def test_all_pictures_of_a_request_are_made_by_one_version() -> None:
    batcher, two = Batcher(), workers(2)
    two[1].served = served(("v2", True), ("v1", False))
    family: list[Candidate] = []
    spec = Generate(target="cat", seed=1, count=6)
    family += [Candidate("fake", spec, siblings=family) for _ in range(6)]
    for job in family:
        batcher.add(job)
    plans = batcher.plan(two, 0.0)
    assert {plan.info.version for plan in plans} == {"v1"}
    assert {job.version for job in family} == {"v1"}


def test_a_request_that_was_lost_before_it_began_may_begin_with_another_version() -> None:
    batcher, worker = Batcher(), workers()
    jobs(batcher, 2)
    (plan,) = batcher.plan(worker, 0.0)
    batcher.lost(plan, 0.0, "died.")
    worker[0].served = served(("v2", True))
    assert [plan.info.version for plan in batcher.plan(worker, 60.0)] == ["v2"]


def test_a_worker_of_another_protocol_is_not_asked() -> None:
    batcher, worker = Batcher(), workers(protocol=PROTOCOL + 1)
    (job,) = jobs(batcher, 1)
    assert batcher.plan(worker, 0.0) == []
    assert f"speaks bundle protocol {PROTOCOL + 1}" in batcher.obstacle(job, worker, 0.0)


def test_a_worker_that_refuses_a_model_is_asked_for_others_and_later_again() -> None:
    batcher = Batcher()
    worker = [FakeWorker("w", [fake_model(step_seconds=FLAT), fake_model("other", step_seconds=FLAT)])]
    (job,) = jobs(batcher, 1)
    (plan,) = batcher.plan(worker, 0.0)
    batcher.refused(plan, 0.0, "worker w: protocol: bring both to the same version.")
    assert batcher.plan(worker, 0.1) == []
    assert "bring both to the same version" in batcher.obstacle(job, worker, 0.1)
    other = Candidate("other", Generate(target="cat", seed=1))
    batcher.add(other)
    assert [plan.jobs for plan in batcher.plan(worker, 0.2)] == [[other]]
    batcher.remove(other)
    back = batcher.next_change(0.2)
    assert back is not None
    worker.append(FakeWorker("second"))
    assert [plan.worker.name for plan in batcher.plan(worker, back) if plan.jobs == [job]] == ["second"]


def test_nothing_is_kept_of_workers_that_are_gone() -> None:
    batcher = Batcher()
    jobs(batcher, 1, steps=10_000)
    for number in range(100):
        worker = [FakeWorker(f"pod-{number}", [fake_model(step_seconds=FLAT)])]
        (plan,) = batcher.plan(worker, 0.0)
        answer(batcher, plan, {1: 0.01})
    assert len(batcher._standings) == 1
    assert len(batcher.times._measured) == 1


def all_ended(count: int) -> tuple[Batcher, list[FakeWorker]]:
    """So many jobs have shared a bundle, and ended with it at 1.0."""
    batcher, worker = Batcher(), [FakeWorker("0", [fake_model(step_seconds=FLAT)])]
    jobs(batcher, count, steps=1)
    (plan,) = batcher.plan(worker, 0.0)
    answer(batcher, plan)
    batcher.ended(plan, count, 1.0)
    return batcher, worker


def test_a_worker_waits_a_moment_for_callers_whose_jobs_have_just_ended() -> None:
    batcher, worker = all_ended(4)
    jobs(batcher, 1)
    assert batcher.plan(worker, 1.001) == []
    assert batcher.next_change(1.001) == pytest.approx(1.005)
    jobs(batcher, 3)
    assert sizes(batcher.plan(worker, 1.002)) == [4]


@pytest.mark.parametrize(
    ("ended", "later", "steps"),
    [
        (4, 0.03, 13),  # a job that is alone: for 0.04 s
        (3, 0.03, 12),
        (3, 0.31, 34),  # nobody has come back
        (2, 0.03, 34),  # more are left than have ended
    ],
)
def test_while_callers_may_come_back_the_few_that_were_left_compute_for_a_moment_only(
    ended: int, later: float, steps: int
) -> None:
    batcher, worker = Batcher(), [FakeWorker("0", [fake_model(step_seconds=FLAT)])]
    left = 5 - ended
    jobs(batcher, left, steps=100)
    jobs(batcher, ended, steps=3)
    (plan,) = batcher.plan(worker, 0.0)
    answer(batcher, plan)
    batcher.ended(plan, ended, 1.0)
    (plan,) = batcher.plan(worker, 1.0 + later)
    assert (len(plan.jobs), plan.steps[0]) == (left, steps)


def test_such_a_moment_is_no_shorter_than_twice_the_way() -> None:
    batcher, worker = Batcher(), [FakeWorker("0", [fake_model(step_seconds={1: 0.003})])]
    jobs(batcher, 1, steps=10_000)
    for _ in range(20):
        (plan,) = batcher.plan(worker, 0.0)
        answer(batcher, plan, {1: 0.003}, overhead=0.06)
    batcher.ended(plan, 2, 1.0)
    (plan,) = batcher.plan(worker, 1.03)
    assert plan.steps == [40]


@pytest.mark.parametrize(("step", "waits"), [(0.14, 0.025), (0.06, 0.012), (0.003, 0.005)])
def test_a_worker_waits_longer_where_more_have_ended_with_a_long_bundle_than_are_left(
    step: float, waits: float
) -> None:
    for arrive, now in ((1, 1.0 + 0.5 * waits), (0, 1.0 + 1.01 * waits)):
        batcher, worker = Batcher(), [FakeWorker("0", [fake_model(step_seconds={1: step, 8: step})])]
        jobs(batcher, 4, steps=1)
        (plan,) = batcher.plan(worker, 0.0)
        answer(batcher, plan)
        batcher.ended(plan, 3, 1.0)
        jobs(batcher, 2)
        assert batcher.plan(worker, 1.0 + 0.4 * waits) == []
        assert batcher.next_change(1.0051) == (pytest.approx(1.0 + waits) if waits > 0.0051 else None)
        jobs(batcher, 2 * arrive)  # as many as there were
        assert sizes(batcher.plan(worker, now)) == [2 + 2 * arrive]


def test_a_worker_does_not_wait_for_jobs_of_another_classifier_or_size() -> None:
    batcher, worker = all_ended(4)
    jobs(batcher, 1, size=32)
    assert sizes(batcher.plan(worker, 1.001)) == [1]


def test_while_it_waits_a_worker_computes_what_others_want_of_it() -> None:
    batcher, worker = all_ended(8)
    jobs(batcher, 1)
    jobs(batcher, 3, size=32)
    (plan,) = batcher.plan(worker, 1.001)
    assert (plan.size, len(plan.jobs)) == (32, 3)


def test_a_worker_does_not_wait_with_interactive_jobs() -> None:
    batcher, worker = all_ended(4)
    jobs(batcher, 1, interactive=True)
    assert sizes(batcher.plan(worker, 1.001)) == [1]


def test_a_worker_does_not_wait_where_enough_jobs_do_though_few_fit_into_a_bundle() -> None:
    batcher, worker = all_ended(16)
    jobs(batcher, 16, upload=5 * 2**20)
    (plan,) = batcher.plan(worker, 1.001)
    assert len(plan.jobs) == 3
    assert plan.steps[0] > 13  # longer than the moment


@pytest.mark.parametrize(("count", "later"), [(4, 0.006), (1, 0.0)])
def test_a_worker_does_not_wait_longer_than_that_nor_for_a_lone_caller(count: int, later: float) -> None:
    batcher, worker = all_ended(count)
    jobs(batcher, 1)
    assert sizes(batcher.plan(worker, 1.0 + later)) == [1]


# The bundle that follows the one under way.


def held(batcher: Batcher, worker: Sequence[FakeWorker], count: int, **fields: Any) -> tuple[list[Candidate], Plan]:
    """Jobs under way from 1.0 on, on a worker that holds them."""
    first = jobs(batcher, 1, steps=1)
    (plan,) = batcher.plan(worker[:1], 0.0)
    batcher.answered(plan, [], 0.0, holds=True)
    batcher.remove(first[0])
    added = jobs(batcher, count, **fields)
    (plan,) = batcher.plan(worker[:1], 1.0)
    return added, plan


def test_the_next_bundle_goes_out_shortly_before_the_end_of_the_one_under_way() -> None:
    batcher, worker = Batcher(), workers()
    added, before = held(batcher, worker, 4, steps=100)
    at = batcher.next_change(1.0) or 0.0
    assert at == pytest.approx(1.0 + before.expected, abs=0.1 * before.expected)
    assert batcher.plan(worker, at - 0.001) == []
    (plan,) = batcher.plan(worker, at)
    assert (plan.queued, plan.jobs) == (True, added)
    assert plan.held == {job: 101 - steps for job, steps in zip(added, before.steps, strict=True)}
    assert batcher.plan(worker, at + 1) == []  # one behind the other, and no more
    answer(batcher, before)
    assert [job.status for job in added] == [Status.IN_FLIGHT] * 4
    assert [job.evaluations(plan.info.card) for job in added] == list(plan.held.values())
    answer(batcher, plan)
    assert [job.status for job in added] == [Status.WAITING] * 4


def test_nothing_follows_at_a_worker_that_holds_nothing() -> None:
    batcher, worker = Batcher(), workers()
    jobs(batcher, 4, steps=100)
    batcher.plan(worker, 0.0)
    assert batcher.next_change(0.0) is None
    assert batcher.plan(worker, 100.0) == []


@pytest.mark.parametrize(
    ("under_way", "waiting"),
    [
        ({"interactive": True}, {}),
        ({}, {"interactive": True}),
        ({}, {"size": 32}),  # others are not passed over
        ({}, {"count": 13}),  # not all of them fit
        ({"steps": 4}, {}),  # all end
        ({}, {"upload": 17 * 2**20}),  # it would take long to send
    ],
)
def test_where_others_would_be_passed_over_or_a_job_is_in_a_hurry_nothing_follows(
    under_way: Mapping[str, object], waiting: Mapping[str, object]
) -> None:
    batcher, worker = Batcher(), workers()
    _, before = held(batcher, worker, 4, **{"steps": 1000, **under_way})
    jobs(batcher, **{"count": 1, **waiting})  # type: ignore[arg-type]
    assert batcher.plan(worker, 1.0 + 0.99 * before.expected) == []


@pytest.mark.parametrize(("steps", "follow"), [(1000, True), (4, False)])
def test_nothing_follows_where_most_jobs_end_since_their_callers_may_come_back(steps: int, follow: bool) -> None:
    batcher, worker = Batcher(), workers()
    first = jobs(batcher, 3, steps=1000)
    (plan,) = batcher.plan(worker, 0.0)
    answer(batcher, plan, holds=True)
    others = jobs(batcher, 10, steps=steps)
    (before,) = batcher.plan(worker, 1.0)
    assert {*before.jobs} == {*first, *others}
    assert bool(batcher.plan(worker, 1.0 + 0.99 * before.expected)) is follow


@pytest.mark.parametrize("come", [0, 2])
def test_what_follows_a_bundle_with_which_jobs_end_is_short_until_as_many_have_come(come: int) -> None:
    batcher, worker = Batcher(), workers()
    first = jobs(batcher, 3, steps=1000)
    (plan,) = batcher.plan(worker, 0.0)
    answer(batcher, plan, holds=True)
    jobs(batcher, 2, steps=4)
    (before,) = batcher.plan(worker, 1.0)
    jobs(batcher, come, steps=1000)
    (following,) = batcher.plan(worker, 1.0 + 0.99 * before.expected)
    assert len(following.jobs) == len(first) + come
    assert (following.expected < 0.3 * before.expected) is (come == 0)


def test_a_worker_that_stopped_holding_or_died_gets_one_bundle_after_the_other() -> None:
    for lost in (True, False):
        batcher, worker = Batcher(), workers()
        _, before = held(batcher, worker, 1, steps=3000)
        if lost:
            batcher.lost(before, 1.1, "died.")
        else:
            answer(batcher, before)
        (plan,) = batcher.plan(worker, 100.0)
        assert batcher.plan(worker, 100.0 + 0.99 * plan.expected) == []


def test_after_a_bundle_that_was_not_sent_the_next_is_followed_no_sooner() -> None:
    batcher, worker = Batcher(), workers()
    _, before = held(batcher, worker, 1, steps=3000)
    (plan,) = batcher.plan(worker, 1.0 + 0.99 * before.expected)
    batcher.unsent(before, 1.2)
    assert batcher.next_change(1.2) == pytest.approx(1.2 + plan.expected, abs=0.1 * plan.expected)


def test_a_following_bundle_has_time_for_the_first_use_of_the_one_before() -> None:
    batcher, worker = Batcher(), workers()
    _, before = held(batcher, worker, 4, steps=3000)
    (plan,) = batcher.plan(worker, 1.0 + 0.99 * before.expected)
    assert plan.timeout >= before.timeout > 30


def test_a_worker_that_is_much_slower_than_another_gives_its_jobs_back() -> None:
    batcher = Batcher()
    slow, fast = workers(step_seconds={1: 0.1, 8: 0.1})[0], FakeWorker("fast", [fake_model(step_seconds=FLAT)])
    _, before = held(batcher, [slow], 1, steps=1000)
    assert batcher.plan([slow, fast], 1.0 + 0.99 * before.expected) == []


def test_what_happens_to_a_bundle_is_not_the_jobs_that_the_next_took_along_but_theirs_who_were_in_it() -> None:
    batcher, worker = Batcher(), workers()
    added, before = held(batcher, worker, 2, steps=1000)
    (late,) = jobs(batcher, 1)
    (plan,) = batcher.plan(worker, 1.0 + 0.99 * before.expected)
    assert plan.jobs == [*added, late]
    batcher.lost(before, 2.0, "died.")
    assert [job.status for job in plan.jobs] == [Status.WAITING, Status.WAITING, Status.IN_FLIGHT]
    assert [job.suspect for job in plan.jobs] == [True, True, False]
    assert [job.evaluations(plan.info.card) for job in added] == [1001, 1001]
    batcher.unavailable(plan, 2.0, "is gone.")
    assert [job.status for job in plan.jobs] == [Status.WAITING] * 3
    assert not late.suspect


def test_a_worker_that_refuses_the_bundle_that_follows_gets_one_after_the_other_for_a_while() -> None:
    batcher, worker = Batcher(), workers()
    _, before = held(batcher, worker, 4, steps=3000)
    (plan,) = batcher.plan(worker, 1.0 + 0.99 * before.expected)
    answer(batcher, before, holds=True)
    batcher.unavailable(plan, 1.2, "is busy.")
    (plan,) = batcher.plan(worker, 1.2)  # it is not away
    assert not plan.held
    assert batcher.plan(worker, 1.2 + 0.99 * plan.expected) == []
    answer(batcher, plan, holds=True)
    (plan,) = batcher.plan(worker, 3.0)
    (following,) = batcher.plan(worker, 3.0 + 0.99 * plan.expected)
    assert [*following.held] == plan.jobs


# Bundle sizes.


def test_a_bundle_has_more_jobs_where_they_take_hardly_longer() -> None:
    for table, most in (
        ({8: 0.01, 16: 0.01, 32: 0.0115}, 32),
        ({8: 0.01, 16: 0.01, 32: 0.013}, 16),
    ):
        batcher, worker = Batcher(), workers(step_seconds=table)
        jobs(batcher, 40, steps=1000)
        assert max(sizes(batcher.plan(worker, 0.0))) == most


def test_where_bundles_have_one_step_no_job_makes_the_others_wait_for_its_last_evaluation() -> None:
    batcher, worker = Batcher(), workers(step_seconds={1: 0.2, 8: 0.2})
    jobs(batcher, 1, steps=1)
    (others, last) = jobs(batcher, 1, steps=8), jobs(batcher, 1, steps=1)
    (plan,) = batcher.plan(worker, 0.0)
    assert {*plan.jobs} >= {*others, *last}
    assert plan.steps == [1, 1, 1]
