"""Which jobs form the bundle that goes to a worker just before the end of the one under way, so that it computes on at once.

The jobs of the one under way go on from where the worker holds them, and those that wait join them. Nobody is passed over: where
not all of them fit, where most jobs end, whose callers may send others, or where one is in a hurry, the next bundle is made
after the reply.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from .group import Group, Plan
from .lines import Candidate


def followers(before: Plan, group: Group, share: int) -> Sequence[Candidate] | None:
    """The jobs, or None where there is to be no such bundle. `group` has those of the same kind that wait."""
    going = [job for job, steps in zip(before.jobs, before.steps, strict=True) if before.goes_on(job, steps)]
    if not going or len(going) < group.policy.follow_share * sum(map(before.answers_for, before.jobs)):
        return None
    most = min(group.largest(share), share)
    waiting = itertools.chain.from_iterable(group.of(line) for _, line in group.lines)
    joining = list(itertools.islice(waiting, most))
    jobs = [*going, *joining]
    if len(jobs) > most or any(job.interactive or job.suspect or job.limit < len(jobs) for job in jobs):
        return None
    fits = sum(job.upload for job in joining) <= group.policy.bundle_bytes
    return jobs if fits and len(group.trimmed(jobs)) == len(jobs) else None
