"""The heart: k turns of projected gradient descent on the input, for a batch of jobs of any tasks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from . import graphs
from .problem import LEVELS, Problem, Rows, State
from .turn import Differentiable, turn


@dataclass(frozen=True)
class Trace(Rows):
    """What each of k evaluations found, judged before its step: loss, target probability and predicted class, [k, B]."""

    loss: Tensor
    probability: Tensor
    predicted: Tensor

    def cpu(self) -> Trace:
        return Trace(**{name: value.cpu() for name, value in vars(self).items()})

    def of(self, rows: slice, evaluations: int) -> Trace:
        """The first evaluations of some jobs."""
        return Trace(**{name: value[:evaluations, rows] for name, value in vars(self).items()})


@torch.no_grad()
def advance(
    classifier: Differentiable, problem: Problem, state: State, k: int, *, levels: int | None = LEVELS
) -> tuple[State, Trace]:
    """Up to k evaluations (and the steps between them) of every job; jobs that are done stay as they are.

    At an equal batch size, k = 60 once and k = 10 six times give the same bits. `levels=None` switches the grid off.
    """
    penalised = bool((problem.penalty_weight != 0).any())
    if state.x.is_cuda:
        now, *traced = graphs.advance(classifier, problem, state, k, penalised=penalised, levels=levels)
        return now, Trace(*traced)
    losses, probabilities, predictions = [], [], []
    now = state
    for i in range(k):
        left = state.remaining - i
        moving = left > 1 if bool((left > 1).any()) else None
        now, found = turn(classifier, problem, now, left > 0, moving, penalised=penalised, levels=levels)
        losses.append(found.loss)
        probabilities.append(found.probability)
        predictions.append(found.predicted)
    now = dataclasses.replace(now, remaining=(state.remaining - k).clamp_min(0))
    return now, Trace(torch.stack(losses), torch.stack(probabilities), torch.stack(predictions))
