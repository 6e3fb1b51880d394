"""Jobs that could share a bundle of one worker: how many of them should, and for how many steps."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

from ..batch_sizes import padded
from ..bundle import MAX_EVALUATIONS, MAX_JOBS
from .backends.base import ModelInfo, Worker
from .fairness import Fairness, Who
from .lines import Candidate, Line, Status
from .policy import Policy
from .step_times import StepTimes

FIRST_JOBS = 4
"""Of a bundle for a classifier that nothing is known of: it runs a step of so many jobs."""
PADDING = 1.1
"""A bundle leaves jobs to the next where that computes a job more cheaply by this factor."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A bundle to be sent."""

    worker: Worker
    info: ModelInfo
    size: int
    jobs: Sequence[Candidate]
    steps: Sequence[int]
    """Evaluations of each job."""
    charges: Sequence[float]
    """To the caller of each job."""
    at: float
    """When it was made."""
    expected: float
    """Seconds that it should compute."""
    timeout: float
    queued: bool = False
    """Behind another bundle of its worker."""
    held: Mapping[Candidate, int] = field(default_factory=dict)
    """Of one that follows another, the jobs that it has from that, and the evaluations that they have still to do by then."""

    def answers_for(self, job: Candidate) -> bool:
        """Whether what becomes of the bundle concerns the job: not if it was cancelled, or is tried again already."""
        return job.status is Status.IN_FLIGHT and (self is job.plan or self is job.before)

    def goes_on(self, job: Candidate, steps: int) -> bool:
        """Whether so many evaluations of it leave some to do."""
        return self.answers_for(job) and job.evaluations(self.info.card) > steps

    @property
    def suspect(self) -> bool:
        return any(job.suspect for job in self.jobs)

    @property
    def kind(self) -> tuple[str, int]:
        """Classifier and image size."""
        return self.info.name, self.size


@dataclass
class Group:
    """Jobs of one classifier version and image size, as seen from one worker."""

    worker: Worker
    info: ModelInfo
    size: int
    policy: Policy
    times: StepTimes
    others: Set[str] = frozenset()
    """Workers that could compute these jobs too."""
    queued: bool = False
    """Behind a bundle that is outstanding. Jobs that may have caused a loss are left out then: they could take it along."""
    followed: bool = False
    """Whether the worker holds jobs, so that its next bundle can be sent before the end of this one."""
    lines: list[tuple[Who, Line]] = field(default_factory=list)
    total: int = 0
    """Of its jobs, also those in flight."""
    known: dict[tuple[int, bool], float | None] = field(default_factory=dict)
    """Seconds of a step, as far as they were looked up."""

    @property
    def kind(self) -> tuple[str, int]:
        """Classifier and image size."""
        return self.info.name, self.size

    @property
    def interactive(self) -> bool:
        """Whether a job among those that wait is."""
        return any(interactive and any(self.of(line)) for (interactive, _), line in self.lines)

    @cached_property
    def waiting(self) -> int:
        """How many of its jobs could go now, counted up to the most that a bundle can have."""
        jobs = itertools.chain.from_iterable(self.of(line) for _, line in self.lines)
        return sum(1 for _ in itertools.islice(jobs, MAX_JOBS))

    def accepts(self, job: Candidate) -> bool:
        version = self.info.current if job.version is None else job.version == self.info.version
        elsewhere = self.worker.name in job.avoid and not self.others <= job.avoid
        return version and not elsewhere and not (self.queued and job.suspect)

    def of(self, line: Line) -> Iterator[Candidate]:
        return (job for job in line if self.accepts(job))

    def picked(self, most: int, fairness: Fairness) -> list[Candidate]:
        """Up to `most` jobs in the order of their turns, which are charged to `fairness`."""
        steps = self.steps_within(self._time(padded(most, self.info.batch_sizes)), jobs=most)
        jobs = {
            who: heapq.merge(*(self.of(line) for owner, line in self.lines if owner == who), key=_place)
            for who in {who for who, _ in self.lines}
        }
        turns: dict[bool, list[tuple[tuple[float, int], Who]]] = {False: [], True: []}
        for who in jobs:
            heapq.heappush(turns[who[0]], (fairness.caller_rank(who), who))
        picked: list[Candidate] = []
        upload = 0
        while len(picked) < most and any(turns.values()):
            kind = min((kind for kind in turns if turns[kind]), key=fairness.kind_rank)
            _, who = heapq.heappop(turns[kind])
            job = next((job for job in jobs[who] if job.limit > len(picked)), None)
            if job is None:
                continue
            upload += job.upload
            if picked and upload > self.policy.bundle_bytes:
                break
            picked.append(job)
            most = min(most, job.limit)
            fairness.charge(who, self.charge(min(steps, job.evaluations(self.info.card))))
            heapq.heappush(turns[kind], (fairness.caller_rank(who), who))
        return picked

    def largest(self, share: int) -> int:
        """R for a worker that should have `share` jobs: more where a step of twice as many takes hardly longer, and at most what
        computes a step within two chunk targets.
        """
        most, longest = self.policy.largest(self.size, share), 2 * self.policy.chunk_target(self.size)
        if share > most:
            most = self.times.fullest(self.worker.name, self.info, self.size, most)
        while most > 1 and (self._time(most, cheapest=True) or 0.0) > longest:
            most //= 2
        return most

    def trimmed(self, jobs: list[Candidate]) -> list[Candidate]:
        """As many as are computed most cheaply: a batch that needs much padding costs more than one without its last jobs."""
        costs = [self.cost(jobs[:n], cheapest=True) for n in range(1, len(jobs) + 1)]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):
            return jobs[:FIRST_JOBS]
        longest = 2 * self.policy.chunk_target(self.size)
        per_job = {n: cost / n for n, cost in enumerate(known, 1) if n == 1 or cost <= longest}
        return jobs[: max(n for n, cost in per_job.items() if cost <= PADDING * min(per_job.values()))]

    def steps(self, jobs: Sequence[Candidate], *, others_come: bool = False) -> list[int]:
        """Evaluations of each job: as many as fit the chunk target, or all where hardly any would remain; fewer for frames, and
        where others could join or will: that costs nothing where the next bundle follows at once.
        """
        interactive = any(job.interactive for job in jobs)
        others_come = others_come and not any(job.frames for job in jobs)  # which are at even distances
        cost = self.cost(jobs)
        k = self.steps_within(cost, jobs=len(jobs), interactive=interactive)
        if cost is not None and (self.total > 1 or others_come or self.followed):
            longest = max(job.all_evaluations(self.info.card) for job in jobs)
            short = self.followed and self.total > 1
            parts = self.policy.followed_parts if short else self.policy.shared_parts
            shortest = self.policy.shortest_followed if short else self.policy.shortest_part
            if self.followed:
                shortest = max(shortest, (4 if short else 10) * self._way(len(jobs)))
            k = min(k, max(math.ceil(longest / parts), int(shortest / max(cost, 1e-9))))
            if others_come:
                pause = 4 * self._way(len(jobs)) if self.followed else 2 * self._overhead(len(jobs))
                k = min(k, max(1, int(max(self.policy.shortest_part, pause) / max(cost, 1e-9))))
        # Where bundles have one step, one job that takes its last evaluation, too, would make the others wait as long again.
        ends = k > 1 or all(job.evaluations(self.info.card) == k + 1 for job in jobs)
        return [self._part(job, k, ends) for job in jobs]

    def _part(self, job: Candidate, k: int, ends: bool) -> int:
        left, stride = job.evaluations(self.info.card), job.stride(self.info.card)
        # The last evaluation is no step, and goes with the one before it.
        if stride <= k:
            return left if left <= stride + 1 else stride
        return left if left - k < k / 4 or (left == k + 1 and ends) else k

    def steps_within(self, cost: float | None, *, jobs: int, interactive: bool = False) -> int:
        """How many steps of `cost` seconds fit the chunk target of so many jobs; one where the cost is not known."""
        target = self.policy.chunk_target(self.size, self._overhead(jobs))
        if interactive:
            target = self.policy.interactive_chunk
        return 1 if cost is None else int(min(max(target / max(cost, 1e-9), 1), MAX_EVALUATIONS))

    def _way(self, jobs: int) -> float:
        return self.times.way(self.worker.name, self.info.name, self.size, jobs)

    def _overhead(self, jobs: int) -> float:
        """Seconds of such a bundle beside its steps; behind another one they are no time of the worker."""
        return 0.0 if self.queued else self.times.overhead(self.worker.name, self.info.name, self.size, jobs)

    def cost(self, jobs: Sequence[Candidate], *, cheapest: bool = False) -> float | None:
        """Seconds of one step of these jobs; None where nothing is known."""
        seconds = [self._time(size, cheapest=cheapest) for size in batches(jobs, self.info)]
        return None if None in seconds else math.fsum(s for s in seconds if s is not None)

    def charge(self, evaluations: int) -> float:
        """What a caller is charged for them, in evaluations at 64 pixels."""
        return evaluations * (self.size / 64) ** 2

    def _time(self, batch: int, *, cheapest: bool = False) -> float | None:
        if (batch, cheapest) not in self.known:
            time = self.times.cost if cheapest else self.times.step
            self.known[batch, cheapest] = time(self.worker.name, self.info, self.size, batch)
        return self.known[batch, cheapest]


def _place(job: Candidate) -> tuple[bool, int]:
    return not job.tried, job.since


def batches(jobs: Sequence[Candidate], info: ModelInfo) -> list[int]:
    """The batches, with their padding, that a worker makes of them: `exact` jobs alone, the others together."""
    exact = sum(job.spec.exact for job in jobs)
    return [1] * exact + [padded(len(jobs) - exact, info.batch_sizes)] * (exact < len(jobs))
