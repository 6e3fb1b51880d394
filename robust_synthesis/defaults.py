"""The parameters a task runs with: the caller's, else the card's, else the paper's, both scaled to the image size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .model_folder import Card
from .specs import Spec

PAPER_SIZE = 224
MASKED = 1 / 8
"""Share of a picture that a mask is taken to mark: a square of about a third of its side."""

PAPER: Mapping[str, Mapping[str, Any]] = {
    "maximize_class": {"epsilon": 40.0, "step_size": 1.0, "steps": 60},
    "generate": {"epsilon": 40.0, "step_size": 1.0, "steps": 60},
    "inpaint": {"epsilon": 21.6, "step_size": 0.1, "steps": 720, "penalty": 10.0, "filling": "mean"},
    "translate": {"epsilon": 80.0, "step_size": 0.5, "steps": 200},
    "super_resolve": {"epsilon": 15.0, "step_size": 1.0, "steps": 50, "upsampling": "nearest"},
    "sketch_to_image": {"epsilon": 40.0, "step_size": 1.0, "steps": 60},
    "paint_features": {"epsilon": 70.0, "step_size": 1.0, "steps": 140, "penalty": 90.0, "strength": 0.1},
}
"""At 224 pixels; Santurkar et al. 2019, appendix A and the authors' notebooks."""


def resolve(spec: Spec, card: Card, size: int) -> dict[str, Any]:
    """Every optional parameter of the task with the value it will have at `size` pixels.

    A step size that nobody chose follows the epsilon and the number of steps, so that asking for fewer steps or a larger
    ball still reaches the ball's edge. A norm without an epsilon gets that of the L2 ball, spread evenly over the d values
    that may change: epsilon / sqrt(d) in L-inf, so that the corners of the one touch the edge of the other.
    """
    values = 3 * size**2 * (MASKED if spec.needs_mask else 1)
    paper = {"norm": "l2", **_scaled(PAPER[spec.task], "l2", size / PAPER_SIZE)}
    own = card.defaults.get(spec.task, {})
    tuned = _over(paper, _scaled(own, own.get("norm", "l2"), size / card.size), values)
    return _over(tuned, {name: value for name in tuned if (value := getattr(spec, name, None)) is not None}, values)


def _scaled(parameters: Mapping[str, Any], norm: str, factor: float) -> dict[str, Any]:
    """Lengths for a picture of another side; L-inf ones are per value, so they stay."""
    lengths = {"epsilon", "step_size"} & parameters.keys() if norm != "linf" else set()
    return {**parameters, **{name: parameters[name] * factor for name in lengths}}


def _over(chosen: Mapping[str, Any], given: Mapping[str, Any], values: float) -> dict[str, Any]:
    """`chosen` with what is `given` in its place, and the lengths that are not given fitted to it."""
    root = (chosen["norm"] == "linf") - (given.get("norm", chosen["norm"]) == "linf")
    lengths = {name: chosen[name] * values ** (root / 2) for name in ("epsilon", "step_size")}
    resolved = {**chosen, **lengths, **given}
    if "step_size" not in given and given.keys() & {"epsilon", "steps"} and resolved["norm"] != "none":
        reach = chosen["step_size"] * chosen["steps"] / chosen["epsilon"] if chosen["epsilon"] else 1.0
        resolved["step_size"] = max(reach * resolved["epsilon"] / resolved["steps"], 1e-6)
    return resolved
