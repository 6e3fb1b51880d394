"""The jobs of a bundle while it is computed, and in which batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from ..batch_sizes import padded
from ..bundle import Failure, FixedProblem, JobPart, JobReply, JobState
from ..engine.problem import Problem, State
from . import transport
from .failures import NOT_A_NUMBER
from .kept import Kept


@dataclass(frozen=True)
class Standstill:
    """Where a job stands between two bundles. Tensors have a first dimension of 1."""

    problem: Problem
    address: str
    """Of the problem."""
    state: State
    best_loss: float


Held = Kept[Standstill]
"""By the key of the job."""


@dataclass
class Member:
    """A job while its bundle is computed. Tensors have a first dimension of 1."""

    part: JobPart
    problem: Problem
    state: State
    todo: int
    """Evaluations that this bundle does."""
    address: str = ""
    """Of the problem; empty where the job starts and ends in this bundle."""
    best_loss: float = math.inf
    """Before this bundle."""
    sent: FixedProblem | None = None
    """The problem, where this bundle started the job."""
    started: Mapping[str, Any] = field(default_factory=dict)
    loss: list[float] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    predicted: int = -1
    """Class at the last evaluation."""
    failure: Failure | None = None
    finishing: Future[JobReply] | None = None
    """What to say of one that has ended; a helper makes it while other jobs go on."""
    paused: JobState | None = None
    """Where one stands that another bundle goes on with."""

    @property
    def finished(self) -> bool:
        return int(self.state.remaining) == 0

    @property
    def improved(self) -> bool:
        return self.betters(float(self.state.best_loss))

    def betters(self, loss: float) -> bool:
        """Whether this bundle has found something better than those before, where its best loss is this one."""
        return loss < self.best_loss

    def _knows_best(self) -> bool:
        """Whether the x of lowest loss is here, or will not be asked for."""
        sent = self.part.state
        found = self.paused is not None and self.paused.best_x is not None
        return sent is None or sent.best_x is not None or found or not bool(self.problem.use_best)

    def hold(self, held: Held) -> bool:
        """Keep where it stands for the next bundle, if its gateway wants that."""
        if self.part.key is None or self.paused is None or not self._knows_best():
            return False
        try:  # not its rows of a batch, whose memory would stay as long as one of its jobs
            state = State(**{name: value.clone() for name, value in vars(self.state).items()})
            size = sum(x.nbytes for x in (state.x, state.best_x, self.problem.center, self.problem.mask))
            held.put(self.part.key, Standstill(self.problem, self.address, state, self.paused.best_loss), size)
        except torch.OutOfMemoryError:
            return False
        return True


def pause(members: Sequence[Member]) -> None:
    """Write down where they stand, or that the gradient of one was not a number, which no loss has seen yet."""
    if not members:
        return
    state = State.stack([member.state for member in members])
    finite = transport.finite(state.x)
    best = state.best_loss.tolist()
    states = transport.job_states(
        state, with_best=[member.betters(loss) for member, loss in zip(members, best, strict=True)]
    )
    for member, paused, sound in zip(members, states, finite, strict=True):
        member.paused = paused
        if not sound:
            member.failure = Failure.of(NOT_A_NUMBER)


def segments(jobs: Sequence[tuple[int, bool]], sizes: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """How to run jobs that have unequal numbers of evaluations to do: (evaluations, rows) in turn.

    `jobs` has for each the evaluations, and whether it must stop there though it is not done (a chunk leaves a job alone
    only once it is done). Jobs that have finished leave the batch as soon as the rest fits a smaller one of the batch
    `sizes`, so that they stop costing compute.
    """
    done = 0
    while rows := [i for i, (todo, _) in enumerate(jobs) if todo > done]:
        ends = sorted(jobs[i][0] for i in rows)
        smaller = max((size for size in sizes if size < padded(len(rows), sizes)), default=0)
        stop = min([ends[len(rows) - smaller - 1], *(jobs[i][0] for i in rows if jobs[i][1])])
        yield stop - done, rows
        done = stop
