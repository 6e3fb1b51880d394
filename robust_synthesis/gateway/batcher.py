"""Which jobs form the next bundle of which worker, and how many steps it runs: policy, without tensors, clock or I/O.

Jobs that share a classifier version and an image size share bundles, whatever their tasks. A bundle has at most R jobs, fewer
where several workers share them, where padding would cost too much, or where one step would take too long; its steps
are chosen so that it computes for the chunk target. A worker has one bundle outstanding, two where it has 2R jobs to itself.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ..bundle import PROTOCOL
from .backends.base import ModelInfo, Worker
from .fairness import Fairness, Who
from .group import FIRST_JOBS, Group, Plan, batches
from .lines import Candidate, Lines, Status
from .policy import Policy
from .standing import Ended, Standing, Trouble
from .step_times import StepTimes

DEFAULT = Policy()
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


class Batcher:
    """Keeps the waiting jobs and what it learns of the workers; `plan` says what to send now."""

    def __init__(self, policy: Policy = DEFAULT, rng: random.Random | None = None) -> None:
        self.policy = policy
        self.times = StepTimes()
        self._rng = rng or random.Random()
        self._fairness = Fairness(policy.interactive_weight)
        self._lines = Lines()
        self._standings: defaultdict[str, Standing] = defaultdict(Standing)

    # Jobs come, go on and leave.

    def add(self, job: Candidate) -> None:
        self._lines.enter(job)

    def resume(self, job: Candidate, remaining: int) -> None:
        """A bundle advanced it; it waits for the next."""
        job.remaining, job.lost_alone, job.limit = remaining, 0, min(2 * job.limit, job.most)
        job.avoid.clear()
        self._lines.wait(job)

    def retry(self, job: Candidate, *, limit: int | None = None) -> None:
        """A bundle did not advance it; it is first to go again, for now in a bundle of at most `limit` jobs."""
        job.limit = min(job.limit, limit or job.most)
        self._lines.wait(job, first=True)
        family = job.siblings or [job]
        if all(sibling.remaining is None and sibling.status is Status.WAITING for sibling in family):
            for sibling in family:  # none has begun, so they may begin with another version
                sibling.version = None

    def shrink(self, job: Candidate, jobs: int) -> bool:
        """The worker had too little memory for it in a bundle of so many jobs. False where it was alone, and is given up."""
        if jobs == 1:
            self.remove(job)
            return False
        job.most = jobs // 2
        self.retry(job)
        return True

    def suspect(self, job: Candidate, jobs: int) -> bool:
        """It was lost in a bundle of so many jobs. False where it has been lost alone too often, and is given up."""
        job.lost_alone += jobs == 1
        if job.lost_alone >= self.policy.patience:
            self.remove(job)
            return False
        self.retry(job, limit=max(1, jobs // 2))
        return True

    def remove(self, job: Candidate) -> None:
        """It is finished, failed or cancelled."""
        self._lines.drop(job)

    # Bundles go out and come back, or do not.

    def plan(self, workers: Sequence[Worker], now: float) -> list[Plan]:
        """The bundles to send now; they count as outstanding from here on."""
        self._forget_all_but({worker.name for worker in workers})
        offers = self._offers(workers, now)
        plans = []
        for outstanding in (0, 1):
            for offer in sorted(offers, key=self._slowness):
                if len(self._standings[offer.worker.name].outstanding) == outstanding:
                    plan = self._bundle(offer, offers, now)
                    if plan is not None:
                        self._send(plan)
                        plans.append(plan)
        self._fairness.settle(self._waiting(offers))
        return plans

    def answered(self, plan: Plan, batches: Sequence[tuple[int, int, float]], now: float) -> None:
        """A reply has come, with the (bucket, steps, seconds) that it measured. Its jobs are the caller's to go on with."""
        model = plan.info.name, plan.info.version
        standing = self.unsent(plan)
        standing.answered(model)
        standing.used |= {(*model, plan.size, size) for size, _, _ in batches}
        self.times.learn(plan.worker.name, plan.info.name, plan.size, batches)
        if batches and not plan.queued:
            overhead = max(0.0, now - plan.at - sum(seconds for _, _, seconds in batches))
            self.times.learn_overhead(plan.worker.name, plan.info.name, plan.size, len(plan.jobs), overhead)

    def ended(self, plan: Plan, jobs: int, now: float) -> None:
        """So many jobs of the bundle ended with it, not counting classifications."""
        could = sum(job.spec.descends for job in plan.jobs)
        self._standings[plan.worker.name].ended = Ended(now, plan.kind, could, jobs, plan.expected)

    def lost(self, plan: Plan, now: float, message: str) -> list[Candidate]:
        """The worker may have died of it: its jobs are tried again in smaller bundles. Returns those that are given up."""
        self.unsent(plan).lost(self.policy.lost, now, self._rng.random(), now - plan.at, message)
        for job in plan.jobs:
            job.avoid.add(plan.worker.name)
        return [job for job in _backwards(plan) if not self.suspect(job, len(plan.jobs))]

    def unavailable(self, plan: Plan, now: float, message: str) -> None:
        """It did not run."""
        self.unsent(plan).absent.again(self.policy.unavailable, now, self._rng.random(), message)
        for job in _backwards(plan):
            self.retry(job)

    def refused(self, plan: Plan, now: float, message: str) -> None:
        """The worker does not understand us, or we it: this classifier version is not asked of it for a while."""
        trouble = self.unsent(plan).refused.setdefault((plan.info.name, plan.info.version), Trouble())
        trouble.again(self.policy.refused, now, self._rng.random(), message)
        for job in _backwards(plan):
            self.retry(job)

    def unsent(self, plan: Plan) -> Standing:
        """It is no longer outstanding."""
        standing = self._standings[plan.worker.name]
        standing.outstanding = [other for other in standing.outstanding if other is not plan]
        return standing

    def next_change(self, now: float) -> float | None:
        """When `plan` could have something new to say though nothing has happened."""
        returns = (standing.returns(now, self.policy) for standing in self._standings.values())
        return min(itertools.chain.from_iterable(returns), default=None)

    def obstacle(self, job: Candidate, workers: Sequence[Worker], now: float) -> str:
        """Why no worker can take the job; empty where one can, and it waits for its turn."""
        reasons = []
        for worker in workers:
            standing = self._standings[worker.name]
            for info in worker.models():
                if info.name == job.model and (info.current if job.version is None else info.version == job.version):
                    if info.protocol != PROTOCOL:
                        reasons.append(f"it speaks bundle protocol {info.protocol}, the gateway {PROTOCOL}.")
                    elif worker.up and not standing.away(now) and not standing.refuses((info.name, info.version), now):
                        return ""
                    else:
                        reasons.append(standing.message((info.name, info.version)))
        wanted = f"{job.model} {job.version or ''}".strip()
        return f"no worker with {wanted} is up" + next((f": {reason}" for reason in reasons if reason), ".")

    def seconds(self, job: Candidate, workers: Sequence[Worker]) -> tuple[int, float] | None:
        """Image size, and what the job will still compute as its share of a full batch; None where nothing is known."""
        for worker in workers:
            for info in worker.models():
                if info.name == job.model and (info.current if job.version is None else info.version == job.version):
                    side = job.side(info.card)
                    most = self.policy.largest(side, 1)
                    step = self.times.cost(worker.name, info, side, most)
                    if step is not None:
                        return side, job.evaluations(info.card) * step / most
        return None

    # How a bundle is chosen.

    def _offers(self, workers: Sequence[Worker], now: float) -> list[Offer]:
        """What each worker can be asked for now."""
        offers = []
        for worker in workers:
            standing = self._standings[worker.name]
            if worker.up and not standing.away(now):
                models = [info for info in worker.models() if info.protocol == PROTOCOL]
                usable = [info for info in models if not standing.refuses((info.name, info.version), now)]
                offers.append(Offer(worker, usable, now < standing.tired_until))
        fresh = {(info.name, info.version) for offer in offers if not offer.tired for info in offer.models}
        for offer in offers:
            if offer.tired:
                offer.models = [info for info in offer.models if (info.name, info.version) not in fresh]
        return offers

    def _bundle(self, offer: Offer, offers: Sequence[Offer], now: float) -> Plan | None:
        group = self._next_group(offer, offers, now)
        if group is None:
            return None
        standing = self._standings[offer.worker.name]
        share = self._share(group, offers)
        most = group.largest(share)
        if standing.outstanding and share < 2 * most:
            return None
        jobs = group.picked(min(most, share), self._fairness.trial())
        if standing.outstanding and len(jobs) < most:
            return None
        jobs = group.trimmed(jobs)
        others_come = standing.expects(group.kind, group.waiting, self.policy, now)
        steps = group.steps(jobs, others_come=others_come)
        charges = [group.charge(evaluations) for evaluations in steps]
        expected = (group.cost(jobs) or 0.0) * max(steps)
        before = sum(plan.expected for plan in standing.outstanding)
        timeout = self.policy.timeout(before + expected, first_use=self._is_first_use(group, jobs))
        return Plan(offer.worker, group.info, group.size, jobs, steps, charges, now, expected, timeout, group.queued)

    def _next_group(self, offer: Offer, offers: Sequence[Offer], now: float) -> Group | None:
        """The worker's group with the job whose turn it is, of those that it does not wait with."""
        standing = self._standings[offer.worker.name]

        def lingers(group: Group) -> bool:
            if standing.outstanding or group.interactive:
                return False
            return now < standing.lingers_until(group.kind, group.waiting, self.policy)

        turns = [
            (self._fairness.kind_rank(who[0]), self._fairness.caller_rank(who), job.since, group)
            for group in self._groups(offer, offers)
            if not lingers(group)
            for who, line in group.lines
            if (job := next(group.of(line), None)) is not None
        ]
        return min(turns, key=lambda turn: turn[:3])[3] if turns else None

    def _groups(self, offer: Offer, offers: Sequence[Offer]) -> list[Group]:
        outstanding = self._standings[offer.worker.name].outstanding
        if any(plan.suspect for plan in outstanding):
            return []  # if the worker is lost now, that bundle was the cause
        groups: dict[tuple[str, str, int], Group] = {}
        for info in offer.models:
            others = {other.worker.name for other in offers if other is not offer and other.serves(info)}
            for lines, unfinished in self._lines.of(info.name):
                size = next(job for line in lines.values() for job in line).side(info.card)
                new = Group(offer.worker, info, size, self.policy, self.times, others, bool(outstanding))
                group = groups.setdefault((info.name, info.version, size), new)
                group.lines += lines.items()
                group.total += unfinished
        return list(groups.values())

    def _share(self, group: Group, offers: Sequence[Offer]) -> int:
        """How many of the group's jobs this worker should have: equal parts, less for one that is much slower.

        One that lost its last bundle gets a single job at first, if there are others.
        """
        if group.others and self._standings[group.worker.name].losses.failures:
            return 1
        seconds = {
            offer.worker.name: self.times.cost(offer.worker.name, info, group.size, FIRST_JOBS)
            for offer in offers
            for info in offer.models
            if (info.name, info.version) == (group.info.name, group.info.version)
        }
        fastest = min((s for s in seconds.values() if s), default=1.0)
        speeds = {name: 1.0 if not s or s <= SAME_SPEED * fastest else fastest / s for name, s in seconds.items()}
        return math.ceil(group.total * speeds[group.worker.name] / sum(speeds.values()) - 1e-9)

    def _is_first_use(self, group: Group, jobs: Sequence[Candidate]) -> bool:
        used = self._standings[group.worker.name].used
        return any((group.info.name, group.info.version, group.size, size) not in used for size in batches(jobs))

    # Bookkeeping.

    def _send(self, plan: Plan) -> None:
        self._standings[plan.worker.name].outstanding.append(plan)
        for job, charge in zip(plan.jobs, plan.charges, strict=True):
            self._lines.send(job)
            self._fairness.charge(job.who, charge)
            if job.version is None:
                for sibling in job.siblings or [job]:
                    sibling.version = plan.info.version

    def _waiting(self, offers: Sequence[Offer]) -> set[Who]:
        """Who has jobs left that a worker could have been given."""
        models = [info for offer in offers for info in offer.models]
        served: set[tuple[str, str | None]] = {(info.name, info.version) for info in models}
        return self._lines.waiting(served | {(info.name, None) for info in models if info.current})

    def _slowness(self, offer: Offer) -> float:
        steps = [self.times.step(offer.worker.name, info, info.card.size, 1) for info in offer.models]
        return min((step for step in steps if step is not None), default=0.0)

    def _forget_all_but(self, workers: set[str]) -> None:
        for name in [name for name in self._standings if name not in workers]:
            if not self._standings[name].outstanding:
                del self._standings[name]
                self.times.forget(name)


def _backwards(plan: Plan) -> list[Candidate]:
    """The jobs that are not cancelled, last first, because each goes to the head of its line."""
    return [job for job in reversed(plan.jobs) if job.status is Status.IN_FLIGHT]
