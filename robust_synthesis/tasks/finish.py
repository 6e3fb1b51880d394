"""What is reported of a job that is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..engine.ball import l2_norm
from ..engine.problem import Problem, State
from ..specs import Spec
from .job import Job


def ran_with(spec: Spec, job: Job, classes: Sequence[str]) -> dict[str, Any]:
    """The spec as it really ran: defaults filled in, and the class that was predicted where none was named."""
    ran = vars(spec) | dict(job.parameters)
    return ran if ran.get("unit") is not None else ran | {"target": classes[job.target]}


def predicted_class(problem: Problem, state: State, last: int) -> int:
    """Index of the class that is predicted for the result of a finished job; -1 where that is not known.

    `last` is that of the last x.
    """
    return int(state.best_class) if bool(problem.use_best) else last


def measures(problem: Problem, state: State, last_probability: float) -> Mapping[str, float]:
    """Of one finished job: probability of the target in the result, distances of the result from the start.

    `last_probability` is that of the last x.
    """
    change = state.result(problem) - problem.center
    return {
        "probability_after": float(state.best_probability) if bool(problem.use_best) else last_probability,
        "l2": float(l2_norm(change)),
        "linf": float(change.abs().max()),
    }
