"""What a caller holds of a request that was submitted: its progress, its result, and the way to stop it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..errors import SynthesisError
from .errors import Cancelled
from .fairness import Who
from .jobs import Job, Picture, Progress, Queued

MOST_KEPT = 64
"""Reports of progress that wait to be read, at most..."""
MOST_BYTES = 4 * 2**20
"""... and bytes of the pictures that they have."""


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
    computations: Sequence[tuple[str, str]] = ()
    """Device and precision of the workers that computed it, each once; none where they do not say."""

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

    Progress that was not fetched in time is replaced by newer, or thinned out where it has `frames`. `await` raises the
    SynthesisError that ended the request.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        submitted: float,
        previews: bool,
        frames: bool = False,
        leave: Callable[[Ticket, SynthesisError | None], None],
        begin: Callable[[Ticket], None],
        watch: Callable[[Ticket], None],
    ) -> None:
        self.jobs = jobs
        self.timings = Timings()
        self._computations: dict[tuple[str, str], None] = {}
        self.submitted = submitted
        self.previews = previews
        self.watched = False
        """Whether anybody wants to know its place while it waits."""
        self._leave = leave
        self._begin = begin
        self._watch = watch
        self._frames = frames
        self._place: tuple[int, Queued] | None = None
        self._progress: defaultdict[int, list[tuple[int, Progress]]] = defaultdict(list)
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
    def who(self) -> Who:
        return self.jobs[0].candidate.who

    @property
    def begun(self) -> bool:
        """Whether it was ever in a bundle."""
        return any(job.candidate.tried for job in self.jobs)

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
        async for each in self.news():
            if isinstance(each, Progress):
                yield each

    async def news(self) -> AsyncIterator[Queued | Progress]:
        """Its progress, and before that its place whenever that has changed."""
        self.watched = True
        self._watch(self)
        seen = 0
        while True:
            news, done = self._news, self.done
            reports: Iterable[tuple[int, Queued | Progress]] = chain(*self._progress.values())
            if self._place is not None:
                reports = chain([self._place], reports)
            fresh = min((each for each in reports if each[0] > seen), key=lambda each: each[0], default=None)
            if fresh is not None:
                seen, event = fresh
                yield event
            elif done:
                return
            else:
                await news.wait()

    def cancel(self) -> None:
        """Stop: bundles that are outstanding run to their end, and nothing further is sent."""
        self.fail(Cancelled("cancelled: the caller took the request back."))

    # What the dispatcher tells it.

    def move(self, place: Queued) -> None:
        """It has another place in the queue, or the first."""
        if self._place is None or self._place[1].position != place.position:
            self._place = self._count(), place
            self._tell()

    def sent(self, waited: float) -> None:
        """A bundle with it was sent, that long after the submission."""
        first = not self.timings.bundles
        self.timings.sent(waited)
        if first:
            self._place = None
            self._begin(self)

    def computed(self, device: str, precision: str) -> None:
        """A bundle with it was computed."""
        if device:
            self._computations[device, precision] = None

    def report(self, progress: Progress) -> None:
        reports = self._progress[progress.index]
        if len(reports) >= self._most(progress):
            del reports[::2]
        reports.append((self._count(), progress))
        self._tell()

    def _most(self, progress: Progress) -> int:
        """Reports of a picture that wait, where each is as large as this one."""
        if not self._frames:
            return 1
        size = 1 if progress.x is None else progress.x.nbytes
        return max(1, min(MOST_KEPT, MOST_BYTES // size) // len(self.jobs))

    def _count(self) -> int:
        self._reports += 1
        return self._reports

    def finish(self, total: float) -> None:
        """All jobs are done, that long after the submission."""
        self.timings.total = total
        pictures = [job.picture for job in self.jobs if job.picture is not None]
        first = self.jobs[0].candidate
        outcome = Outcome(
            pictures,
            first.model,
            first.version or "",
            first.spec.seed or 0,
            self.timings,
            tuple(self._computations),
        )
        self._end(outcome, None)

    def fail(self, error: SynthesisError) -> None:
        self._end(None, error)

    def _end(self, outcome: Outcome | None, error: SynthesisError | None) -> None:
        if not self.done:
            self._outcome, self._error = outcome, error
            self._ended.set()
            self._tell()
            self._leave(self, error)

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
