"""What a caller holds of a request that was submitted: its progress, its result, and the way to stop it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import SynthesisError
from .errors import Cancelled
from .jobs import Job, Picture, Progress


@dataclass
class Timings:
    """Of a whole request, in seconds."""

    queue_wait: float = 0.0
    """From submission to the first bundle."""
    total: float = 0.0
    compute: float = 0.0
    """That workers computed bundles with pictures of it, and of others."""
    bundles: int = 0
    retries: int = 0
    """Bundles that were lost."""

    def sent(self, waited: float) -> None:
        """A bundle was sent, that long after the submission."""
        self.queue_wait = self.queue_wait if self.bundles else waited
        self.bundles += 1


@dataclass(frozen=True)
class Outcome:
    """A finished request."""

    pictures: Sequence[Picture]
    model: str
    version: str
    """Of the classifier."""
    seed: int
    timings: Timings

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What it really ran with, every default filled in."""
        found: Mapping[str, Any] = self.pictures[0].started.get("parameters", {})
        return found


class Ticket:
    """Iterate over it for progress, as often as you like; await it for the outcome.

        async for progress in ticket:
            print(progress.step, progress.steps)
        outcome = await ticket

    Progress that was not fetched in time is replaced by newer. `await` raises the SynthesisError that ended the request.
    """

    def __init__(
        self, jobs: Sequence[Job], *, submitted: float, previews: bool, leave: Callable[[Ticket], None]
    ) -> None:
        self.jobs = jobs
        self.timings = Timings()
        self.submitted = submitted
        self.previews = previews
        self._leave = leave
        self._latest: dict[int, tuple[int, Progress]] = {}
        self._reports = 0
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        self._outcome: Outcome | None = None
        self._error: SynthesisError | None = None

    @property
    def task(self) -> str:
        return self.jobs[0].candidate.spec.task

    @property
    def model(self) -> str:
        return self.jobs[0].candidate.model

    @property
    def caller(self) -> str:
        return self.jobs[0].candidate.caller

    @property
    def interactive(self) -> bool:
        return self.jobs[0].candidate.interactive

    @property
    def done(self) -> bool:
        return self._ended.is_set()

    async def result(self) -> Outcome:
        await self._ended.wait()
        if self._error is not None:
            raise self._error
        assert self._outcome is not None
        return self._outcome

    def __await__(self) -> Generator[Any, None, Outcome]:
        return self.result().__await__()

    async def __aiter__(self) -> AsyncIterator[Progress]:
        seen = 0
        while True:
            news, done = self._news, self.done
            fresh = sorted(
                (report for report in self._latest.values() if report[0] > seen), key=lambda report: report[0]
            )
            if fresh:
                seen, progress = fresh[0]
                yield progress
            elif done:
                return
            else:
                await news.wait()

    def cancel(self) -> None:
        """Stop: bundles that are outstanding run to their end, and nothing further is sent."""
        self.fail(Cancelled("cancelled: the caller took the request back."))

    # What the dispatcher tells it.

    def report(self, progress: Progress) -> None:
        self._reports += 1
        self._latest[progress.index] = self._reports, progress
        self._tell()

    def finish(self, total: float) -> None:
        """All jobs are done, that long after the submission."""
        self.timings.total = total
        pictures = [job.picture for job in self.jobs if job.picture is not None]
        first = self.jobs[0].candidate
        self._end(Outcome(pictures, first.model, first.version or "", first.spec.seed or 0, self.timings), None)

    def fail(self, error: SynthesisError) -> None:
        self._end(None, error)

    def _end(self, outcome: Outcome | None, error: SynthesisError | None) -> None:
        if not self.done:
            self._outcome, self._error = outcome, error
            self._ended.set()
            self._tell()
            self._leave(self)

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
