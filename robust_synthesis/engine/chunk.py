"""The heart: k steps of projected gradient descent on the input, for a batch of jobs of any tasks.

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
    """What a chunk needs of a classifier."""

    def logits_and_latent(self, x: Tensor, fake_relu: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] in [0, 1] -> logits [B, C] and pooled latent [B, D], both fp32."""
        ...


@dataclass(frozen=True)
class Trace:
    """What each of k evaluations found, judged before its step: loss and target probability, [k, B]."""

    loss: Tensor
    probability: Tensor


def objective(classifier: Differentiable, problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    """Loss [B] and target probability [B] at x [B, 3, H, W]."""
    logits, latent = classifier.logits_and_latent(x, problem.fake_relu)
    cross_entropy = F.cross_entropy(logits, problem.target, reduction="none")
    activation = latent.gather(1, problem.unit[:, None]).squeeze(1)
    outside = ((problem.center - x) * (1 - problem.mask)).square().mean(dim=(1, 2, 3))
    loss = problem.ce_weight * cross_entropy + problem.latent_weight * activation + problem.penalty_weight * outside
    return loss, (-cross_entropy.detach()).exp()


def step(problem: Problem, x: Tensor, gradient: Tensor, levels: int | None = LEVELS) -> Tensor:
    """One projected step against the gradient, rounded to the grid; all [B, 3, H, W]."""
    gradient = torch.where(per_sample(problem.hard_mask), gradient * problem.mask, gradient)
    moved = x - per_sample(problem.step_size) * direction(gradient, problem.norm)
    x = project(moved, problem.center, problem.norm, problem.epsilon)
    return x if levels is None else quantise(x, levels)


def advance(
    classifier: Differentiable, problem: Problem, state: State, k: int, *, levels: int | None = LEVELS
) -> tuple[State, Trace]:
    """Up to k evaluations (and the steps between them) of every job; jobs that are done stay as they are.

    At an equal batch size, k = 60 once and k = 10 six times give the same bits. `levels=None` switches the grid off.
    """
    x, best_x = state.x, state.best_x
    best_loss, best_probability = state.best_loss, state.best_probability
    losses, probabilities = [], []
    for i in range(k):
        steps = state.remaining - i > 1
        with torch.set_grad_enabled(bool(steps.any())):
            point = x.detach().requires_grad_(True)
            loss, probability = objective(classifier, problem, point)
            gradient = torch.autograd.grad(loss.sum(), point)[0] if loss.requires_grad else None
        with torch.no_grad():
            loss = loss.detach()
            better = (state.remaining > i).to(loss.device) & (loss < best_loss)
            best_loss = torch.where(better, loss, best_loss)
            best_probability = torch.where(better, probability, best_probability)
            best_x = torch.where(per_sample(better), x, best_x)
            if gradient is not None:
                x = torch.where(per_sample(steps.to(x.device)), step(problem, x, gradient, levels), x)
        losses.append(loss)
        probabilities.append(probability)
    state = State(x, best_x, best_loss, best_probability, (state.remaining - k).clamp_min(0))
    return state, Trace(torch.stack(losses), torch.stack(probabilities))
