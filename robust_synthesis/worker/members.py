"""The jobs of a bundle while it is computed, and in which batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from ..bundle import Failure, FixedProblem, JobPart, JobReply
from ..engine.problem import Problem, State
from ..engine.run import bucket


@dataclass
class Member:
    """A job while its bundle is computed. Tensors have a first dimension of 1."""

    part: JobPart
    problem: Problem
    state: State
    todo: int
    """Evaluations that this bundle does."""
    sent: FixedProblem | None = None
    """The problem, where this bundle started the job."""
    started: Mapping[str, Any] = field(default_factory=dict)
    loss: list[float] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    failure: Failure | None = None
    outcome: Future[JobReply] | None = None
    """What to say of it once this bundle has no more steps for it; a helper makes it while other jobs go on."""

    @property
    def finished(self) -> bool:
        return int(self.state.remaining) == 0

    @property
    def improved(self) -> bool:
        return self.part.state is None or float(self.state.best_loss) < self.part.state.best_loss


def segments(jobs: Sequence[tuple[int, bool]]) -> Iterator[tuple[int, list[int]]]:
    """How to run jobs that have unequal numbers of evaluations to do: (evaluations, rows) in turn.

    `jobs` has for each the evaluations, and whether it must stop there though it is not done (a chunk leaves a job alone
    only once it is done). Jobs that have finished leave the batch as soon as the rest fits a smaller bucket, so that they
    stop costing compute.
    """
    done = 0
    while rows := [i for i, (todo, _) in enumerate(jobs) if todo > done]:
        ends = sorted(jobs[i][0] for i in rows)
        smaller = bucket(len(rows)) // 2
        stop = min([ends[len(rows) - smaller - 1], *(jobs[i][0] for i in rows if jobs[i][1])])
        yield stop - done, rows
        done = stop
