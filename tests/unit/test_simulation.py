"""The simulator of benchmarks/autoscale.py: its autoscaler is KEDA's, its workers do what they can and no more."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.simulation import Cluster, Hpa, Machine, Scaling, Step, by_time

POLICY = Path(__file__).parents[2] / "deploy/kubernetes/base/autoscaling.yaml"
SCALING = Scaling(
    threshold=100, least=1, most=16, up=Step(4, 100, 30), down=Step(1, 0, 60), stabilisation=600, cooldown=900
)
FLAT = Machine(dict.fromkeys((1, 2, 4, 8, 16), 0.01), size=64, between=0.0, start=60.0)
"""A step takes as long whatever the batch."""


def looks(hpa: Hpa, offered: float, begin: float, count: int) -> list[int]:
    return [hpa.look(begin + 15 * number, offered) for number in range(count)]


def test_the_policy_is_read_from_the_manifest() -> None:
    found = Scaling.read(POLICY)
    assert found.up == Step(4, 100, 30)
    assert found.down == Step(1, 0, 60)
    assert (found.least, found.most, found.stabilisation) == (1, 16, 600)


def test_workers_double_or_grow_by_four_within_a_period_up_to_the_most() -> None:
    assert looks(Hpa(SCALING, 1), 5000, 0, 8) == [5, 5, 10, 10, 16, 16, 16, 16]


def test_a_load_within_a_tenth_of_the_threshold_changes_nothing() -> None:
    hpa = Hpa(SCALING, 4)
    assert looks(hpa, 437, 0, 3) == [4, 4, 4]
    assert looks(hpa, 445, 45, 1) == [5]


def test_workers_go_one_a_minute_and_only_after_the_window_has_seen_no_wish_for_more() -> None:
    hpa = Hpa(SCALING, 6)
    assert looks(hpa, 600, 0, 1) == [6]
    assert set(looks(hpa, 100, 15, 40)) == {6}
    assert looks(hpa, 100, 615, 12) == [5, 5, 5, 5, 4, 4, 4, 4, 3, 3, 3, 3]


def test_from_none_one_worker_comes_at_once_and_the_last_goes_after_the_cooldown() -> None:
    hpa = Hpa(dataclasses.replace(SCALING, least=0), 0)
    assert looks(hpa, 0, 0, 2) == [0, 0]
    assert looks(hpa, 5, 30, 1) == [1]
    found = looks(hpa, 0, 45, 70)
    assert found.index(0) * 15 == 900


def test_a_lone_job_takes_its_steps_and_full_batches_as_many_as_the_worker_can() -> None:
    alone = Cluster(FLAT, SCALING).run([1.0], 60, 60)
    assert alone.latencies == pytest.approx([0.6])
    assert [seconds for _, seconds in alone.waits] == [0.0]
    one = dataclasses.replace(SCALING, most=1)
    full = Cluster(FLAT, one, queue_seconds=1e9).run([0.0] * 320, 60, 60)
    assert max(full.latencies) == pytest.approx(320 / 16 * 0.6, rel=0.05)
    assert len(full.latencies) == 320


def test_every_job_is_done_or_refused_and_a_bounded_queue_bounds_the_wait() -> None:
    arrivals = [number / 100 for number in range(6000)]
    one = dataclasses.replace(SCALING, most=1)
    trace = Cluster(FLAT, one, queue_seconds=5).run(arrivals, 60, 60)
    assert trace.refused > 1000
    assert len(trace.latencies) + trace.refused == 6000
    assert max(trace.latencies) < 5 + 1.5
    assert trace.utilisation > 0.95


def test_more_load_brings_workers_that_can_compute_only_once_they_have_started() -> None:
    arrivals = [number / 60 for number in range(60 * 600)]
    trace = Cluster(FLAT, SCALING).run(arrivals, 60, 600)
    grown = next(time for time, wanted in zip(trace.times, trace.wanted, strict=True) if wanted > 1)
    ready = next(time for time, count in zip(trace.times, trace.ready, strict=True) if count > 1)
    assert grown < 45
    assert FLAT.start <= ready - grown <= FLAT.start + 15
    assert max(wait for arrived, wait in trace.waits if arrived > 300) < 1


def test_workers_are_paid_from_the_wish_to_their_last_bundle() -> None:
    trace = Cluster(FLAT, dataclasses.replace(SCALING, least=2), workers=2).run([], 60, 3600)
    assert trace.worker_hours == pytest.approx(2, rel=0.01)
    assert trace.utilisation == 0


def test_values_by_time_are_those_that_a_share_did_not_exceed() -> None:
    pairs = [(float(i), float(i % 10)) for i in range(100)]
    assert by_time(pairs, 50, 0.5) == ([25.0, 75.0], [5.0, 5.0])
