"""What the batcher knows of a job, and the lines in which jobs wait."""

from __future__ import annotations

import enum
from collections import Counter, defaultdict, deque
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..bundle import MAX_JOBS
from ..defaults import resolve
from ..frames import stride
from ..model_folder import Card
from ..specs import MAX_STEPS, Spec
from .fairness import Who

if TYPE_CHECKING:
    from .group import Plan

Kind = tuple[str, int | None]
"""Model, and image size that was asked for."""


class Status(enum.Enum):
    WAITING = "waiting"
    IN_FLIGHT = "in flight"
    GONE = "gone"


@dataclass(eq=False)
class Candidate:
    """One job, without its tensors. The last group of fields is the batcher's."""

    model: str
    spec: Spec
    caller: str = ""
    interactive: bool = False
    size: int | None = None
    """Asked for; None is the classifier's."""
    upload: int = 0
    """Bytes that it adds to a bundle."""
    siblings: list[Candidate] = field(default_factory=list)
    """All jobs of its request, itself too: they are computed by one version."""
    frames: int = 0
    """How many bundles it should take at least; 0 is any number."""

    version: str | None = None
    """Of the classifier, once it has one."""
    remaining: int | None = None
    """Evaluations still to do; None before the first bundle has come back."""
    plan: Plan | None = None
    """The last bundle that it is in, while it is in flight."""
    before: Plan | None = None
    """The bundle that comes back first, while it is in two..."""
    ahead: int = 0
    """... and the evaluations that it does."""
    status: Status = Status.WAITING
    tried: bool = False
    """Whether it was ever in a bundle."""
    most: int = MAX_JOBS
    """Jobs of a bundle that it may be in: fewer where the worker had too little memory."""
    limit: int = MAX_JOBS
    """The same for now: fewer after a loss, doubled by a success."""
    lost_alone: int = 0
    """Losses in a row while it was computed alone."""
    avoid: set[str] = field(default_factory=set)
    """Workers that lost it since its last success."""
    since: int = 0
    """Number of its place in line: the lowest has waited longest."""
    _resolved: tuple[Card, int] | None = None
    """Evaluations in all, by a card's defaults."""

    @property
    def who(self) -> Who:
        return self.interactive, self.caller

    @property
    def suspect(self) -> bool:
        """Whether it may have been the cause of a loss."""
        return self.limit < self.most

    def side(self, card: Card) -> int:
        """Image size that its cost is reckoned with; a worker refuses one that the card does not allow."""
        return side_of(self.size, card)

    def stride(self, card: Card) -> int:
        """The most steps that it may take in a bundle."""
        if not self.frames or not self.spec.descends:
            return MAX_STEPS
        return stride(self.all_evaluations(card) - 1, self.frames)

    def evaluations(self, card: Card) -> int:
        """Still to do; where it is in two bundles, when the first is done. T steps need T + 1 evaluations."""
        return (self.remaining or self.all_evaluations(card)) - self.ahead

    def all_evaluations(self, card: Card) -> int:
        """From its start to its end."""
        if not self.spec.descends:
            return 1
        if self._resolved is None or self._resolved[0] is not card:
            self._resolved = card, int(resolve(self.spec, card, self.side(card))["steps"]) + 1
        return self._resolved[1]


def side_of(size: int | None, card: Card) -> int:
    """Of the pictures of a job for which this size was asked, with this classifier."""
    return card.size if size is None else min(max(size, card.min_size), card.max_size)


class Line:
    """Waiting jobs of one caller that may share bundles: those that run in turn, then the others, oldest first."""

    def __init__(self) -> None:
        self._running: deque[Candidate] = deque()
        self._fresh: deque[Candidate] = deque()

    def __iter__(self) -> Iterator[Candidate]:
        yield from self._running
        yield from self._fresh

    def __len__(self) -> int:
        return len(self._running) + len(self._fresh)

    def add(self, job: Candidate, *, first: bool = False) -> None:
        jobs = self._running if job.tried else self._fresh
        jobs.appendleft(job) if first else jobs.append(job)

    def remove(self, job: Candidate) -> None:
        (self._running if job.tried else self._fresh).remove(job)


class Lines:
    """All waiting jobs, and how many there are with those in flight, by model and by the image size asked for."""

    def __init__(self) -> None:
        self._lines: defaultdict[Kind, dict[Who, Line]] = defaultdict(dict)
        self._unfinished: Counter[Kind] = Counter()
        self._places = 0

    def enter(self, job: Candidate) -> None:
        """A new job."""
        self._unfinished[job.model, job.size] += 1
        self.wait(job)

    def wait(self, job: Candidate, *, first: bool = False) -> None:
        """A job comes back, to the end of its line or to its head."""
        if not first:
            self._places += 1
            job.since = self._places
        job.status, job.plan, job.before, job.ahead = Status.WAITING, None, None, 0
        self._lines[job.model, job.size].setdefault(job.who, Line()).add(job, first=first)

    def send(self, job: Candidate) -> None:
        """A job goes into a bundle."""
        self._leave(job)
        job.status, job.tried = Status.IN_FLIGHT, True

    def drop(self, job: Candidate) -> None:
        """A job is done with."""
        if job.status is Status.GONE:
            return
        if job.status is Status.WAITING:
            self._leave(job)
        job.status, job.plan, job.before = Status.GONE, None, None
        self._unfinished[job.model, job.size] -= 1
        if not self._unfinished[job.model, job.size]:
            del self._unfinished[job.model, job.size]

    def of(self, model: str) -> Iterator[tuple[Mapping[Who, Line], int]]:
        """For each image size asked for: the lines, of which there is at least one, and how many jobs are unfinished."""
        for kind, lines in self._lines.items():
            if kind[0] == model:
                yield lines, self._unfinished[kind]

    def unfinished(self, model: str, card: Card, side: int) -> int:
        """How many jobs of a classifier and an image size there are, also in flight."""
        return sum(n for (name, size), n in self._unfinished.items() if name == model and side_of(size, card) == side)

    def waiting(self, served: Container[tuple[str, str | None]]) -> set[Who]:
        """Who has a job waiting for one of these models and versions; the version is None for a job that has none."""
        return {
            who
            for lines in self._lines.values()
            for who, line in lines.items()
            if any((job.model, job.version) in served for job in line)
        }

    def _leave(self, job: Candidate) -> None:
        kind = job.model, job.size
        self._lines[kind][job.who].remove(job)
        if not self._lines[kind][job.who]:
            del self._lines[kind][job.who]
        if not self._lines[kind]:
            del self._lines[kind]
