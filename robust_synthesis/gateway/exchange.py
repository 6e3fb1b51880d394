"""One bundle to a worker and its reply back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..bundle import Bundle, BundleError, JobPart, Reply
from ..wire import decode_reply, encode
from .backends.base import WorkerLost
from .group import Plan
from .jobs import Job
from .lines import Status
from .tickets import Ticket

LARGE = 256 * 2**10
"""Bundles of more bytes are encoded and decoded off the event loop."""
OVERDUE = 2.0
"""Seconds after its timeout that a worker's call is broken off, if the backend has not."""

Sent = list[tuple[Ticket, Job, JobPart]]
"""What a bundle is made of."""


async def exchange(plan: Plan, sent: Sent, clock: Callable[[], float], on_send: Callable[[Plan], None]) -> Reply | None:
    """The reply, or None where all jobs were cancelled before the bundle was sent.

    Raises WorkerLost, WorkerUnavailable, and BundleError for what is no reply to this bundle.
    """
    bundle = Bundle(plan.info.name, [part for _, _, part in sent], plan.info.version)
    large = sum(part.nbytes for _, _, part in sent) > LARGE
    blob = await asyncio.to_thread(encode, bundle) if large else encode(bundle)
    if all(job.candidate.status is Status.GONE for _, job, _ in sent):
        return None
    for ticket in tickets(sent):
        ticket.sent(clock() - ticket.submitted)
    on_send(plan)
    try:
        async with asyncio.timeout(plan.timeout + OVERDUE):
            answer = await plan.worker.run(blob, model=plan.info.name, version=plan.info.version, timeout=plan.timeout)
    except TimeoutError as error:
        raise WorkerLost(f"gave no answer within {plan.timeout:.0f} s.") from error
    reply = await asyncio.to_thread(decode_reply, answer) if len(answer) > LARGE else decode_reply(answer)
    if (reply.version, len(reply.jobs)) != (plan.info.version, len(sent)):
        raise BundleError("reply: is not the answer to the bundle that was sent.")
    return reply


def tickets(sent: Sent) -> set[Ticket]:
    return {ticket for ticket, _, _ in sent}
