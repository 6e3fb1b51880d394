"""The gateway's loop: jobs in, bundles out to the workers, replies back, until every job is done.

    dispatcher = Dispatcher(backend)
    await dispatcher.start()
    outcome = await dispatcher.submit(Request(spec=Generate(target="dog")), model="cifar10")

It owns every job; the batcher says which go together, the workers compute. One event loop, no locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from ..bundle import BundleError, BundleTooLarge, Failure, JobPart, Output, Reply
from ..errors import InvalidInput, NotFound, SynthesisError
from ..requests import Request
from ..specs import with_seed
from .backends.base import Backend, WorkerLost, WorkerUnavailable
from .batcher import DEFAULT, Batcher
from .errors import DeadlineExceeded, JobLost, ShuttingDown, error_of
from .exchange import Sent, exchange, tickets
from .forecast import Forecast
from .group import Plan
from .jobs import Job, Queued
from .lines import Candidate, Status
from .policy import Policy
from .queue import Kind, Speed
from .seams import Observer
from .speeds import speed_of
from .tickets import Ticket

log = logging.getLogger(__name__)

PNG = Output()
FEW = 100
"""Requests whose places take no time to find."""
PLACES_EVERY = 0.2
"""Seconds between two looks at who has which place in the queue."""


class Dispatcher:
    """Times are on `clock`, in seconds; it must run like that of the event loop."""

    def __init__(
        self,
        backend: Backend,
        *,
        policy: Policy = DEFAULT,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer | None = None,
    ) -> None:
        self.clock = clock
        self._backend = backend
        self._batcher = Batcher(policy)
        self._forecast = Forecast(self._batcher)
        self._observer = observer or Observer()
        self._jobs: dict[Candidate, tuple[Ticket, Job]] = {}
        self._tickets: dict[Ticket, asyncio.TimerHandle | None] = {}
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._loops: set[asyncio.Task[None]] = set()
        self._bundles: dict[Plan, asyncio.Task[None]] = {}
        self._look: asyncio.TimerHandle | None = None
        self._open = False

    @property
    def requests(self) -> Collection[Ticket]:
        """All that have not ended, oldest first."""
        return self._tickets.keys()

    def places(self) -> Mapping[Ticket, Queued]:
        """Where those are that have not begun."""
        return self._forecast.places(self._tickets, self._backend.workers())

    def speed_of(self, kind: Kind) -> Speed | None:
        """At which jobs of a kind are computed; None where nothing is known."""
        return speed_of(kind, self._backend.workers(), self._batcher.times, self._batcher.policy)

    async def start(self) -> None:
        await self._backend.start()
        self._open = True
        self._loops = {asyncio.create_task(self._dispatch()), asyncio.create_task(self._watch())}
        for loop in self._loops:
            loop.add_done_callback(self._stopped)

    async def finish(self, grace: float) -> None:
        """Take no more jobs, let those there are finish within `grace` seconds, and fail what is left."""
        self._open = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self._tickets:
                    self._empty.clear()
                    await self._empty.wait()
        for ticket in list(self._tickets):
            ticket.fail(ShuttingDown("the gateway is shutting down; send the request again."))

    async def close(self, grace: float = 30.0) -> None:
        """Finish, and stop the backend."""
        await self.finish(grace)
        if self._look is not None:
            self._look.cancel()
        tasks = {*self._loops, *self._bundles.values()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._backend.close()

    def submit(
        self,
        request: Request,
        *,
        model: str,
        caller: str = "",
        interactive: bool = False,
        deadline: float | None = None,
        output: Output = PNG,
        previews: bool = False,
        frames: int = 0,
    ) -> Ticket:
        """Start a request: a job for each of its pictures. `deadline` is on the dispatcher's clock. `frames` are reports of
        progress that there are at least.

        Raises NotFound for a model that no worker has, InvalidInput for pictures that are not bytes, ShuttingDown, and
        DeadlineExceeded where it has passed already.
        """
        now = self.clock()
        self._check(request, model)
        if deadline is not None and deadline <= now:
            raise DeadlineExceeded("deadline: has passed already; allow more time.")
        request = dataclasses.replace(request, spec=with_seed(request.spec))
        jobs: list[Job] = []
        siblings: list[Candidate] = []
        for index in range(request.spec.pictures):
            upload = request.file_bytes
            siblings.append(Candidate(model, request.spec, caller, interactive, request.size, upload, siblings, frames))
            jobs.append(Job(request, index, output, siblings[-1]))
        ticket = Ticket(
            jobs,
            submitted=now,
            previews=previews,
            frames=frames > 0,
            leave=self._leave,
            begin=self._observer.request_started,
            watch=self._watched,
        )
        self._tickets[ticket] = None
        if deadline is not None:
            self._tickets[ticket] = asyncio.get_running_loop().call_later(deadline - now, self._expire, ticket)
        for job in jobs:
            self._jobs[job.candidate] = ticket, job
            self._batcher.add(job.candidate)
        self._observer.request_queued(ticket)
        self._wake.set()
        return ticket

    # The loop: plan, send, take in; again whenever something has changed.

    async def _dispatch(self) -> None:
        while True:
            self._wake.clear()
            now = self.clock()
            for plan in self._batcher.plan(self._backend.workers(), now):
                before = [task for other, task in self._bundles.items() if plan.held and other.worker is plan.worker]
                task = asyncio.create_task(self._run(plan, [self._jobs[job] for job in plan.jobs], before))
                self._bundles[plan] = task
                task.add_done_callback(partial(self._ended, plan))
            self._look_at_places()
            change = self._batcher.next_change(now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if change is None else change - now):
                    await self._wake.wait()

    async def _watch(self) -> None:
        """Wake the loop when workers come, go, or change."""
        while True:
            await self._backend.changed.wait()
            self._backend.changed.clear()
            self._wake.set()

    async def _run(
        self, plan: Plan, members: Sequence[tuple[Ticket, Job]], before: Sequence[asyncio.Task[None]]
    ) -> None:
        """One bundle, from plan to reply, which is for when those before are done."""
        sent = [
            (ticket, job, job.part(plan.worker.name, steps, held=plan.held.get(job.candidate)))
            for (ticket, job), steps in zip(members, plan.steps, strict=True)
            if plan.answers_for(job.candidate)
        ]
        try:
            try:
                reply = await exchange(plan, sent, self.clock, self._observer.bundle_sent)
            finally:
                if before:
                    await asyncio.wait(before)
            if reply is None:
                self._batcher.unsent(plan, self.clock())
            else:
                self._observer.bundle_returned(plan, reply)
                self._take_reply(plan, sent, reply)
        except WorkerUnavailable as error:
            self._observer.bundle_lost(plan, error)
            self._batcher.unavailable(plan, self.clock(), f"worker {plan.worker.name}: {error}")
        except BundleTooLarge as error:
            self._observer.bundle_lost(plan, error)
            self._take_size(plan, sent, error)
        except BundleError as error:
            log.warning("worker %s: %s", plan.worker.name, error)
            self._observer.bundle_lost(plan, error)
            self._batcher.refused(plan, self.clock(), f"worker {plan.worker.name}: {error}")
        except Exception as error:
            log.warning("worker %s: lost a bundle: %s", plan.worker.name, error, exc_info=_unexpected(error))
            self._observer.bundle_lost(plan, error)
            self._take_loss(plan, sent, error)
        finally:
            self._wake.set()

    def _ended(self, plan: Plan, _: asyncio.Task[None]) -> None:
        del self._bundles[plan]

    def _take_reply(self, plan: Plan, sent: Sent, reply: Reply) -> None:
        self._batcher.answered(plan, reply.batches, self.clock(), seconds=reply.seconds, holds=reply.holds)
        for ticket in tickets(sent):
            ticket.timings.compute += reply.seconds
            ticket.computed(reply.device, reply.precision)
        for (ticket, job, part), answer in zip(sent, reply.jobs, strict=True):
            if not plan.answers_for(job.candidate):
                continue
            if answer.failure is not None:
                self._take_failure(plan, ticket, job, part, answer.failure)
            elif not job.take(answer, plan.worker.name):
                self._take_failure(plan, ticket, job, part, Failure("internal", "its reply makes no sense."))
            else:
                self._take_step(plan, ticket, job)
        if ended := sum(job.picture is not None and job.candidate.spec.descends for _, job, _ in sent):
            self._batcher.ended(plan, ended, self.clock())

    def _take_step(self, plan: Plan, ticket: Ticket, job: Job) -> None:
        """A bundle advanced a job, perhaps to its end."""
        ticket.report(job.progress(preview=ticket.previews))
        if job.picture is None:
            self._batcher.resume(plan, job.candidate, job.remaining)
            return
        self._batcher.remove(job.candidate)
        if all(each.picture is not None for each in ticket.jobs):
            ticket.finish(self.clock() - ticket.submitted)

    def _take_failure(self, plan: Plan, ticket: Ticket, job: Job, part: JobPart, failure: Failure) -> None:
        """A worker says why a job cannot go on; the others of its bundle are not concerned."""
        if _was_forgotten(part, failure):
            job.forget(plan.worker.name)
            self._batcher.forgotten(plan, job.candidate, self.clock())
        elif failure.kind in ("invalid", "not_found"):
            ticket.fail(error_of(failure))
        elif failure.kind == "memory":
            if not self._batcher.shrink(job.candidate, len(plan.jobs)):
                ticket.fail(JobLost(failure.message))
        else:
            log.error("worker %s: a job failed: %s", plan.worker.name, failure.message)
            if not self._batcher.suspect(job.candidate, 1):
                ticket.fail(
                    JobLost(f"workers failed at this job again and again ({failure.message}); change the request.")
                )

    def _take_size(self, plan: Plan, sent: Sent, error: BundleTooLarge) -> None:
        """The bundle did not go out. Its jobs are tried in smaller ones; one that was alone fails alone."""
        self._batcher.unsent(plan, self.clock())
        for ticket, job, part in sent:
            if not plan.answers_for(job.candidate) or self._batcher.shrink(job.candidate, len(plan.jobs)):
                continue
            field = "size" if part.request is None or part.request.image is None else "image"
            ticket.fail(InvalidInput(field, f"makes more work than a worker takes at once; give less ({error})"))

    def _take_loss(self, plan: Plan, sent: Sent, error: Exception) -> None:
        """The worker may have died, and this bundle may be why."""
        for _, job in self._jobs.values():
            job.forget(plan.worker.name)
        for ticket in tickets([each for each in sent if plan.answers_for(each[1].candidate)]):
            ticket.timings.retries += 1
        for candidate in self._batcher.lost(plan, self.clock(), f"worker {plan.worker.name}: {error}"):
            times = candidate.lost_alone
            message = f"the worker stopped {times} times while computing this job alone; change the request."
            self._jobs[candidate][0].fail(JobLost(message))

    # Requests come and go.

    def _check(self, request: Request, model: str) -> None:
        if not self._open:
            raise ShuttingDown("the gateway is shutting down; send the request again.")
        for name in ("image", "mask"):
            if not isinstance(getattr(request, name), (bytes, type(None))):
                raise InvalidInput(name, "must be the bytes of a file here; read or encode it first.")
        if request.size is not None and type(request.size) is not int:
            raise InvalidInput("size", f"is {request.size!r}; give a number of pixels.")
        served = [{info.name for info in worker.models()} for worker in self._backend.workers()]
        if served and all(served) and not any(model in names for names in served):
            raise NotFound("model", model, sorted(set().union(*served)))

    def _expire(self, ticket: Ticket) -> None:
        now = self.clock()
        unfinished = [job.candidate for job in ticket.jobs if job.picture is None]
        waiting = [job for job in unfinished if job.status is Status.WAITING]
        obstacle = self._batcher.obstacle(waiting[0], self._backend.workers(), now) if waiting else ""
        done = f"{len(ticket.jobs) - len(unfinished)} of {len(ticket.jobs)} pictures done"
        advice = obstacle or "allow more time, or ask for fewer steps."
        ticket.fail(DeadlineExceeded(f"deadline: passed after {now - ticket.submitted:.1f} s with {done}; {advice}"))

    def _watched(self, _: Ticket) -> None:
        """Somebody wants to know the place of a request: at once, or where many wait, soon."""
        if len(self._tickets) <= FEW:
            self._tell_places()
        else:
            self._look_at_places()

    def _look_at_places(self) -> None:
        """Soon: something has changed, and more may."""
        if self._look is None and any(ticket.watched and not ticket.begun for ticket in self._tickets):
            self._look = asyncio.get_running_loop().call_later(PLACES_EVERY, self._tell_places)

    def _tell_places(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        for ticket, place in self.places().items():
            ticket.move(place)

    def _leave(self, ticket: Ticket, error: SynthesisError | None) -> None:
        """It has ended, however."""
        timer = self._tickets.pop(ticket)
        if timer is not None:
            timer.cancel()
        for job in ticket.jobs:
            self._batcher.remove(job.candidate)
            del self._jobs[job.candidate]
        if not self._tickets:
            self._empty.set()
        self._observer.request_finished(ticket, error)
        self._wake.set()

    def _stopped(self, loop: asyncio.Task[None]) -> None:
        """The loop never ends of itself; if it does, nobody must wait for it."""
        if not loop.cancelled():
            log.critical("the dispatcher has stopped", exc_info=loop.exception())
            self._open = False
            for ticket in list(self._tickets):
                ticket.fail(SynthesisError("the gateway has failed; send the request to another."))


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, WorkerLost) else error


def _was_forgotten(part: JobPart, failure: Failure) -> bool:
    """Whether the worker does not have what was left with it. One of a version before misses the state in a job that is held."""
    if part.held is not None:
        return failure.kind == "unknown_state" or (failure.kind, failure.field) == ("invalid", "state")
    return failure.kind == "unknown_problem" and part.state is not None and part.problem is None
