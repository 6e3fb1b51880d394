"""Problems and states between tensors and the u16 arrays of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bundle import FixedProblem, JobState, Pixels
from ..engine.ball import NORMS
from ..engine.classifier import Classifier
from ..engine.problem import LEVELS, Problem, State
from ..errors import InvalidInput

_WEIGHTS = ("ce_weight", "latent_weight", "penalty_weight")
_FLAGS = ("fake_relu", "hard_mask", "use_best")
_SCALARS: Mapping[str, type] = {
    "target": int,
    "unit": int,
    "norm": int,
    "epsilon": float,
    "step_size": float,
    **dict.fromkeys(_WEIGHTS, float),
    **dict.fromkeys(_FLAGS, bool),
}


def to_levels(x: Tensor) -> Pixels:
    """Values on the grid -> u16, of the same shape. What is not a number becomes any level.

    On a CPU in one thread: those of torch sleep while a GPU computes, and would take longer to wake than this takes.
    """
    if x.is_cuda:  # in pinned memory, which the GPU writes to itself
        levels = (x * LEVELS).round_().to(torch.uint16)
        arrived = torch.empty(levels.shape, dtype=levels.dtype, pin_memory=True)
        return arrived.copy_(levels).numpy().copy()
    with np.errstate(invalid="ignore"):
        return np.rint(x.numpy() * np.float32(LEVELS)).astype(np.uint16)


def finite(x: Tensor) -> list[bool]:
    """Whether each row of a batch is numbers only."""
    if x.is_cuda:
        return [bool(row) for row in x.isfinite().flatten(1).all(1).tolist()]
    return [bool(np.isfinite(row).all()) for row in x.numpy()]


def from_levels(pixels: Pixels, device: torch.device) -> Tensor:
    """u16 -> values on the grid, of the same shape, divided where they will be used."""
    return torch.from_numpy(pixels.astype(np.float32)).to(device) / LEVELS


def fixed(problem: Problem) -> FixedProblem:
    """One job's problem, as it travels."""
    everywhere = bool((problem.mask == 1).all())
    mask = None if everywhere else to_levels(problem.mask[0])
    return FixedProblem(to_levels(problem.center[0]), mask, {name: getattr(problem, name).item() for name in _SCALARS})


def problem(sent: FixedProblem, classifier: Classifier) -> Problem:
    """The problem that `fixed` wrote, [1, ...]. Raises InvalidInput naming the scalar that is missing or out of range."""
    scalars = checked(sent.scalars, classifier)
    center = from_levels(sent.center, classifier.device)
    mask = torch.ones_like(center[:1]) if sent.mask is None else from_levels(sent.mask, classifier.device)
    tensors = {name: torch.tensor([value], device=classifier.device) for name, value in scalars.items()}
    return Problem(center=center[None], mask=mask[None], **tensors)


def checked(scalars: Mapping[str, Any], classifier: Classifier) -> Mapping[str, Any]:
    """A problem's scalars, each of its type. Raises InvalidInput where this classifier cannot have them."""
    for name in scalars.keys() - _SCALARS.keys():
        raise InvalidInput(f"problem.{name}", "is unknown.")
    for name, kind in _SCALARS.items():
        value = scalars.get(name)
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise InvalidInput(
                f"problem.{name}", f"is {value!r}; give {'true or false' if kind is bool else 'a number'}."
            )
    below = {"target": len(classifier.card.classes), "unit": classifier.network.fc.in_features, "norm": len(NORMS)}
    for name, end in below.items():
        if not 0 <= scalars[name] < end:
            raise InvalidInput(f"problem.{name}", f"is {scalars[name]}; give 0 to {end - 1}.")
    if scalars["epsilon"] < 0 or scalars["step_size"] <= 0:
        raise InvalidInput("problem.epsilon", "must be at least 0, and step_size above 0.")
    return {name: _SCALARS[name](scalars[name]) for name in _SCALARS}


def states(sent: Sequence[JobState], device: torch.device) -> State:
    """Those of jobs of one size; where the best x was not sent, x stands in for it."""
    x = from_levels(np.stack([each.x for each in sent]), device)
    best_x = x
    if any(each.best_x is not None for each in sent):
        best_x = from_levels(np.stack([each.x if each.best_x is None else each.best_x for each in sent]), device)
    return State(
        x=x,
        best_x=best_x,
        best_loss=torch.tensor([each.best_loss for each in sent], device=device),
        best_probability=torch.tensor([each.best_probability for each in sent], device=device),
        best_class=torch.tensor([each.best_class for each in sent], device=device),
        remaining=torch.tensor([each.remaining for each in sent]),
    )


def job_states(state: State, *, with_best: Sequence[bool]) -> list[JobState]:
    """One for each row of a batch, as it travels."""
    x = to_levels(state.x)
    best_x = to_levels(state.best_x) if any(with_best) else x
    loss, probability, predicted = (x.tolist() for x in (state.best_loss, state.best_probability, state.best_class))
    return [
        JobState(
            x=x[i],
            remaining=remaining,
            best_x=best_x[i] if with_best[i] else None,
            best_loss=loss[i],
            best_probability=probability[i],
            best_class=predicted[i],
        )
        for i, remaining in enumerate(state.remaining.tolist())
    ]
