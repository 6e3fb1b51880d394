"""The load generator's clockwork, on a clock that jumps: what it sends when, and what it makes of a server that stalls."""

from __future__ import annotations

import asyncio
import itertools
import statistics

import pytest

from clients.loadgen import report
from clients.loadgen.arrivals import arrivals
from clients.loadgen.drive import Drive, Sample
from clients.loadgen.mix import parse
from clients.loadgen.scrape import grown
from robust_synthesis.errors import InvalidInput
from robust_synthesis.gateway.testing import run

STALL = (5.0, 8.0)
SERVICE = 0.01


class Stalling:
    """Answers after ten milliseconds, but from its fifth second to its eighth nobody; its first begins with the first request."""

    begin: float | None = None

    async def __call__(self, _: int) -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        self.begin = loop.time() if self.begin is None else self.begin
        await asyncio.sleep(SERVICE)
        now = loop.time() - self.begin
        if STALL[0] <= now < STALL[1]:
            await asyncio.sleep(STALL[1] - now)
        return "generate", "OK"


def open_loop(rate: float, seconds: float) -> Drive:
    drive = Drive(Stalling())
    run(drive.open(arrivals("constant", rate, seconds)))
    return drive


def closed_loop(callers: int, seconds: float, pace: float | None) -> Drive:
    drive = Drive(Stalling())
    run(drive.closed(callers, seconds, pace))
    return drive


def test_constant_arrivals_are_as_far_apart_as_the_rate_says() -> None:
    assert list(arrivals("constant", 4, 1.1)) == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process_and_are_the_same_again() -> None:
    times = list(arrivals("poisson", 50, 200, seed=3))
    assert times == list(arrivals("poisson", 50, 200, seed=3)) != list(arrivals("poisson", 50, 200, seed=4))
    assert len(times) == pytest.approx(10_000, rel=0.03)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(1, abs=0.05)


def test_bursts_come_at_once_and_at_the_same_rate() -> None:
    times = list(arrivals("burst", 50, 200, burst=20, seed=1))
    assert len(times) == pytest.approx(10_000, rel=0.15)
    assert len(set(times)) * 20 == len(times)


def test_an_open_loop_sends_while_the_server_stalls_and_counts_from_when_it_should_have() -> None:
    samples = open_loop(10, 10).samples
    found = report.summary(samples)
    assert found["requests"] == 99
    late = sorted((sample.latency for sample in samples), reverse=True)
    # Ten a second for the three seconds of the stall, each a tenth of a second less than the one before it.
    assert late[:30] == pytest.approx([3.0 - 0.1 * number for number in range(30)])
    assert late[30] == pytest.approx(SERVICE)
    assert found["latency"]["p50"] == pytest.approx(SERVICE)
    assert found["latency"]["p90"] > 2
    assert found["lag"]["max"] == pytest.approx(0, abs=1e-6)


def test_a_paced_caller_that_could_not_send_counts_from_its_turn_and_one_who_only_waits_hides_the_stall() -> None:
    paced = report.summary(closed_loop(1, 10, pace=0.1).samples)
    assert paced["requests"] == 100
    assert paced["latency"]["p90"] > 1.5
    assert paced["latency_from_sending"]["p90"] == pytest.approx(SERVICE)
    waiting = report.summary(closed_loop(1, 10, pace=None).samples)
    assert waiting["latency"]["p99"] == pytest.approx(SERVICE)
    assert waiting["latency"]["max"] == pytest.approx(STALL[1] - STALL[0], abs=0.02)


def test_callers_take_turns_within_a_pace() -> None:
    drive = Drive(Stalling())
    run(drive.closed(4, 2, pace=1))
    assert sorted(sample.scheduled for sample in drive.samples) == pytest.approx([0.25 * i for i in range(8)])


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(i) for i in range(1, 1001)]
    found = report.percentiles(values)
    assert found == {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p99.9": 999, "max": 1000}
    assert report.percentiles([7.0])["p50"] == 7
    assert report.percentiles([]) == {}


def test_what_failed_is_counted_and_has_no_latency_and_what_belongs_to_the_warm_up_does_not_count() -> None:
    samples = [
        Sample("generate", "OK", 0.0, 0.0, 9.0),
        Sample("generate", "OK", 1.0, 1.5, 2.0),
        Sample("inpaint", "RESOURCE_EXHAUSTED", 2.0, 2.0, 2.001),
        Sample("inpaint", "OK", 3.0, 3.0, 5.0),
    ]
    found = report.summary(samples, warm_up=1)
    assert (found["requests"], found["codes"]) == (3, {"OK": 2, "RESOURCE_EXHAUSTED": 1})
    assert (found["seconds"], found["per_second"]) == (4.0, 0.5)
    assert found["latency"]["max"] == 2.0
    assert found["latency_from_sending"]["p50"] == 0.5
    assert {task: each["requests"] for task, each in found["tasks"].items()} == {"generate": 1, "inpaint": 1}
    assert report.lines(found)[0] == "3 requests in 4.0 s: 2 OK, 1 RESOURCE_EXHAUSTED; 0.50 good ones a second"


def test_counters_and_histograms_are_told_by_their_growth_and_gauges_by_their_end() -> None:
    before = {"calls_total": 5.0, "wait_seconds_sum": 1.0, "depth": 3.0}
    after = {"calls_total": 9.0, "wait_seconds_sum": 1.0, 'wait_seconds_count{task="x"}': 2.0, "depth": 4.0}
    assert grown(before, after) == {
        "grew": {"calls_total": 4.0, 'wait_seconds_count{task="x"}': 2.0},
        "ended": {"depth": 4.0},
    }


@pytest.mark.parametrize(("text", "said"), [("generat=1", "there is no task 'generat'"), ("inpaint=x", "is no weight")])
def test_a_mix_that_cannot_be_is_refused(text: str, said: str) -> None:
    assert parse("super-resolve=2, generate") == {"super_resolve": 2.0, "generate": 1.0}
    with pytest.raises(InvalidInput, match=said):
        parse(text)
