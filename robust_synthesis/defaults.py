"""The parameters a task runs with: the caller's, else the card's, else the paper's scaled to the image size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .model_folder import Card
from .specs import Spec

PAPER_SIZE = 224

PAPER: Mapping[str, Mapping[str, Any]] = {
    "maximize_class": {"epsilon": 40.0, "step_size": 1.0, "steps": 60},
    "generate": {"epsilon": 40.0, "step_size": 1.0, "steps": 60},
    "inpaint": {"epsilon": 21.6, "step_size": 0.1, "steps": 720, "penalty": 10.0},
    "translate": {"epsilon": 80.0, "step_size": 0.5, "steps": 200},
    "super_resolve": {"epsilon": 15.0, "step_size": 1.0, "steps": 50, "upsampling": "nearest"},
    "sketch_to_image": {"epsilon": 40.0, "step_size": 1.0, "steps": 60},
    "paint_features": {"epsilon": 70.0, "step_size": 1.0, "steps": 140, "penalty": 90.0, "strength": 0.1},
}
"""At 224 pixels; Santurkar et al. 2019, appendix A and the authors' notebooks."""


def resolve(spec: Spec, card: Card, size: int) -> dict[str, Any]:
    """Every optional parameter of the task with the value it will have at `size` pixels.

    A step size that nobody chose follows the epsilon and the number of steps, so that asking for fewer steps or a larger
    ball still reaches the ball's edge.
    """
    paper = dict(PAPER[spec.task])
    for name in ("epsilon", "step_size"):
        paper[name] *= size / PAPER_SIZE
    chosen = {"norm": "l2", **paper, **card.defaults.get(spec.task, {})}
    given = {name: value for name in chosen if (value := getattr(spec, name, None)) is not None}
    reach = chosen["step_size"] * chosen["steps"] / chosen["epsilon"] if chosen["epsilon"] else 1.0
    resolved = chosen | given
    if "step_size" not in given and given.keys() & {"epsilon", "steps"} and resolved["norm"] != "none":
        resolved["step_size"] = max(reach * resolved["epsilon"] / resolved["steps"], 1e-6)
    return resolved
