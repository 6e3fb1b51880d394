"""Which jobs form the next bundle of which worker, and how many steps it runs: policy, without tensors, clock or I/O.

Jobs that share a classifier version and an image size share bundles, whatever their tasks. A bundle has at most R jobs, fewer
where several workers share them, where padding would cost too much, or where one step would take too long; its steps
are chosen so that it computes for the chunk target. A worker has one bundle outstanding; two where it has 2R jobs to itself, or
where it holds the jobs of the one under way and that is about to end.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Sequence

from ..bundle import PROTOCOL
from .backends.base import Worker
from .choice import Choice, Offer
from .fairness import Fairness, Who
from .group import Plan
from .lines import Candidate, Lines, Status
from .policy import Policy
from .standing import Ended, Standing, Trouble
from .step_times import StepTimes

DEFAULT = Policy()


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

    def resume(self, plan: Plan, job: Candidate, remaining: int) -> None:
        """A bundle advanced it; it waits for the next, if it is not in that already."""
        job.remaining, job.lost_alone, job.limit = remaining, 0, min(2 * job.limit, job.most)
        job.before, job.ahead = None, 0
        job.avoid.clear()
        if job.plan is plan:
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
        choice = Choice(offers, now, self.policy, self.times, self._lines, self._standings, self._fairness)
        plans = []
        for outstanding in (0, 1):
            for offer in sorted(offers, key=self._slowness):
                if len(self._standings[offer.worker.name].outstanding) == outstanding:
                    plan = choice.bundle(offer) or choice.following(offer)
                    if plan is not None:
                        self._send(plan)
                        plans.append(plan)
        self._fairness.settle(self._waiting(offers))
        return plans

    def answered(
        self,
        plan: Plan,
        batches: Sequence[tuple[int, int, float]],
        now: float,
        *,
        seconds: float = 0.0,
        holds: bool = False,
    ) -> None:
        """A reply has come, with the (size, steps, seconds) that it measured, after so many seconds in the worker. Its jobs are
        the caller's to go on with; where `holds`, the worker keeps where they stand.
        """
        model = plan.info.name, plan.info.version
        standing = self.unsent(plan, now)
        standing.answered(model)
        (standing.holds.add if holds else standing.holds.discard)(model)
        standing.used |= {(*model, plan.size, size) for size, _, _ in batches}
        self.times.learn(plan.worker.name, plan.info.name, plan.size, batches)
        if batches and not plan.queued:
            steps = sum(taken for _, _, taken in batches)
            overhead, way = (max(0.0, now - plan.at - taken) for taken in (steps, max(steps, seconds)))
            self.times.learn_overhead(plan.worker.name, plan.info.name, plan.size, len(plan.jobs), overhead, way)

    def ended(self, plan: Plan, jobs: int, now: float) -> None:
        """So many jobs of the bundle ended with it, not counting classifications."""
        could = sum(job.spec.descends for job in plan.jobs)
        self._standings[plan.worker.name].ended = Ended(now, plan.kind, could, jobs, plan.expected)

    def lost(self, plan: Plan, now: float, message: str) -> list[Candidate]:
        """The worker may have died of it: its jobs are tried again in smaller bundles. Returns those that are given up."""
        self.unsent(plan, now).lost(self.policy.lost, now, self._rng.random(), now - plan.at, message)
        for job in plan.jobs:
            if plan.answers_for(job):
                job.avoid.add(plan.worker.name)
        return [job for job in _backwards(plan) if not self.suspect(job, len(plan.jobs))]

    def unavailable(self, plan: Plan, now: float, message: str) -> None:
        """It did not run. One that followed another may have been one too many for the worker, which is not away for that."""
        standing = self.unsent(plan, now)
        if plan.held:
            standing.alone_until = now + self.policy.alone
        else:
            standing.absent.again(self.policy.unavailable, now, self._rng.random(), message)
        for job in _backwards(plan):
            self.retry(job)

    def refused(self, plan: Plan, now: float, message: str) -> None:
        """The worker does not understand us, or we it: this classifier version is not asked of it for a while."""
        trouble = self.unsent(plan, now).refused.setdefault((plan.info.name, plan.info.version), Trouble())
        trouble.again(self.policy.refused, now, self._rng.random(), message)
        for job in _backwards(plan):
            self.retry(job)

    def forgotten(self, plan: Plan, job: Candidate, now: float) -> None:
        """The worker does not have what was left with it of the job, which is sent again."""
        if job in plan.held:
            self._standings[plan.worker.name].alone_until = now + self.policy.alone
        self.retry(job)

    def unsent(self, plan: Plan, now: float) -> Standing:
        """It is no longer outstanding."""
        standing = self._standings[plan.worker.name]
        standing.outstanding = [other for other in standing.outstanding if other is not plan]
        for first in standing.outstanding[:1]:
            standing.follow_at = self._follow_at(first, now - self._way(first) / 2)
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
        """The size of a full batch, and what the job will still compute as its share of one; None where nothing is known."""
        for worker in workers:
            for info in worker.models():
                if info.name == job.model and (info.current if job.version is None else info.version == job.version):
                    side = job.side(info.card)
                    most = self.times.fullest(worker.name, info, side, self.policy.largest(side, 1))
                    step = self.times.cost(worker.name, info, side, most)
                    if step is not None:
                        return most, job.evaluations(info.card) * step / most
        return None

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

    # Bookkeeping.

    def _send(self, plan: Plan) -> None:
        standing = self._standings[plan.worker.name]
        standing.in_a_row = standing.in_a_row + 1 if plan.held else 0
        if not standing.outstanding:
            standing.follow_at = self._follow_at(plan, plan.at)
        standing.outstanding.append(plan)
        for job, charge in zip(plan.jobs, plan.charges, strict=True):
            if job.status is Status.WAITING:
                self._lines.send(job)
            job.plan = plan
            self._fairness.charge(job.who, charge)
            if job.version is None:
                for sibling in job.siblings or [job]:
                    sibling.version = plan.info.version

    def _follow_at(self, plan: Plan, began: float) -> float:
        """When the bundle behind this one should go out, on half of the way there and back: never where nothing is held."""
        standing = self._standings[plan.worker.name]
        holds = (plan.info.name, plan.info.version) in standing.holds
        if not holds or not plan.expected or standing.in_a_row >= self.policy.in_a_row:
            return math.inf
        lead = max(self.policy.shortest_lead, self.policy.lead * plan.expected) + self._way(plan) / 2
        return max(standing.alone_until, began + plan.expected - min(lead, plan.expected / 2))

    def _way(self, plan: Plan) -> float:
        return self.times.way(plan.worker.name, plan.info.name, plan.size, len(plan.jobs))

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
    """The jobs that it answers for, last first, because each goes to the head of its line."""
    return [job for job in reversed(plan.jobs) if plan.answers_for(job)]
