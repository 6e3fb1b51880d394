"""Workers, their gateway and their autoscaler as a discrete-event simulation: a day takes a minute.

What computes is as in the product: an idle worker takes at most R jobs, those that have begun before others, computes as
many steps as fit into the chunk target at the measured step time of the padded batch, and gives all jobs back. What scales is
KEDA's: Prometheus scrapes, the HPA looks, compares with the threshold, and may change the number of workers as fast as the policy
lets it. A worker that is added can compute after `start` seconds; one that is taken away finishes its bundle.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robust_synthesis.batch_sizes import padded
from robust_synthesis.gateway.policy import Policy

SCRAPE = 15.0
SYNC = 15.0
"""Of the HPA."""
TOLERANCE = 0.1
"""Of the HPA: a ratio this close to one changes nothing."""
RECENT = 60.0
"""That a job which was turned away counts as offered, as in gateway/load.py."""


@dataclass(frozen=True)
class Step:
    """At most `pods` or `percent` of the workers more, or fewer, within `period` seconds; the greater counts."""

    pods: int
    percent: float
    period: float

    def most(self, workers: int) -> int:
        return max(self.pods, math.ceil(workers * self.percent / 100))


@dataclass(frozen=True)
class Scaling:
    """What a ScaledObject says."""

    threshold: float
    """Image-steps of a worker."""
    least: int
    most: int
    up: Step
    down: Step
    stabilisation: float
    """Seconds: fewer workers only if none of the wishes of so long was for more."""
    cooldown: float
    """Seconds without anything offered before the last worker goes, where `least` is none."""

    @classmethod
    def read(cls, path: Path) -> Scaling:
        spec = yaml.safe_load(path.read_text())["spec"]
        (trigger,) = spec["triggers"]
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        return cls(
            threshold=float(trigger["metadata"]["threshold"]),
            least=spec["minReplicaCount"],
            most=spec["maxReplicaCount"],
            up=_step(behavior["scaleUp"]["policies"]),
            down=_step(behavior["scaleDown"]["policies"]),
            stabilisation=behavior["scaleDown"]["stabilizationWindowSeconds"],
            cooldown=spec["cooldownPeriod"],
        )


def _step(policies: Iterable[Mapping[str, Any]]) -> Step:
    found = {policy["type"]: policy for policy in policies}
    (period,) = {policy["periodSeconds"] for policy in found.values()}
    return Step(found.get("Pods", {}).get("value", 0), found.get("Percent", {}).get("value", 0), period)


@dataclass(frozen=True)
class Machine:
    """What a worker does."""

    step_seconds: Mapping[int, float]
    """Of a batch, by its padded size."""
    size: int
    """Side of the pictures, pixels."""
    between: float = 0.006
    """Seconds from the end of a bundle to the beginning of the next (docs/workers.md)."""
    start: float = 60.0
    """Seconds from the wish for a worker to its first bundle."""

    def largest(self, jobs: int) -> int:
        return min(Policy().largest(self.size, jobs), max(self.step_seconds))

    def steps(self, batch: int) -> int:
        """Of a bundle."""
        return max(1, round(Policy().chunk_target(self.size) / self.step_seconds[padded(batch, self.step_seconds)]))

    @property
    def most_steps(self) -> float:
        """Evaluations a second with full batches and nothing between them."""
        return max(size / seconds for size, seconds in self.step_seconds.items())

    @property
    def unit(self) -> float:
        """Image-steps of one evaluation."""
        return (self.size / 64) ** 2


@dataclass
class Job:
    arrived: float
    left: int
    begun: float | None = None


@dataclass
class Trace:
    """Of a day, at every look of the HPA; and of all jobs."""

    times: list[float] = field(default_factory=list)
    offered: list[float] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    """Seconds of workers since the last look."""
    paid: list[float] = field(default_factory=list)
    """As `busy`, of all workers that there were, those that start among them."""
    waits: list[tuple[float, float]] = field(default_factory=list)
    """Arrival, and seconds to the first bundle."""
    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    most_jobs: int = 0

    @property
    def utilisation(self) -> float:
        return sum(self.busy) / sum(self.paid)

    @property
    def worker_hours(self) -> float:
        return sum(self.paid) / 3600

    @property
    def changes(self) -> int:
        """Of the number of workers."""
        return sum(a != b for a, b in itertools.pairwise(self.wanted))

    def wait(self, share: float) -> float:
        """Seconds that this share of the jobs did not exceed."""
        ordered = sorted(seconds for _, seconds in self.waits)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Hpa:
    """How many workers, at each look."""

    def __init__(self, scaling: Scaling, workers: int) -> None:
        self._scaling = scaling
        self.workers = workers
        self._changes: deque[tuple[float, int]] = deque()
        self._wishes: deque[tuple[float, int]] = deque()
        self._idle_since: float | None = None

    def look(self, now: float, offered: float) -> int:
        scaling = self._scaling
        if offered > 0:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        if self.workers == 0:
            self._set(now, 1 if offered > 0 else 0)  # KEDA itself, from none to one
            return self.workers
        if scaling.least == 0 and self._idle_since is not None and now - self._idle_since >= scaling.cooldown:
            self._set(now, 0)
            return 0
        ratio = offered / (scaling.threshold * self.workers)
        wish = self.workers if abs(ratio - 1) <= TOLERANCE else math.ceil(offered / scaling.threshold)
        wish = max(1, scaling.least, min(scaling.most, wish))
        self._wishes.append((now, wish))
        while self._wishes[0][0] < now - scaling.stabilisation:
            self._wishes.popleft()
        if wish > self.workers:
            base = self.workers - self._changed(now, scaling.up.period, +1)
            self._set(now, min(wish, base + scaling.up.most(base)))
        elif wish < self.workers:
            highest = max(wish for _, wish in self._wishes)
            base = self.workers + self._changed(now, scaling.down.period, -1)
            self._set(now, min(self.workers, max(highest, base - scaling.down.most(base))))
        return self.workers

    def _changed(self, now: float, period: float, sign: int) -> int:
        """Workers that were added (+1) or taken away (-1) within the period."""
        while self._changes and self._changes[0][0] <= now - 1800:
            self._changes.popleft()
        return sum(sign * change for time, change in self._changes if time > now - period and sign * change > 0)

    def _set(self, now: float, workers: int) -> None:
        if workers != self.workers:
            self._changes.append((now, workers - self.workers))
            self.workers = workers


class Cluster:
    """One run."""

    def __init__(self, machine: Machine, scaling: Scaling, *, workers: int = 1, queue_seconds: float = 24.0) -> None:
        """`queue_seconds` of the workers' time is what the gateways let in (docs/configuration.md)."""
        self._machine = machine
        self._hpa = Hpa(scaling, workers)
        self._queue_seconds = queue_seconds
        self._now = 0.0
        self._events: list[tuple[float, int, str, Any]] = []
        self._order = itertools.count()
        self._waiting: deque[Job] = deque()
        self._idle = workers
        self._ready = workers
        self._starting: list[int] = []
        """Numbers of workers that cannot compute yet; the youngest is the last."""
        self._leaving = 0
        self._left = 0
        """Evaluations of all jobs."""
        self._open = 0
        self._refused: deque[tuple[float, int]] = deque()
        self._scraped = 0.0
        self._busy = self._paid = self._paid_at = 0.0
        self.trace = Trace()

    def run(self, arrivals: Iterable[float], evaluations: int, seconds: float) -> Trace:
        """Jobs of so many evaluations arrive at these times, in order; ends after `seconds` and once all are done."""
        times = iter(arrivals)
        self._next(times)
        self._at(0.0, "scrape", None)
        self._at(SCRAPE / 2, "look", None)  # half-way between two scrapes on average
        while self._events:
            self._now, _, what, data = heapq.heappop(self._events)
            if what == "arrive":
                self._arrive(evaluations)
                self._next(times)
            elif what == "bundle":
                self._done(*data)
            elif what == "start":
                self._started(data)
            elif what == "scrape":
                self._scraped = self._offered()
                if self._now < seconds or self._open:
                    self._at(self._now + SCRAPE, "scrape", None)
            elif what == "look":
                self._look()
                if self._now < seconds or self._open:
                    self._at(self._now + SYNC, "look", None)
        return self.trace

    def _next(self, times: Iterable[float]) -> None:
        for time in times:
            self._at(time, "arrive", None)
            return

    def _at(self, time: float, what: str, data: Any) -> None:
        heapq.heappush(self._events, (time, next(self._order), what, data))

    def _arrive(self, evaluations: int) -> None:
        room = self._queue_seconds * max(1, self._ready) * self._machine.most_steps
        if self._ready and self._left + evaluations > room and self._open:
            self._refused.append((self._now, evaluations))
            self.trace.refused += 1
            return
        self._left += evaluations
        self._open += 1
        self.trace.most_jobs = max(self.trace.most_jobs, self._open)
        self._waiting.append(Job(self._now, evaluations))
        self._assign()

    def _assign(self) -> None:
        """Idle workers share what waits."""
        machine = self._machine
        while self._idle and self._waiting:
            share = math.ceil(len(self._waiting) / self._idle)
            batch = [self._waiting.popleft() for _ in range(min(machine.largest(share), len(self._waiting)))]
            for job in batch:
                if job.begun is None:
                    job.begun = self._now
                    self.trace.waits.append((job.arrived, self._now - job.arrived))
            steps = min(machine.steps(len(batch)), max(job.left for job in batch))
            seconds = steps * machine.step_seconds[padded(len(batch), machine.step_seconds)]
            self._idle -= 1
            self._at(self._now + seconds + machine.between, "bundle", (batch, steps, seconds))

    def _done(self, batch: Sequence[Job], steps: int, seconds: float) -> None:
        self._busy += seconds
        for job in reversed(batch):
            did = min(steps, job.left)
            job.left -= did
            self._left -= did
            if job.left:
                self._waiting.appendleft(job)  # who has begun goes on first
            else:
                self._open -= 1
                self.trace.latencies.append(self._now - job.arrived)
        if self._leaving:
            self._pay()
            self._leaving -= 1
        else:
            self._idle += 1
        self._assign()

    def _offered(self) -> float:
        while self._refused and self._refused[0][0] < self._now - RECENT:
            self._refused.popleft()
        return (self._left + sum(work for _, work in self._refused)) * self._machine.unit

    def _look(self) -> None:
        self._pay()
        trace = self.trace
        trace.times.append(self._now)
        trace.offered.append(self._scraped)
        trace.ready.append(self._ready)
        trace.busy.append(self._busy)
        trace.paid.append(self._paid)
        self._busy = self._paid = 0.0
        before = self._hpa.workers
        wanted = self._hpa.look(self._now, self._scraped)
        trace.wanted.append(wanted)
        for _ in range(wanted - before):
            number = next(self._order)
            self._starting.append(number)
            self._at(self._now + self._machine.start, "start", number)
        for _ in range(before - wanted):
            self._take_away()

    def _take_away(self) -> None:
        if self._starting:
            self._starting.pop()
            return
        self._ready -= 1
        if self._idle:
            self._idle -= 1
        else:
            self._leaving += 1

    def _started(self, number: int) -> None:
        if number in self._starting:  # else it was taken away before
            self._pay()
            self._starting.remove(number)
            self._ready += 1
            self._idle += 1
            self._assign()

    def _pay(self) -> None:
        self._paid += (self._now - self._paid_at) * (self._ready + len(self._starting) + self._leaving)
        self._paid_at = self._now


def by_time(pairs: Sequence[tuple[float, float]], every: float, share: float) -> tuple[list[float], list[float]]:
    """Of (time, value): in each interval the value that this share did not exceed."""
    ordered = sorted(pairs)
    times = [time for time, _ in ordered]
    found: tuple[list[float], list[float]] = ([], [])
    begin = 0.0
    while begin < (times[-1] if times else 0):
        part = sorted(value for _, value in ordered[bisect.bisect(times, begin) : bisect.bisect(times, begin + every)])
        if part:
            found[0].append(begin + every / 2)
            found[1].append(part[min(len(part) - 1, int(share * len(part)))])
        begin += every
    return found
