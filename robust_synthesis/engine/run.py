"""Jobs from start to end in this process: batches of certain sizes, in chunks, with progress between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..batch_sizes import LARGEST, batch_sizes, padded
from ..errors import SynthesisError
from .chunk import Trace, advance
from .problem import Problem, State
from .turn import Differentiable


@dataclass(frozen=True)
class Progress:
    """Where a batch of jobs stands after a chunk."""

    jobs: range
    """Which of the jobs these are."""
    step: int
    steps: int
    loss: Tensor
    """[B], at the last evaluation."""
    probability: Tensor
    """[B], of each job's target."""
    pictures: Tensor
    """x, [B, 3, H, W], on the CPU."""


@dataclass(frozen=True)
class Finished:
    """B jobs that are done, on the CPU."""

    state: State
    trace: Trace
    """Every evaluation, [T + 1, B]."""


def pad(problem: Problem, state: State, sizes: Iterable[int]) -> tuple[Problem, State]:
    """Fill a batch up to one of the sizes with copies of its first job that have nothing left to do.

    At an equal size the bits are equal, whatever the neighbours.
    """
    missing = padded(len(state), sizes) - len(state)
    if not missing:
        return problem, state
    idle = dataclasses.replace(state.rows(slice(0, 1)), remaining=torch.tensor([0]))
    return (
        Problem.stack([problem, *[problem.rows(slice(0, 1))] * missing]),
        State.stack([state, *[idle] * missing]),
    )


def run(
    classifier: Differentiable,
    device: torch.device,
    jobs: Sequence[tuple[Problem, State]],
    *,
    chunk: int = 10,
    batch: int = LARGEST,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Finished]:
    """Run jobs of one image size to their end, up to `batch` at a time; one result per job.

    Raises SynthesisError when a loss is not a number.
    """
    finished: list[Finished] = []
    sizes = batch_sizes(device.type)
    for first in range(0, len(jobs), batch):
        members = jobs[first : first + batch]
        problem, state = pad(Problem.stack([p for p, _ in members]), State.stack([s for _, s in members]), sizes)
        problem, state = problem.to(device), state.to(device)
        steps = int(state.remaining.max()) - 1
        traces = []
        while (left := int(state.remaining.max())) > 0:
            # The last evaluation takes no step, so it goes with the chunk before it.
            state, trace = advance(classifier, problem, state, left if left <= chunk + 1 else chunk)
            traces.append(trace)
            if on_progress is not None:
                count = len(members)
                on_progress(
                    Progress(
                        jobs=range(first, first + count),
                        step=steps - max(0, int(state.remaining.max()) - 1),
                        steps=steps,
                        loss=trace.loss[-1, :count].cpu(),
                        probability=trace.probability[-1, :count].cpu(),
                        pictures=state.x[:count].cpu(),
                    )
                )
        trace = Trace.stack(traces).cpu()
        state = state.to(torch.device("cpu"))
        for i in range(len(members)):
            evaluations = int(members[i][1].remaining)
            rows = slice(i, i + 1)
            done = state.rows(rows)
            if not bool(torch.isfinite(done.best_loss) & torch.isfinite(done.result(members[i][0])).all()):
                raise SynthesisError("loss: is not a number; lower the step size or the weights of the objective.")
            finished.append(Finished(done, trace.of(rows, evaluations)))
    return finished
