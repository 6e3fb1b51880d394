"""One turn of projected gradient descent on the input: what a batch of jobs of any tasks finds where it stands, and its step.

Source: Santurkar et al. 2019, appendix A; the update is that of Madry et al. 2018 with steps of normalised length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .ball import direction, per_sample, project
from .problem import LEVELS, Problem, State, quantise


class Differentiable(Protocol):
    """What a turn needs of a classifier."""

    def logits_and_latent(self, x: Tensor, fake_relu: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] in [0, 1] -> logits [B, C] and pooled latent [B, D], both fp32."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """What is found at x: loss, target probability and predicted class [B], and the loss's gradient [B, 3, H, W] if asked for."""

    loss: Tensor
    probability: Tensor
    predicted: Tensor
    gradient: Tensor | None


def evaluate(
    classifier: Differentiable, problem: Problem, x: Tensor, *, gradient: bool = True, penalised: bool = True
) -> Evaluation:
    """The objective of `Problem` at x [B, 3, H, W]; without `penalised` as if every penalty weight were 0, but faster.

    Autograd takes the network's part only. That of the rest is written out: a (softmax - one-hot) towards the logits, b towards
    the unit, and 2 c (x - x0) (1 - M)^2 / (3 H W) towards x.
    """
    point = x.detach().requires_grad_(gradient)
    with torch.set_grad_enabled(gradient):
        logits, latent = classifier.logits_and_latent(point, problem.fake_relu)
    with torch.no_grad():
        target, unit = problem.target[:, None], problem.unit[:, None]
        ce_weight, latent_weight = problem.ce_weight[:, None], problem.latent_weight[:, None]
        log_probabilities = F.log_softmax(logits, 1)
        log_probability = log_probabilities.gather(1, target)
        loss = (latent_weight * latent.gather(1, unit) - ce_weight * log_probability).squeeze(1)
        towards_x = None
        if gradient:
            towards_logits = (ce_weight * log_probabilities.exp()).scatter_add_(1, target, -ce_weight)
            towards_latent = torch.zeros_like(latent).scatter_(1, unit, latent_weight)
            towards_x = torch.autograd.grad((logits, latent), point, (towards_logits, towards_latent))[0]
        if penalised:
            free = 1 - problem.mask
            outside = (x - problem.center).mul_(free)
            loss = loss + problem.penalty_weight * outside.square().mean(dim=(1, 2, 3))
            if towards_x is not None:
                towards_x = towards_x + outside.mul_(free * per_sample(2 * problem.penalty_weight / x[0].numel()))
        return Evaluation(loss, log_probability.squeeze(1).exp(), logits.argmax(1), towards_x)


def step(problem: Problem, x: Tensor, gradient: Tensor, levels: int | None = LEVELS) -> Tensor:
    """One projected step against the gradient, rounded to the grid; all [B, 3, H, W]."""
    gradient = torch.where(per_sample(problem.hard_mask), gradient * problem.mask, gradient)
    moved = x - per_sample(problem.step_size) * direction(gradient, problem.norm)
    x = project(moved, problem.center, problem.norm, problem.epsilon)
    return x if levels is None else quantise(x, levels)


def turn(
    classifier: Differentiable,
    problem: Problem,
    state: State,
    active: Tensor,
    moving: Tensor | None,
    *,
    penalised: bool = True,
    levels: int | None = LEVELS,
) -> tuple[State, Evaluation]:
    """An evaluation, which counts for the jobs that are `active` [B], and a step of those that are `moving` [B] (None: none)."""
    found = evaluate(classifier, problem, state.x, gradient=moving is not None, penalised=penalised)
    better = active & (found.loss < state.best_loss)
    x = state.x
    if moving is not None and found.gradient is not None:
        x = torch.where(per_sample(moving), step(problem, x, found.gradient, levels), x)
    after = State(
        x=x,
        best_x=torch.where(per_sample(better), state.x, state.best_x),
        best_loss=torch.where(better, found.loss, state.best_loss),
        best_probability=torch.where(better, found.probability, state.best_probability),
        best_class=torch.where(better, found.predicted, state.best_class),
        remaining=state.remaining,
    )
    return after, found
