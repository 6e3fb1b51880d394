"""One picture of a request: its pixels between two bundles, and what it puts into the next."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..bundle import FixedProblem, JobPart, JobReply, JobState, Output, Pixels
from ..requests import Request
from .lines import Candidate


@dataclass(frozen=True)
class Queued:
    """A request waits for its first bundle."""

    position: int
    """How many requests are ahead, as long as nobody else comes: callers take turns."""
    estimated_wait: float
    """Seconds, as far as can be told."""


@dataclass(frozen=True)
class Progress:
    """Where one picture of a request stands."""

    index: int
    """Which picture."""
    step: int
    steps: int
    loss: float
    """At the last evaluation."""
    probability: float
    """Of the target, at the last evaluation."""
    x: Pixels | None = None
    """[3, H, W], where previews are wanted and the picture is not finished."""


@dataclass(frozen=True)
class Picture:
    """A finished picture."""

    index: int
    file: bytes
    report: Mapping[str, Any]
    """Predicted class, probability of the target, distances from the start."""
    started: Mapping[str, Any]
    """What it really ran with: target, and all parameters with defaults filled in."""
    loss: tuple[float, ...]
    """At every evaluation; the first is the start's."""
    probability: tuple[float, ...]


class Job:
    """A picture in work. What the batcher needs to know of it is its `candidate`."""

    def __init__(self, request: Request, index: int, output: Output, candidate: Candidate) -> None:
        self.candidate = candidate
        self.picture: Picture | None = None
        self._request = request
        self._index = index
        self._output = output
        self._state: JobState | None = None
        self._problem: FixedProblem | None = None
        self._address = ""
        self._known_by: set[str] = set()
        self._key = secrets.token_hex(8)
        self._holder: str | None = None
        """The worker that has its state, too."""
        self._started: Mapping[str, Any] = {}
        self._loss: list[float] = []
        self._probability: list[float] = []

    def part(self, worker: str, steps: int, *, held: int | None = None) -> JobPart:
        """Its part of a bundle. What only a finishing job needs goes only where the job may finish.

        In a bundle that follows another it has `held` evaluations still to do, from a state that only the worker will have.
        """
        part = JobPart(steps, index=self._index, exact=self._request.spec.exact, key=self._key)
        state = self._state
        if state is None and held is None:
            return dataclasses.replace(part, request=self._request, output=self._output)
        remaining = self.remaining if held is None else held
        if steps >= remaining:
            request = self._request if self._request.paste_back else None
            part = dataclasses.replace(part, request=request, output=self._output)
        if state is None or held is not None or self._holder == worker:
            return dataclasses.replace(part, held=remaining)
        if not self._request.spec.use_best:
            state = dataclasses.replace(state, best_x=None)
        problem = self._problem if self.needs_problem(worker) else None
        return dataclasses.replace(part, state=state, problem=problem, address=self._address)

    def needs_problem(self, worker: str) -> bool:
        """Whether the worker has not been sent its fixed problem."""
        return self._state is not None and worker not in self._known_by

    def forget(self, worker: str) -> None:
        """The worker does not have its problem any more, nor its state."""
        self._known_by.discard(worker)
        if self._holder == worker:
            self._holder = None

    def take(self, reply: JobReply, worker: str) -> bool:
        """Go on from a worker's reply, which is no failure. False, and nothing has changed, where it makes no sense."""
        state, picture = reply.state, reply.picture
        evaluations = len(self._loss) + len(reply.loss)
        if not reply.loss or len(reply.probability) != len(reply.loss) or (state is None) == (picture is None):
            return False
        if state is not None and self._state is None and reply.problem is None:
            return False
        if self._state is not None and len(reply.loss) != self.remaining - (0 if state is None else state.remaining):
            return False
        self._loss += reply.loss
        self._probability += reply.probability
        self._started = reply.started or self._started
        self._known_by.add(worker)
        self._holder = worker if reply.held else None
        if picture is not None:
            loss, probability = tuple(self._loss), tuple(self._probability)
            self.picture = Picture(self._index, picture, reply.report, self._started, loss, probability)
            self._state = self._problem = None
        elif state is not None:
            if reply.problem is not None:
                self._problem, self._address = reply.problem, reply.problem.address
            best_x = self._state.best_x if state.best_x is None and self._state is not None else state.best_x
            self._state = dataclasses.replace(state, best_x=best_x)
        self._evaluations = evaluations + self.remaining
        self.candidate.upload = self._upload()
        return True

    @property
    def remaining(self) -> int:
        """Evaluations still to do, once it has begun."""
        return 0 if self._state is None else self._state.remaining

    def progress(self, *, preview: bool) -> Progress:
        """After a bundle. T steps need T + 1 evaluations."""
        steps = self._evaluations - 1
        x = self._state.x if preview and self._state is not None else None
        step = steps - max(0, self.remaining - 1)
        return Progress(self._index, step, steps, self._loss[-1], self._probability[-1], x)

    def _upload(self) -> int:
        """Bytes that it will add to a bundle at most, but for its problem, which seldom travels."""
        if self._state is None:
            return 0
        return 2 * self._state.x.nbytes + self._request.file_bytes * self._request.paste_back
