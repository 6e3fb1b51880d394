"""Problems and states between tensors and the u16 arrays of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Values on the grid, of one sample -> u16."""
    return (x.cpu() * LEVELS).round().to(torch.int32).numpy().astype(np.uint16)


def from_levels(pixels: Pixels, device: torch.device) -> Tensor:
    """u16 -> values on the grid, divided where they will be used."""
    return torch.from_numpy(pixels.astype(np.float32)).to(device) / LEVELS


def fixed(problem: Problem) -> FixedProblem:
    """One job's problem, as it travels."""
    everywhere = bool((problem.mask == 1).all())
    mask = None if everywhere else to_levels(problem.mask[0])
    return FixedProblem(to_levels(problem.center[0]), mask, {name: getattr(problem, name).item() for name in _SCALARS})


def problem(sent: FixedProblem, classifier: Classifier) -> Problem:
    """The problem that `fixed` wrote, [1, ...]. Raises InvalidInput naming the scalar that is missing or out of range."""
    scalars = _checked(sent.scalars, classifier)
    center = from_levels(sent.center, classifier.device)
    mask = torch.ones_like(center[:1]) if sent.mask is None else from_levels(sent.mask, classifier.device)
    tensors = {name: torch.tensor([value], device=classifier.device) for name, value in scalars.items()}
    return Problem(center=center[None], mask=mask[None], **tensors)


def _checked(scalars: Mapping[str, Any], classifier: Classifier) -> Mapping[str, Any]:
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


def state(sent: JobState, device: torch.device) -> State:
    """[1, ...]; where the best x was not sent, x stands in for it."""
    x = from_levels(sent.x, device)[None]
    best_x = x if sent.best_x is None else from_levels(sent.best_x, device)[None]
    return State(
        x=x,
        best_x=best_x,
        best_loss=torch.tensor([sent.best_loss], device=device),
        best_probability=torch.tensor([sent.best_probability], device=device),
        remaining=torch.tensor([sent.remaining]),
    )


def job_state(state: State, *, with_best: bool) -> JobState:
    """One job's state, as it travels."""
    return JobState(
        x=to_levels(state.x[0]),
        remaining=int(state.remaining),
        best_x=to_levels(state.best_x[0]) if with_best else None,
        best_loss=float(state.best_loss),
        best_probability=float(state.best_probability),
    )
