"""How a bundle is chosen for a worker that could take one now."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .backends.base import ModelInfo, Worker
from .fairness import Fairness
from .following import followers
from .group import FIRST_JOBS, Group, Plan, batches
from .lines import Candidate, Lines
from .policy import Policy
from .standing import Standing
from .step_times import StepTimes

SAME_SPEED = 1.5
"""Workers whose step times differ by less than this factor get equal shares."""


@dataclass
class Offer:
    """A worker that takes bundles now."""

    worker: Worker
    models: Sequence[ModelInfo]
    tired: bool

    def serves(self, info: ModelInfo) -> bool:
        return any((own.name, own.version) == (info.name, info.version) for own in self.models)


class Choice:
    """The bundles that could go out at one moment; it changes nothing but the jobs of those that it makes."""

    def __init__(
        self,
        offers: Sequence[Offer],
        now: float,
        policy: Policy,
        times: StepTimes,
        lines: Lines,
        standings: Mapping[str, Standing],
        fairness: Fairness,
    ) -> None:
        self._offers = offers
        self._now = now
        self._policy = policy
        self._times = times
        self._lines = lines
        self._standings = standings
        self._fairness = fairness

    def bundle(self, offer: Offer) -> Plan | None:
        """For a worker that has none, or one and jobs enough for another of full size."""
        group = self._next_group(offer)
        if group is None:
            return None
        standing = self._standings[offer.worker.name]
        share = self._share(group)
        most = group.largest(share)
        if standing.outstanding and share < 2 * most:
            return None
        jobs = group.picked(min(most, share), self._fairness.trial())
        if standing.outstanding and len(jobs) < most:
            return None
        return self._planned(group, group.trimmed(jobs))

    def following(self, offer: Offer) -> Plan | None:
        """The bundle that goes on where the one under way ends, if it is time for it."""
        standing = self._standings[offer.worker.name]
        if len(standing.outstanding) != 1 or self._now < standing.follow_at:
            return None
        (before,) = standing.outstanding
        group = self._group_of(before, offer)
        if group is None or self._speeds(group)[offer.worker.name] < 1:
            return None  # a faster one may take its jobs
        jobs = followers(before, group, self._share(group))
        if jobs is None:
            return None
        for job, steps in zip(before.jobs, before.steps, strict=True):
            if before.goes_on(job, steps):
                job.before, job.ahead = before, steps
        held = {job: job.evaluations(group.info.card) for job in jobs if job.before}
        return self._planned(group, jobs, held=held, ending=sum(map(before.answers_for, before.jobs)) - len(held))

    def _planned(
        self,
        group: Group,
        jobs: Sequence[Candidate],
        *,
        held: Mapping[Candidate, int] | None = None,
        ending: int = 0,
    ) -> Plan:
        standing = self._standings[group.worker.name]
        others_come = standing.expects(group.kind, max(group.waiting, len(jobs)), self._policy, self._now)
        others_come |= ending > len(jobs) - len(held or ()) and ending >= self._policy.ending_share * len(jobs)
        steps = group.steps(jobs, others_come=others_come)
        expected = (group.cost(jobs) or 0.0) * max(steps)
        before = sum(plan.expected for plan in standing.outstanding)
        first_use = self._is_first_use(group, jobs) or any(self._is_first_use(p, p.jobs) for p in standing.outstanding)
        return Plan(
            group.worker,
            group.info,
            group.size,
            jobs,
            steps,
            charges=[group.charge(evaluations) for evaluations in steps],
            at=self._now,
            expected=expected,
            timeout=self._policy.timeout(before + expected, first_use=first_use),
            queued=bool(standing.outstanding),
            held=held or {},
        )

    def _group_of(self, before: Plan, offer: Offer) -> Group | None:
        """The jobs that could follow this bundle; None where others wait for the worker, or where it does not have the model."""
        groups = [group for group in self._groups(offer, queued=False) if group.waiting]
        alike = [group for group in groups if (group.info.version, *group.kind) == (before.info.version, *before.kind)]
        info = next((i for i in offer.models if (i.name, i.version) == (before.info.name, before.info.version)), None)
        if len(groups) > len(alike) or info is None:
            return None
        return Group(
            offer.worker,
            info,
            before.size,
            self._policy,
            self._times,
            self._others(info, offer),
            followed=True,
            lines=[line for each in alike for line in each.lines],
            total=self._lines.unfinished(info.name, info.card, before.size),
        )

    def _next_group(self, offer: Offer) -> Group | None:
        """The worker's group with the job whose turn it is, of those that it does not wait with."""
        standing = self._standings[offer.worker.name]

        def lingers(group: Group) -> bool:
            if standing.outstanding or group.interactive:
                return False
            return self._now < standing.lingers_until(group.kind, group.waiting, self._policy)

        turns = [
            (self._fairness.kind_rank(who[0]), self._fairness.caller_rank(who), job.since, group)
            for group in self._groups(offer, queued=bool(standing.outstanding))
            if not lingers(group)
            for who, line in group.lines
            if (job := next(group.of(line), None)) is not None
        ]
        return min(turns, key=lambda turn: turn[:3])[3] if turns else None

    def _groups(self, offer: Offer, *, queued: bool) -> list[Group]:
        outstanding = self._standings[offer.worker.name].outstanding
        if any(plan.suspect for plan in outstanding):
            return []  # if the worker is lost now, that bundle was the cause
        groups: dict[tuple[str, str, int], Group] = {}
        for info in offer.models:
            others = self._others(info, offer)
            for lines, unfinished in self._lines.of(info.name):
                size = next(job for line in lines.values() for job in line).side(info.card)
                followed = (info.name, info.version) in self._standings[offer.worker.name].holds
                new = Group(offer.worker, info, size, self._policy, self._times, others, queued, followed)
                group = groups.setdefault((info.name, info.version, size), new)
                group.lines += lines.items()
                group.total += unfinished
        return list(groups.values())

    def _others(self, info: ModelInfo, offer: Offer) -> set[str]:
        """Workers that have the classifier, too."""
        return {other.worker.name for other in self._offers if other is not offer and other.serves(info)}

    def _share(self, group: Group) -> int:
        """How many of the group's jobs this worker should have: equal parts, less for one that is much slower.

        One that lost its last bundle gets a single job at first, if there are others.
        """
        if group.others and self._standings[group.worker.name].losses.failures:
            return 1
        speeds = self._speeds(group)
        return math.ceil(group.total * speeds[group.worker.name] / sum(speeds.values()) - 1e-9)

    def _speeds(self, group: Group) -> dict[str, float]:
        """Of the workers that could compute the group, where 1 is the fastest or hardly slower."""
        seconds = {
            offer.worker.name: self._times.cost(offer.worker.name, info, group.size, FIRST_JOBS)
            for offer in self._offers
            for info in offer.models
            if (info.name, info.version) == (group.info.name, group.info.version)
        }
        fastest = min((s for s in seconds.values() if s), default=1.0)
        return {name: 1.0 if not s or s <= SAME_SPEED * fastest else fastest / s for name, s in seconds.items()}

    def _is_first_use(self, kind: Group | Plan, jobs: Sequence[Candidate]) -> bool:
        used = self._standings[kind.worker.name].used
        return any(
            (kind.info.name, kind.info.version, kind.size, size) not in used for size in batches(jobs, kind.info)
        )
