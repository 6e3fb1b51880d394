"""What is let in, on a clock that is set by hand."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from robust_synthesis.gateway.errors import DeadlineExceeded, Overloaded, QuotaExceeded
from robust_synthesis.gateway.queue import LONGEST_RETRY, Bounds, Kind, Place, Queue, Speed, Work

FAST = Kind("fast", 64)
SPEEDS = {
    FAST: Speed(100.0, 0.01, frozenset({"a"})),
    Kind("fast", 128): Speed(100.0, 0.04, frozenset({"a"})),
    Kind("other", 64): Speed(100.0, 0.01, frozenset({"b"})),
}
NEVER = math.inf


class Scene:
    """A queue whose workers have the speeds above, where they are."""

    def __init__(self, **bounds: int) -> None:
        self.now = 0.0
        self.speeds = dict(SPEEDS)
        self.queue = Queue(Bounds(seconds=10.0, share=0.5, **bounds), self.speeds.get, lambda: self.now)

    def enter(
        self,
        caller: str = "",
        evaluations: int = 100,
        *,
        kind: Kind = FAST,
        pictures: int = 1,
        bytes: int = 0,
        deadline: float = NEVER,
        share: float | None = None,
        interactive: bool = False,
    ) -> Place:
        work = Work(kind, evaluations, pictures, bytes)
        return self.queue.enter(caller, work, deadline=deadline, share=share, interactive=interactive)

    def fill(self, caller: str = "", **work: Any) -> int:
        """Enter the same until it is refused; how many got in."""
        for count in range(10_000):
            try:
                self.enter(caller, **work)
            except Overloaded:
                return count
        raise AssertionError


def test_no_more_is_let_in_than_is_computed_in_time() -> None:
    scene = Scene()
    assert scene.fill(evaluations=100) == 10  # of one second each
    assert scene.queue.seconds() == pytest.approx(10)
    with pytest.raises(Overloaded, match=r"10\.0 s of work") as caught:
        scene.enter(evaluations=300)
    assert caught.value.retry_after_seconds == pytest.approx(3)


def test_after_the_time_it_was_told_a_request_gets_in() -> None:
    scene = Scene()
    first, *_ = [scene.enter() for _ in range(10)]
    with pytest.raises(Overloaded) as caught:
        scene.enter(evaluations=50)
    scene.now += caught.value.retry_after_seconds
    first.look = lambda: first.work.cost - 100 * scene.now
    assert scene.enter(evaluations=50)
    with pytest.raises(Overloaded):
        scene.enter(evaluations=50)


def test_those_who_are_refused_are_told_to_come_back_one_after_the_other() -> None:
    scene = Scene()
    scene.fill()
    told = []
    for _ in range(60):
        with pytest.raises(Overloaded) as caught:
            scene.enter(evaluations=50)
        told.append(caught.value.retry_after_seconds)
    assert told[1:4] == pytest.approx([told[0] + 0.5, told[0] + 1.0, told[0] + 1.5])
    assert max(told) == LONGEST_RETRY
    scene.now += 100
    with pytest.raises(Overloaded) as caught:
        scene.enter(evaluations=50)
    assert caught.value.retry_after_seconds == pytest.approx(0.5)


def test_an_idle_server_takes_a_request_that_is_too_large_and_others_still_get_their_part() -> None:
    scene = Scene()
    large = scene.enter("greedy", 10_000, pictures=256)
    with pytest.raises(QuotaExceeded):
        scene.enter("greedy", 1)
    assert scene.fill("modest") == 5
    with pytest.raises(Overloaded):
        scene.enter("third", 1)
    scene.queue.leave(large)
    assert scene.fill("third") == 5


@pytest.mark.parametrize("work", [{"evaluations": 1100}, {"evaluations": 100, "pictures": 11}])
def test_what_cannot_be_done_in_time_waits_for_an_idle_server(work: dict[str, Any]) -> None:
    scene = Scene()
    small = scene.enter(evaluations=100)
    with pytest.raises(Overloaded, match="only an idle server") as caught:
        scene.enter(**work)
    assert caught.value.retry_after_seconds == pytest.approx(1)
    scene.queue.leave(small)
    assert scene.enter(**work)


def test_one_caller_does_not_fill_the_queue() -> None:
    scene = Scene()
    assert scene.fill("greedy") == 5
    with pytest.raises(QuotaExceeded, match=r"your requests have 5\.0 s of work in the queue, and may have 5\.0"):
        scene.enter("greedy")
    assert scene.fill("modest") == 5
    with pytest.raises(Overloaded, match="workers have 10"):
        scene.enter("third")


@pytest.mark.parametrize("bounds", [{"requests": 100}, {"bytes": 1000}])
def test_one_caller_fills_neither_the_places_nor_the_memory_of_the_queue(bounds: dict[str, int]) -> None:
    scene = Scene(**bounds)
    scene.speeds.clear()  # so that time is no bound
    assert scene.fill("greedy", bytes=10) == 50
    with pytest.raises(QuotaExceeded, match="you have 50 requests and 0 MiB of images in the queue"):
        scene.enter("greedy", bytes=10)
    assert scene.fill("small", bytes=10, share=0.2) == 20
    assert scene.fill("modest", bytes=10) == 30
    with pytest.raises(Overloaded, match="the queue is full"):
        scene.enter("fourth", bytes=10)


def test_a_key_may_have_another_share() -> None:
    scene = Scene()
    scene.enter("small", share=0.2)
    scene.enter("small", share=0.2)
    with pytest.raises(QuotaExceeded):
        scene.enter("small", share=0.2)
    assert scene.fill("other") == 5


def test_callers_without_a_name_may_have_all() -> None:
    assert Scene().fill("") == 10


def test_cost_grows_with_pixels_and_pictures() -> None:
    assert Scene().fill(evaluations=50) == 20
    assert Scene().fill(evaluations=50, pictures=4) == 5
    assert Scene().fill(evaluations=50, kind=Kind("fast", 128)) == 5


def test_work_for_other_workers_does_not_count() -> None:
    scene = Scene()
    assert scene.fill() == 10
    assert scene.enter(evaluations=100, kind=Kind("other", 64))


def test_without_a_worker_requests_wait_instead_of_being_refused_up_to_a_number() -> None:
    scene = Scene(requests=100)
    scene.speeds.clear()
    assert scene.fill(evaluations=10_000) == 100
    with pytest.raises(Overloaded, match="100 requests"):
        scene.enter()
    scene.speeds.update(SPEEDS)
    scene.now += 1
    with pytest.raises(Overloaded) as caught:
        scene.enter()
    assert caught.value.retry_after_seconds == LONGEST_RETRY


def test_images_are_bounded_but_a_single_request_is_let_in() -> None:
    scene = Scene(bytes=1000)
    place = scene.enter(bytes=2000, evaluations=1)
    with pytest.raises(Overloaded, match="of images"):
        scene.enter(bytes=1, evaluations=1)
    scene.queue.leave(place)
    for _ in range(2):
        scene.enter(bytes=500, evaluations=1)
    with pytest.raises(Overloaded):
        scene.enter(bytes=1, evaluations=1)


def test_a_deadline_that_the_queue_will_miss_is_missed_at_once() -> None:
    scene = Scene()
    for _ in range(4):
        scene.enter()
    with pytest.raises(DeadlineExceeded, match=r"expected after 5\.0 s, and 4\.9 s are allowed"):
        scene.enter(deadline=4.9)
    assert scene.enter(deadline=5.1)


def test_callers_who_take_turns_wait_less() -> None:
    scene = Scene()
    for _ in range(4):
        scene.enter("greedy")
    with pytest.raises(DeadlineExceeded, match=r"after 2\.0 s"):  # one second its own, one the other's
        scene.enter("modest", deadline=1.9)
    assert scene.enter("modest", deadline=2.1)
    assert scene.enter("quick", deadline=1.5, interactive=True)  # not behind others


def test_a_job_is_not_faster_than_its_steps() -> None:
    scene = Scene()
    scene.speeds[FAST] = Speed(1600.0, 0.01, frozenset({"a"}))
    scene.enter(evaluations=1)
    with pytest.raises(DeadlineExceeded, match=r"after 5\.0 s"):
        scene.enter(evaluations=500, deadline=4.0)


def test_a_speed_that_was_measured_too_low_does_not_shut_the_server() -> None:
    scene = Scene()
    scene.speeds[FAST] = Speed(0.01, 100.0, frozenset({"a"}))
    assert scene.enter(deadline=1.0)


def test_under_ten_times_the_load_the_workers_are_never_idle_nor_have_more_than_they_can_finish() -> None:
    scene, rng = Scene(), random.Random(1)
    running: list[Place] = []
    left: dict[Place, float] = {}
    refused = 0
    tick, rate = 0.05, 100.0
    done = 0.0

    def offer() -> bool:
        try:
            place = scene.enter(rng.choice("abcd"), rng.choice([10, 50, 100, 200]))
        except Overloaded:
            return False
        left[place] = place.work.cost
        place.look = lambda: left[place]
        running.append(place)
        return True

    for _ in range(int(60 / tick)):
        scene.now += tick
        refused += sum(not offer() for _ in range(5))  # 90 evaluations on average; 5 can be done in a tick
        capacity = rate * tick
        while capacity > 1e-9 and running:
            part = min(left[running[0]], capacity)
            left[running[0]] -= part
            capacity -= part
            done += part
            if left[running[0]] <= 1e-9:
                scene.queue.leave(running.pop(0))
        assert sum(left[place] for place in running) / rate <= 10
    assert refused > 5000
    assert done > 0.99 * rate * 60
